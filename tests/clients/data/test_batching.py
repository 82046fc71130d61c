from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfed.clients.data.batching import (
    PROMPT_END,
    TokenisedSplit,
    probe_batches,
    row_batches,
    tokenise,
    training_batches,
)
from slimfed.clients.data.split import TextSplit
from slimfed.clients.data.text import load_data
from slimfed.clients.errors import InputError
from slimfed.clients.evaluation.metrics import evaluate
from slimfed.clients.models.loading import LoadedModel, load_model
from slimfed.clients.spec import DataSpec, ModelSpec


@pytest.fixture(scope="module")
def encoder() -> LoadedModel:
    return load_model(ModelSpec(path="builtin:tiny-encoder"), ("no", "yes"), 1)


@pytest.fixture(scope="module")
def decoder() -> LoadedModel:
    return load_model(ModelSpec(path="builtin:tiny-decoder", task="causal-lm"), None, 1)


TEXTS = ["turn on the light", "stop", "do not open the blinds in the kitchen", "play jazz"]
LABELS = np.array([0, 1, 1, 0])


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 30), size=st.integers(1, 12), seed=st.integers(0, 2**31 - 1))
def test_every_row_once_before_any_row_again(rows: int, size: int, seed: int) -> None:
    own = np.arange(100, 100 + rows)
    drawn = list(islice(row_batches(own, size, seed), 3 * rows))
    assert {len(batch) for batch in drawn} == {size}
    stream = np.concatenate(drawn)
    for start in range(0, len(stream) - rows + 1, rows):
        assert np.array_equal(np.sort(stream[start : start + rows]), own)
    assert np.array_equal(stream, np.concatenate(list(islice(row_batches(own, size, seed), 3 * rows))))


