"""Trimming the vocabulary of an exported model: choosing by texts, cutting, and measuring what it costs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from slimfed.clients.data.batching import TokenisedSplit, tokenise
from slimfed.clients.data.split import TextSplit
from slimfed.clients.evaluation.metrics import evaluate
from slimfed.clients.export.manifest import Manifest, Vocabulary, VocabularyLosses
from slimfed.clients.export.slim_model import SlimModel
from slimfed.clients.export.vocabulary.model import trimmed_model
from slimfed.clients.export.vocabulary.tokens import trimmed_tokenizer

MEASURED = 200
"""At most so many texts are measured."""

_LONGEST = 1_000_000


@dataclass(frozen=True)
class Trimming:
    """What is to be cut. ``kept``: ids of tokens of the base, ascending. ``chosen_by``: which texts, in words.

    ``judge``: texts to measure the losses on, of which ``rows`` had no part in the choice.
    """

    kept: np.ndarray
    chosen_by: str
    judge: TextSplit
    rows: np.ndarray


def used_tokens(tokenizer: PreTrainedTokenizerBase, split: TextSplit, rows: np.ndarray | None = None) -> np.ndarray:
    """The tokens of the texts ``rows`` (default: all) as the model reads them, int64, each once."""
    tokenised = _whole(tokenizer, split)
    chosen = np.arange(len(split)) if rows is None else rows
    found = _tokens(tokenised, chosen)
    if tokenised.choices is not None:
        spans = [tokenised.choices.span(int(row)) for row in chosen]
        found += _tokens(tokenised.choices.split, [row for first, end in spans for row in range(first, end)])
    return np.unique(np.concatenate(found)).astype(np.int64) if found else np.zeros(0, dtype=np.int64)


def used_by_lines(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> np.ndarray:
    """The tokens of plain texts, as they are and as they are behind a space, int64, each once."""
    lines = [text for text in texts if text]
    every = [*lines, *(" " + text for text in lines)]
    found = tokenizer(every, add_special_tokens=False, verbose=False)["input_ids"] if every else []
    return np.unique(np.array([token for each in found for token in each], dtype=np.int64))


def trimmed(whole: SlimModel, trimming: Trimming) -> SlimModel:
    """``whole`` with the tokens that are left, and a manifest that says what they are and what they cost."""
    tokenizer = trimmed_tokenizer(whole.tokenizer, trimming.kept)
    model = trimmed_model(whole.model, trimming.kept).eval()
    vocabulary = Vocabulary(
        kept=trimming.kept.tolist(), before=len(whole.tokenizer), chosen_by=trimming.chosen_by, losses=None
    )
    slim = SlimModel(model, tokenizer, whole.manifest.model_copy(update={"vocabulary": vocabulary}))
    losses = _losses(whole, slim, trimming)
    return replace(slim, manifest=_with(slim.manifest, losses=losses))


def with_saved(slim: SlimModel, row_bytes: Callable[[str, int, bool], int]) -> SlimModel:
    """With the bytes that the vocabulary saves. ``row_bytes``: of the format (``Format.row_bytes``)."""
    vocabulary = slim.manifest.vocabulary
    if vocabulary is None:
        return slim
    into = slim.model.get_input_embeddings()
    out = slim.model.get_output_embeddings() if slim.manifest.task == "causal-lm" else None
    weights, width = slim.manifest.weights, into.weight.shape[1]
    tied = out is not None and out.weight is into.weight
    row = row_bytes(weights, width, tied) + (0 if tied or out is None else row_bytes(weights, width, True))
    return replace(slim, manifest=_with(slim.manifest, saved=(vocabulary.before - len(vocabulary.kept)) * row))


def _with(manifest: Manifest, **changes: object) -> Manifest:
    assert manifest.vocabulary is not None
    return manifest.model_copy(update={"vocabulary": manifest.vocabulary.model_copy(update=changes)})


def _losses(whole: SlimModel, slim: SlimModel, trimming: Trimming) -> VocabularyLosses | None:
    rows = trimming.rows
    if not len(rows):
        return None
    if len(rows) > MEASURED:
        rows = rows[np.linspace(0, len(rows) - 1, MEASURED).astype(np.int64)]
    before, after = _whole(whole.tokenizer, trimming.judge), _whole(slim.tokenizer, trimming.judge)
    pairs = [(before.tokens[_span(before, row)], trimming.kept[after.tokens[_span(after, row)]]) for row in rows]
    length, measured = whole.manifest.data.max_length, []
    for each in (whole, slim):
        measured.append(evaluate(each.model, tokenise(trimming.judge, each.tokenizer, length), rows=rows))
    causal = whole.manifest.task == "causal-lm"
    return VocabularyLosses(
        texts=len(rows),
        changed=float(np.mean([not np.array_equal(one, two) for one, two in pairs])),
        tokens_before=float(np.mean([len(one) for one, _ in pairs])),
        tokens_after=float(np.mean([len(two) for _, two in pairs])),
        bits_per_byte_before=measured[0].bits_per_byte if causal else None,
        bits_per_byte_after=measured[1].bits_per_byte if causal else None,
        accuracy_before=None if causal else measured[0].accuracy,
        accuracy_after=None if causal else measured[1].accuracy,
    )


def _whole(tokenizer: PreTrainedTokenizerBase, split: TextSplit) -> TokenisedSplit:
    """Tokenised at full length, as far as the model can take."""
    return tokenise(split, tokenizer, int(min(tokenizer.model_max_length, _LONGEST)))


def _tokens(split: TokenisedSplit, rows: Iterable[int]) -> list[np.ndarray]:
    return [split.tokens[_span(split, row)] for row in rows]


def _span(split: TokenisedSplit, row: int) -> slice:
    return slice(int(split.offsets[row]), int(split.offsets[row + 1]))
