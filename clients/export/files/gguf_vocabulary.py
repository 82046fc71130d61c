"""The vocabulary in a GGUF file, so that llama.cpp divides a text into the same tokens as the tokenizer does.

llama.cpp knows the rules that split a text before merging by name (``tokenizer.ggml.pre``), and knows no others. So the
rule in the tokenizer is looked up here, and a tokenizer whose rule has no name there is refused.
"""

import json
from pathlib import Path
from typing import Any

import gguf
from transformers import PreTrainedTokenizerBase

from slimfed.clients.errors import InputError
from slimfed.clients.export.files.gguf_sentencepiece import add_sentencepiece, is_sentencepiece

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
)
_BYTES, _BYTES_OF_WORDS = ("bytes", False), ("bytes", True)  # without and with GPT-2's own rule for words
# (steps before merging, whether words that are tokens are left unmerged): the name in llama.cpp.
RULES: dict[tuple[tuple[tuple[str, Any], ...], bool], str] = {
    ((_BYTES_OF_WORDS,), False): "gpt-2",
    ((("digits", True), _BYTES_OF_WORDS), False): "smollm",
    ((("split", _CONTRACTIONS + _WORDS + r"\p{N}|" + _REST), _BYTES), False): "qwen2",
    ((("split", _CONTRACTIONS + _WORDS + r"\p{N}{1,3}|" + _REST), _BYTES), False): "smaug-bpe",
    ((("split", _CONTRACTIONS + _WORDS + r"\p{N}{1,3}|" + _REST), _BYTES), True): "llama-bpe",
    ((("split", _CASED + r"\p{N}|" + _REST.replace(r"[\r\n]*", r"[\r\n/]*", 1)), _BYTES), True): "tekken",
}


def add_vocabulary(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, rows: int, folder: Path) -> None:
    """Add the tokens, their merges and the rule that splits a text; ``rows``: of the embedding.

    ``folder`` holds the tokenizer's files. Raises ``InputError`` for a tokenizer that llama.cpp cannot repeat.
    """
    document = _document(tokenizer)
    if is_sentencepiece(document):
        add_sentencepiece(writer, tokenizer, document, rows)
        _add_others(writer, tokenizer, rows, folder, merges=False)
        return
    rule = _rule_name(document)
    texts, kinds = zip(*_tokens(tokenizer, rows), strict=True)
    writer.add_tokenizer_model("gpt2")  # any byte-level BPE
    writer.add_tokenizer_pre(rule)
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    _add_others(writer, tokenizer, rows, folder, merges=True)


def _add_others(
    writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, rows: int, folder: Path, merges: bool
) -> None:
    """Add the special tokens, the chat template, and perhaps the merges."""
    others = gguf.SpecialVocab(folder, load_merges=merges, n_vocab=rows)
    others.add_special_token = {"bos": _begins(tokenizer), "eos": False}  # as a text is tokenised in training
    others.add_to_gguf(writer, quiet=True)


def _tokens(tokenizer: PreTrainedTokenizerBase, rows: int) -> list[tuple[bytes, gguf.TokenType]]:
    """Text and kind of each token; a row of the embedding that no token uses gets a text of its own."""
    added, special = tokenizer.added_tokens_decoder, set(tokenizer.all_special_ids)
    names = tokenizer.convert_ids_to_tokens(list(range(min(rows, len(tokenizer)))))
    found = []
    for index in range(rows):
        text = names[index] if index < len(names) else None
        if index in added:
            kind = gguf.TokenType.CONTROL if added[index].special or index in special else gguf.TokenType.USER_DEFINED
            found.append((added[index].content.encode(), kind))
        elif text is None:
            found.append((f"[PAD{index}]".encode(), gguf.TokenType.UNUSED))
        else:
            found.append((text.encode(), gguf.TokenType.NORMAL))
    return found


def _begins(tokenizer: PreTrainedTokenizerBase) -> bool:
    """True if the tokenizer puts its first token before a text."""
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def _document(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The tokenizer's ``tokenizer.json``."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _refused("is not one of the library tokenizers")
    document: dict[str, Any] = json.loads(backend.to_str())
    return document


def _rule_name(document: dict[str, Any]) -> str:
    """The name in llama.cpp of the rule that splits a text. Raises ``InputError`` if it has none."""
    model = document["model"]
    if model["type"] != "BPE" or model.get("byte_fallback") or model.get("continuing_subword_prefix"):
        raise _refused(f"is of type {model['type']}, not a byte-level BPE")
    normalizer = (document.get("normalizer") or {}).get("type", "NFC")
    if normalizer != "NFC":  # llama.cpp leaves it out, so that only text in this form gets the same tokens
        raise _refused(f"changes a text first ({normalizer})")
    name = RULES.get((_steps(document.get("pre_tokenizer")), bool(model.get("ignore_merges"))))
    if name is None:
        raise _refused("splits a text by a rule that has no name in llama.cpp")
    return name


def _steps(rule: dict[str, Any] | None) -> tuple[tuple[str, Any], ...]:
    """The steps of a ``pre_tokenizer``, in the form of :data:`RULES`; a step that is not known there is ``other``."""
    match rule:
        case None:
            return ()
        case {"type": "Sequence", "pretokenizers": list(parts)}:
            return tuple(step for part in parts for step in _steps(part))
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}:
            return (("split", pattern),)
        case {"type": "Digits", "individual_digits": individual}:
            return (("digits", individual),)
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return (("bytes", rule.get("use_regex", True)),)
    return (("other", None),)


def _refused(cause: str) -> InputError:
    return InputError(
        f"--format = 'gguf': the model's tokenizer {cause}, so llama.cpp would read other tokens than the model was "
        "trained on; export onnx or safetensors"
    )
