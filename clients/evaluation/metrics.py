"""Measures of a model on labelled text."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from slimfed.clients.data.batching import Batch, TokenisedSplit
from slimfed.clients.evaluation.batch_size import batch_tokens
from slimfed.clients.evaluation.choices import choose
from slimfed.clients.evaluation.next_token import needs_whole_logits, predictions
from slimfed.clients.models.families import without_cache
from slimfed.clients.update import Evaluation

CONFIDENCE_BINS = 15
"""Number of bins of the calibration error, as in Guo et al. (2017)."""


def evaluate(
    model: nn.Module,
    split: TokenisedSplit,
    tokens: int | None = None,
    dtype: torch.dtype = torch.float32,
    rows: np.ndarray | None = None,
    done: Callable[[int], object] = lambda _rows: None,
) -> Evaluation:
    """Mean loss and accuracy of ``model`` on ``rows`` of ``split`` (default: all), without gradients.

    Classification counts labels, and gets macro-F1 and calibration error, too; causal-lm counts target tokens (those
    after a prompt), each equally. The result does not depend on ``tokens``, those in a batch (default:
    :func:`pass_tokens`), but for rounding. ``dtype`` other than float32 computes under autocast. ``done`` is
    called with the number of rows after every batch. The model's mode is restored.
    """
    device = next(model.parameters()).device
    rows = np.arange(len(split)) if rows is None else rows
    tally: Tally | None = None
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            tokens = tokens or pass_tokens(model, device, split, rows)
            for batch in batches(split, rows, tokens):
                labels = batch.pop("labels")
                there = {name: tensor.to(device) for name, tensor in batch.items()}
                if labels.dim() == 2:
                    (found,) = count_tokens(*predictions(model, there, labels))
                else:
                    found = count(model(**there, **without_cache(model)).logits, labels.to(device))
                tally = found if tally is None else tally + found
                done(len(labels))
            shares = None if split.choices is None else choose(model, split.choices, rows, tokens)
    finally:
        model.train(was_training)
    if tally is None:
        raise ValueError("there is nothing to evaluate on: no rows")
    evaluation = tally.evaluation(len(rows), bytes_of(split, rows))
    return evaluation if shares is None else with_choices(evaluation, *(float(share[0]) for share in shares))


def bytes_of(split: TokenisedSplit, rows: np.ndarray) -> int:
    """Bytes of the predicted text of ``rows``; 0 if they are not known."""
    return 0 if split.target_bytes is None else int(split.target_bytes[rows].sum())


def with_choices(found: Evaluation, accuracy: float, normalised: float) -> Evaluation:
    """``found`` with the accuracies of multiple choice."""
    return replace(found, accuracy=accuracy, accuracy_normalised=normalised)


def batches(split: TokenisedSplit, rows: np.ndarray, tokens: int) -> Iterator[Batch]:
    """``rows`` of ``split`` from the longest to the shortest, so that padding is short, at most ``tokens`` in a batch.

    A row with more tokens is a batch of its own. The longest come first: what does not fit into memory fails at once.
    """
    order = rows[np.argsort(-split.lengths[rows], kind="stable")]
    start = 0
    while start < len(order):
        stop = start + max(1, tokens // max(1, int(split.lengths[order[start]])))
        yield split.collate(order[start:stop])
        start = stop


def pass_tokens(model: nn.Module, device: torch.device, split: TokenisedSplit, rows: np.ndarray) -> int:
    """Tokens in a batch of ``rows``, by the speed of ``device`` and its free memory."""
    causal = split.labels is None
    logits = model.config.get_text_config().vocab_size if causal and needs_whole_logits(model) else 0
    return batch_tokens(model, device, int(split.lengths[rows].max(initial=1)), logits)


@dataclass(frozen=True)
class Tally:
    """Sums over the answers of some batches, on the model's processor: fetching them would make every batch wait.

    ``loss``: float64 []. ``right`` and ``answers``: int64 []. ``classes``: int64 [3, classes], how often each was
    predicted rightly, predicted, and true. ``confidence``: float64 [3, bins], the answers in each bin, how many of them
    were right, and the sum of their confidences. Both are None for tokens.
    """

    loss: torch.Tensor
    right: torch.Tensor
    answers: int
    classes: torch.Tensor | None
    confidence: torch.Tensor | None

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.loss + other.loss,
            self.right + other.right,
            self.answers + other.answers,
            _both(self.classes, other.classes),
            _both(self.confidence, other.confidence),
        )

    def evaluation(self, examples: int, text_bytes: int = 0) -> Evaluation:
        """The evaluation of ``examples`` examples by the sums; ``text_bytes``: of the predicted text, 0: not known."""
        return Evaluation(
            float(self.loss) / self.answers,
            int(self.right) / self.answers,
            examples,
            None if self.classes is None else _macro_f1(self.classes.cpu().numpy()),
            None if self.confidence is None else _calibration_error(self.confidence.cpu().numpy()),
            bits_per_byte=float(self.loss) / math.log(2) / text_bytes if text_bytes else None,
        )


def count_tokens(losses: torch.Tensor, right: torch.Tensor) -> list[Tally]:
    """The sums of one batch for each device, of :func:`predictions`: [devices, targets] both."""
    sums = zip(losses.double().sum(1), right.sum(1), strict=True)
    return [Tally(loss, hits, losses.shape[1], None, None) for loss, hits in sums]


def count(logits: torch.Tensor, labels: torch.Tensor) -> Tally:
    """The sums of one batch of a classifier: logits [rows, classes], labels [rows]."""
    logits = logits.float()
    loss = functional.cross_entropy(logits, labels, reduction="none").double().sum()
    predicted = logits.argmax(-1)
    right = predicted == labels
    width = logits.shape[-1]
    classes = [torch.bincount(each, minlength=width) for each in (labels[right], predicted, labels)]
    surest = logits.softmax(-1).amax(-1).double()
    # A bin holds its upper edge, as in the definition: (0, 1/M], (1/M, 2/M], ...
    places = (surest * CONFIDENCE_BINS).ceil().long().clamp(1, CONFIDENCE_BINS) - 1
    # As a product: a weighted bincount on a GPU adds in an order that differs from run to run.
    bins = functional.one_hot(places, CONFIDENCE_BINS).double()
    confidence = torch.stack([torch.ones_like(surest), right.double(), surest]) @ bins
    return Tally(loss, right.sum(), labels.numel(), torch.stack(classes), confidence)


def _macro_f1(classes: np.ndarray) -> float:
    """Mean over the classes of 2 TP / (predicted + true); classes that neither occur nor are predicted are left out."""
    right, predicted, true = classes
    there = predicted + true > 0
    return float(np.mean(2 * right[there] / (predicted + true)[there]))


def _calibration_error(confidence: np.ndarray) -> float:
    """Expected calibration error: mean distance of accuracy from confidence over the bins, by answers in them.

    Guo et al., On Calibration of Modern Neural Networks (ICML 2017), equation 3; the confidence is the probability of
    the predicted class, in :data:`CONFIDENCE_BINS` bins of equal width.
    """
    answers, right, sure = confidence
    return float(np.abs(right - sure).sum() / answers.sum())


def _both(one: torch.Tensor | None, other: torch.Tensor | None) -> torch.Tensor | None:
    return None if one is None or other is None else one + other
