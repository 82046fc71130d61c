"""Measures of a classifier and of a language model, against other people's code."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_models import build
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_f1_score
from transformers.modeling_outputs import SequenceClassifierOutput

from slimfed.clients.data.batching import TokenisedSplit
from slimfed.clients.evaluation.metrics import CONFIDENCE_BINS, batches, evaluate


class Oracle(torch.nn.Module):
    """Answers row r, whose only token is r, with the r-th row of ``logits``."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(logits, requires_grad=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(logits=self.logits[input_ids[:, 0]])


def split(labels: torch.Tensor) -> TokenisedSplit:
    rows = len(labels)
    return TokenisedSplit(np.arange(rows, dtype=np.int32), np.arange(rows + 1), labels.numpy(), np.zeros(rows, int), 0)


@settings(max_examples=30)
@given(st.integers(2, 7), st.integers(1, 60), st.integers(1, 9), st.floats(0.1, 8.0), st.integers(0, 10**6))
def test_macro_f1_and_calibration_of_a_classifier(
    classes: int, rows: int, batch: int, certainty: float, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn((rows, classes), generator=draw) * certainty
    labels = torch.randint(classes, (rows,), generator=draw)
    edges = torch.linspace(0, 1, CONFIDENCE_BINS + 1)
    apart = (logits.softmax(-1).amax(-1)[:, None] - edges).abs().min()
    assume(apart > 1e-5)  # rounding decides which bin an answer on an edge is in
    found = evaluate(Oracle(logits), split(labels), tokens=batch)
    assert found.accuracy == pytest.approx(float((logits.argmax(-1) == labels).double().mean()))
    there = torch.unique(torch.cat([labels, logits.argmax(-1)]))
    each = multiclass_f1_score(logits, labels, classes, average="none")[there]
    assert found.macro_f1 == pytest.approx(float(each.mean()), abs=1e-6)
    error = multiclass_calibration_error(logits.softmax(-1), labels, classes, n_bins=CONFIDENCE_BINS, norm="l1")
    assert found.calibration_error == pytest.approx(float(error), abs=1e-5)
    assert (found.exact_match, found.rouge_l, found.bleu, found.generated) == (None,) * 4


def test_a_model_that_is_as_sure_as_it_is_right_is_calibrated() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    logits = torch.log(torch.tensor([[0.75, 0.25]])).expand(4, 2).clone()
    assert evaluate(Oracle(logits), split(labels)).calibration_error == pytest.approx(0.0, abs=1e-6)


def test_a_language_model_is_measured_by_tokens() -> None:
    """Those after the prompt; macro-F1 and calibration over a vocabulary mean nothing and are left out."""
    model = build("llama", causal=True)
    tokens = np.arange(3, 23, dtype=np.int32)
    texts = TokenisedSplit(tokens, np.array([0, 8, 20]), None, np.array([3, 0]), 0)
    found = evaluate(model, texts, tokens=1)
    losses = []
    for begin, end, prompt in ((0, 8, 3), (8, 20, 0)):
        ids = torch.from_numpy(tokens[begin:end].astype(np.int64))[None]
        logits = model(ids).logits[0, :-1].log_softmax(-1)
        losses += [-float(logits[i, ids[0, i + 1]]) for i in range(max(prompt - 1, 0), ids.shape[1] - 1)]
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert (found.macro_f1, found.calibration_error) == (None, None)


def test_nothing_to_evaluate_on_is_an_error() -> None:
    with pytest.raises(ValueError, match="no rows"):
        evaluate(Oracle(torch.zeros(1, 2)), split(torch.tensor([0])), rows=np.array([], dtype=int))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 200), st.integers(0, 100))
def test_batches_hold_every_row_once_and_no_more_tokens_than_they_may(lengths, tokens, seed):
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    texts = TokenisedSplit(np.arange(offsets[-1], dtype=np.int32), offsets, np.arange(len(lengths)), offsets[:-1], 0)
    rows = np.random.default_rng(seed).permutation(len(lengths))
    found = list(batches(texts, rows, tokens))
    assert sorted(np.concatenate([b["labels"].numpy() for b in found])) == sorted(rows)
    assert all(b["input_ids"].numel() <= tokens or len(b["labels"]) == 1 for b in found)
