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
    tokens = [_token(tokenizer, index, document["model"].get("unk_token")) for index in range(rows)]
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


def _token(tokenizer: PreTrainedTokenizerBase, index: int, unknown: str | None) -> tuple[str, gguf.TokenType]:
    added = tokenizer.added_tokens_decoder.get(index)
    text = tokenizer.convert_ids_to_tokens(index) if index < len(tokenizer) else None
    if text is None:
        return f"[PAD{index}]", gguf.TokenType.UNUSED
    if text == unknown:
        return text, gguf.TokenType.UNKNOWN
    if added is not None:
        special = added.special or index in tokenizer.all_special_ids
        if special:
            return text, gguf.TokenType.CONTROL
        return text.replace(_SPACE, " "), gguf.TokenType.USER_DEFINED  # it is looked for in the text as it is
    if len(text) == 6 and text.startswith("<0x"):
        return text, gguf.TokenType.BYTE
    return text, gguf.TokenType.NORMAL
