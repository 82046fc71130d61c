"""A decoder's figures do not depend on how many logits are computed at once, and are those of its whole logits."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import _LLAMA, DECODERS, build
from torch.nn.functional import cross_entropy
from training import split
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma3TextConfig, PreTrainedModel

from slimfed.clients.evaluation import batch_size, next_token
from slimfed.clients.evaluation.metrics import evaluate
from slimfed.clients.evaluation.next_token import has_split_head, predictions, targets


def model_of(family: str) -> PreTrainedModel:
    if family in (*DECODERS, "granite", "opt"):
        return build(family, causal=True)
    torch.manual_seed(0)
    kind = Gemma2Config if family == "gemma2" else Gemma3TextConfig
    model = AutoModelForCausalLM.from_config(kind(**_LLAMA, head_dim=16, final_logit_softcapping=3.0)).eval()
    return model.requires_grad_(False)


@pytest.mark.parametrize("family", [*DECODERS, "gemma2", "gemma3", "granite", "opt"])
def test_losses_are_those_of_the_whole_logits(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_token, "logit_rows", lambda *_: 7)
    model = model_of(family)
    batch = split(True, 3).collate(np.arange(9))
    labels = batch.pop("labels")
    assert has_split_head(model)
    losses, right = predictions(model, batch, labels)
    logits = model(**batch).logits[:, :-1]
    counted = labels[:, 1:] != -100
    expected = cross_entropy(logits[counted], labels[:, 1:][counted], reduction="none")
    torch.testing.assert_close(losses[0], expected, rtol=1e-4, atol=1e-5)
    assert right[0].tolist() == (logits[counted].argmax(-1) == labels[:, 1:][counted]).tolist()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 300), st.integers(1, 60), st.integers(0, 99), st.booleans())
def test_figures_do_not_depend_on_batches_or_chunks(tokens: int, chunk: int, seed: int, causal: bool) -> None:
    model, texts = build("llama" if causal else "bert", causal), split(causal, seed)
    expected = evaluate(model, texts, tokens=10**6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(next_token, "logit_rows", lambda *_: chunk)
        found = evaluate(model, texts, tokens=tokens)
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert (found.accuracy, found.examples, found.macro_f1) == (expected.accuracy, expected.examples, expected.macro_f1)


def test_no_more_logits_are_computed_at_once_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_token, "logit_rows", lambda *_: 5)
    model, sizes = build("llama", causal=True), []
    model.lm_head.register_forward_hook(lambda _module, inputs, _output: sizes.append(inputs[0].shape[:-1].numel()))
    evaluate(model, split(True, 1))
    assert max(sizes) == 5


@given(st.integers(1, 5), st.integers(2, 9), st.integers(0, 99))
def test_targets_are_predicted_from_the_position_before(rows: int, length: int, seed: int) -> None:
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, 9, (rows, length)))
    labels[labels < 4] = -100
    places, wanted = targets(labels)
    assert (labels.flatten()[places + 1] == wanted).all()
    assert len(wanted) == int((labels[:, 1:] != -100).sum())
    assert (places % length < length - 1).all()


CPU = torch.device("cpu")


@given(st.integers(2, 40), st.integers(1, 300_000), st.integers(1, 8192))
def test_less_memory_never_means_larger_batches(power: int, vocabulary: int, longest: int) -> None:
    model, sizes = build("llama", causal=True), []
    with pytest.MonkeyPatch.context() as patch:
        for free in (2**power, 2 ** (power + 3), 2**60):
            patch.setattr(batch_size, "free_bytes", lambda _device, free=free: free)
            tokens = batch_size.batch_tokens(model, CPU, longest, vocabulary)
            chunk, rows = batch_size.logit_rows(vocabulary, CPU), batch_size.rows_to_complete(model, CPU, longest, 64)
            assert min(tokens, chunk, rows) >= 1
            assert tokens == 1 or tokens * 4 * vocabulary <= free
            assert chunk == 1 or chunk * 4 * vocabulary <= min(free, batch_size.FASTEST["cpu"].logit_bytes)
            sizes.append((tokens, chunk, rows))
    assert all(a <= b for small, large in pairwise(sizes) for a, b in zip(small, large, strict=True))
    assert sizes[-1][0] == batch_size.FASTEST["cpu"].tokens, "enough memory: the device alone decides"