def drawn_lengths(rows: np.ndarray, lengths: np.ndarray, size: int, steps: int, seed: int, turn: int) -> np.ndarray:
    """Lengths of the texts of every step, [steps, size]; a text is its row's number, as often as it is long."""
    tokens = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    labels = np.arange(len(lengths))
    split = TokenisedSplit(tokens, offsets, labels, np.zeros(len(lengths), dtype=np.int64), pad_id=0)
    batches = list(training_batches(split, rows, size, steps, seed, turn))
    chosen = np.stack([batch["labels"].numpy() for batch in batches])
    expected = np.concatenate(list(islice(row_batches(rows, size, seed), steps)))
    assert np.array_equal(np.sort(chosen, axis=None), np.sort(expected))
    assert [batch["input_ids"].shape[1] for batch in batches] == lengths[chosen].max(axis=1).tolist()
    return lengths[chosen]


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 60), size=st.integers(1, 9), steps=st.integers(1, 12), seed=st.integers(0, 2**31 - 1))
def test_texts_of_like_length_come_together(rows: int, size: int, steps: int, seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 40, rows)
    drawn = drawn_lengths(np.arange(rows), lengths, size, steps, seed, turn=3)
    for start in range(0, steps, max(1, rows // size)):
        within = drawn[start : start + max(1, rows // size)]
        within = within[np.lexsort((within.max(axis=1), within.min(axis=1)))]  # [33, 33] comes before [33, 38]
        assert (within[:-1].max(axis=1) <= within[1:].min(axis=1)).all()


def test_devices_that_share_a_turn_have_their_short_texts_at_the_same_step() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 400)
    one, other = (
        drawn_lengths(own, lengths, 4, 10, seed, 5) for own, seed in ((np.arange(200), 1), (np.arange(200, 400), 2))
    )
    assert np.array_equal(np.argsort(one.max(axis=1)), np.argsort(other.max(axis=1)))
    elsewhere = drawn_lengths(np.arange(200), lengths, 4, 10, 1, 6)
    assert not np.array_equal(np.argsort(one.max(axis=1)), np.argsort(elsewhere.max(axis=1)))


def test_classification_batches_are_the_tokenizers_own(encoder: LoadedModel) -> None:
    split = tokenise(TextSplit(TEXTS, label=LABELS), encoder.tokenizer, 64)
    batch = split.collate([2, 1, 0])
    expected = encoder.tokenizer([TEXTS[2], TEXTS[1], TEXTS[0]], padding=True, return_tensors="pt")
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    assert torch.equal(batch["attention_mask"], expected["attention_mask"])
    assert batch["labels"].tolist() == [1, 1, 0]
    assert tokenise(TextSplit(TEXTS, label=LABELS), encoder.tokenizer, 5).lengths.max() == 5


def test_padding_can_be_rounded_up(encoder: LoadedModel) -> None:
    split = tokenise(TextSplit(TEXTS, label=LABELS), encoder.tokenizer, 64, pad_multiple=8)
    assert split.collate([0, 1])["input_ids"].shape == (2, 8)


def test_only_completions_are_learnt(decoder: LoadedModel) -> None:
    text = TextSplit(["Okay.", "The light in the hall is on now."], prompt=["stop it", "light on"])
    split = tokenise(text, decoder.tokenizer, 64)
    batch = split.collate([0, 1])
    for row in range(2):
        whole = decoder.tokenizer.decode(batch["input_ids"][row][batch["attention_mask"][row] == 1])
        learnt = batch["labels"][row][batch["labels"][row] != -100]
        assert whole == f"<s>{text.prompt[row]}{PROMPT_END}{text.text[row]}</s>"
        assert decoder.tokenizer.decode(learnt) == f"{text.text[row]}</s>"


@pytest.mark.parametrize("length", [4, 6, 9])
def test_long_pairs_keep_something_to_learn(decoder: LoadedModel, length: int) -> None:
    text = TextSplit(["The light is on now.", "Okay."], prompt=["please " * 20, "stop"])
    batch = tokenise(text, decoder.tokenizer, length).collate([0, 1])
    assert batch["input_ids"].shape[1] <= length
    assert (batch["input_ids"][:, 0] == decoder.tokenizer.bos_token_id).all()
    assert (batch["labels"][:, 1:] != -100).any(dim=1).all()


def test_plain_text_is_learnt_whole(decoder: LoadedModel) -> None:
    batch = tokenise(TextSplit(["play jazz"]), decoder.tokenizer, 64).collate([0])
    assert torch.equal(batch["labels"], batch["input_ids"])
    assert batch["input_ids"][0, -1] == decoder.tokenizer.eos_token_id


def test_more_tokens_than_the_model_takes(encoder: LoadedModel) -> None:
    with pytest.raises(InputError, match=r"data.max_length = 129 is more than the 128"):
        tokenise(TextSplit(TEXTS, label=LABELS), encoder.tokenizer, 129)


def test_probes_stay_the_same_and_fit_small_devices(encoder: LoadedModel) -> None:
    split = tokenise(TextSplit(TEXTS, label=LABELS), encoder.tokenizer, 64)
    first, second = (probe_batches(split, np.arange(4), 3, 2, seed=9) for _ in range(2))
    assert [len(batch["labels"]) for batch in first] == [3, 1]
    assert all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(first, second, strict=True))
    assert len(probe_batches(split, np.array([2]), 8, 2, seed=9)) == 1
    assert len(next(training_batches(split, np.array([2]), 8, 1, seed=9, turn=1))["labels"]) == 8


@pytest.mark.parametrize("task", ["classification", "causal-lm"])
def test_evaluation_agrees_with_the_models_own_loss(encoder: LoadedModel, decoder: LoadedModel, task: str) -> None:
    data = load_data(DataSpec(), task)
    if task == "classification":
        loaded = encoder
        part = TextSplit(data.test.text[:50], label=data.test.label[:50] % 2)
    else:
        loaded = decoder
        part = TextSplit(data.test.text[:50], prompt=data.test.prompt[:50])
    split = tokenise(part, loaded.tokenizer, 64)
    loaded.model.train()
    result, odd = evaluate(loaded.model, split, tokens=4096), evaluate(loaded.model, split, tokens=99)
    assert loaded.model.training
    loaded.model.eval()
    with torch.no_grad():
        own = loaded.model(**split.collate(np.arange(50)))
    assert result.loss == pytest.approx(float(own.loss), abs=1e-5)
    assert odd.loss == pytest.approx(result.loss, abs=1e-6)
    assert odd.accuracy == result.accuracy
    assert result.examples == 50
    if task == "classification":
        assert result.accuracy == float((own.logits.argmax(-1).numpy() == part.label).mean())
