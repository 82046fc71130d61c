"""Which tokens of a tokenizer stay, and the tokenizer that has no others."""

import copy
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from slimfed.clients.errors import InputError
from slimfed.clients.export.vocabulary.pieces import Pieces, closed, pieces_of


def kept_tokens(
    tokenizer: PreTrainedTokenizerBase, used: Iterable[int], at_least: int = 0, always: Iterable[int] = ()
) -> np.ndarray:
    """The ids of the tokens that stay, ascending, int64.

    ``used``: the tokens of the texts that must be divided as before. Beside them stay those that they are made of,
    those without which another text would be lost, all added and special tokens, those of ``always``, and as many more
    as are missing to ``at_least``, the most used first. Raises ``InputError`` for a tokenizer of another kind, or with
    fewer tokens than ``at_least``.
    """
    document = _document(tokenizer)
    pieces = pieces_of(document)
    vocabulary = pieces.vocabulary()
    if at_least > len(tokenizer):
        raise InputError(f"--min-tokens = {at_least}: the model's tokenizer has {len(tokenizer)}")
    framed = tokenizer("", "")["input_ids"]  # what the tokenizer puts around texts
    added = {int(each["id"]) for each in document["added_tokens"]} | set(map(int, tokenizer.all_special_ids))
    fixed = {index for index in {*added, *framed, *always} if index < len(tokenizer)}
    names = tokenizer.convert_ids_to_tokens([int(index) for index in used])
    texts = closed(pieces, [name for name in names if name in vocabulary])
    kept = fixed | {vocabulary[token] for token in texts}
    _fill(kept, pieces, vocabulary, at_least)
    return np.array(sorted(kept), dtype=np.int64)


def trimmed_tokenizer(tokenizer: PreTrainedTokenizerBase, kept: np.ndarray) -> PreTrainedTokenizerBase:
    """A copy with the tokens ``kept`` alone, numbered in their order from 0."""
    document = _document(tokenizer)
    pieces = pieces_of(document)
    place = {int(index): new for new, index in enumerate(kept)}
    ids = {token: place[index] for token, index in pieces.vocabulary().items() if index in place}
    document["model"] = pieces.trimmed(dict(sorted(ids.items(), key=lambda item: item[1])))
    document["added_tokens"] = [each | {"id": place[each["id"]]} for each in document["added_tokens"]]
    document["post_processor"] = _renumbered(document["post_processor"], place)
    document["padding"] = document["truncation"] = None
    trimmed = copy.deepcopy(tokenizer)
    trimmed._tokenizer = Tokenizer.from_str(json.dumps(document))
    names = tokenizer.convert_ids_to_tokens(kept.tolist())
    if trimmed.convert_ids_to_tokens(list(range(len(trimmed)))) != names:
        raise InputError(
            "--trim-vocabulary: the numbers of the tokenizer's added tokens lie among those of its other tokens with "
            "gaps, which a smaller one cannot keep; export without it"
        )
    return trimmed


def _document(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError("--trim-vocabulary: the model's tokenizer has no tokenizer.json; export without it")
    document: dict[str, Any] = json.loads(backend.to_str())
    return document


def _fill(kept: set[int], pieces: Pieces, vocabulary: dict[str, int], at_least: int) -> None:
    """Add the most used tokens until there are ``at_least``."""
    for group in pieces.by_use():
        if len(kept) >= at_least:
            return
        kept.update(vocabulary[token] for token in group if token in vocabulary)


def _renumbered(processor: dict[str, Any] | None, place: dict[int, int]) -> dict[str, Any] | None:
    """The step that puts special tokens around a text, with their new numbers."""
    if processor is None:
        return None
    match processor:
        case {"type": "Sequence", "processors": list(steps)}:
            return processor | {"processors": [_renumbered(step, place) for step in steps]}
        case {"type": "TemplateProcessing", "special_tokens": dict(tokens)}:
            renumbered = {name: each | {"ids": [place[i] for i in each["ids"]]} for name, each in tokens.items()}
            return processor | {"special_tokens": renumbered}
        case {"type": "BertProcessing" | "RobertaProcessing", "sep": [sep, end], "cls": [cls, begin]}:
            return processor | {"sep": [sep, place[end]], "cls": [cls, place[begin]]}
    return processor
