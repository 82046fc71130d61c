"""A SentencePiece vocabulary in a GGUF file: Gemma's kind, merges of characters, bytes for what has none.

llama.cpp has no merges for it. Of all neighbours whose join is a token it joins those with the highest score, so every
token gets the place of its merge as score. That is the same only if every way to make a token of two is a merge, as in
tokenizers that were made from a SentencePiece model; others are refused.
"""

from typing import Any

import gguf
from transformers import PreTrainedTokenizerBase

from slimfed.clients.errors import InputError

_SPACE = "\u2581"
_REPLACED = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
_SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
_LAST = -1e9  # of tokens that no merge makes


def is_sentencepiece(document: dict[str, Any]) -> bool:
    """True for the ``tokenizer.json`` of a Gemma: spaces are written as a character, and there are tokens of bytes."""
    model = document["model"]
    return (
        model["type"] == "BPE"
        and bool(model.get("byte_fallback"))
        and document.get("normalizer") == _REPLACED
        and document.get("pre_tokenizer") in (None, _SPLIT)
    )


def add_sentencepiece(
    writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, document: dict[str, Any], rows: int
) -> None:
    """Add tokens, scores and types. Raises ``InputError`` if llama.cpp would join other neighbours."""
    scores = _scores(document["model"])
    tokens = _tokens(tokenizer, rows, document["model"].get("unk_token"))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text.encode() for text, _ in tokens])
    writer.add_token_scores([scores.get(text, _LAST) for text, _ in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_add_space_prefix(False)


def _scores(model: dict[str, Any]) -> dict[str, float]:
    """Score by token: minus the place of its first merge among those of all tokens."""
    vocabulary, first = model["vocab"], dict[str, int]()
    merges = {tuple(pair) for pair in model["merges"]}
    for one, two in model["merges"]:
        first.setdefault(one + two, len(first))
    for token in first:
        for cut in range(1, len(token)):
            one, two = token[:cut], token[cut:]
            if one in vocabulary and two in vocabulary and (one, two) not in merges:
                raise InputError(
                    f"--format = 'gguf': the model's tokenizer does not merge {one!r} and {two!r} though {token!r} is "
                    "a token, which llama.cpp would do; export onnx or safetensors"
                )
    return {token: float(-place) for token, place in first.items()}


def _tokens(tokenizer: PreTrainedTokenizerBase, rows: int, unknown: str | None) -> list[tuple[str, gguf.TokenType]]:
    """Text and kind of each token."""
    added, special = tokenizer.added_tokens_decoder, set(tokenizer.all_special_ids)
    names = tokenizer.convert_ids_to_tokens(list(range(min(rows, len(tokenizer)))))
    found = []
    for index in range(rows):
        text = names[index] if index < len(names) else None
        if text is None:
            found.append((f"[PAD{index}]", gguf.TokenType.UNUSED))
        elif text == unknown:
            found.append((text, gguf.TokenType.UNKNOWN))
        elif index in added and (added[index].special or index in special):
            found.append((text, gguf.TokenType.CONTROL))
        elif index in added:  # it is looked for in the text as it is
            found.append((text.replace(_SPACE, " "), gguf.TokenType.USER_DEFINED))
        elif len(text) == 6 and text.startswith("<0x"):
            found.append((text, gguf.TokenType.BYTE))
        else:
            found.append((text, gguf.TokenType.NORMAL))
    return found
