"""Adapters in fewer bits: how near they stay, what error feedback makes good, and that cutting loses nothing more."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import build
from small_structures import draw_adapter, draw_structure

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.messages.quantization import adapter_bytes, compensated, kept, pack, rounded
from slimfed.clients.models.discovery import discover
from slimfed.clients.pruning.adapter_slicing import narrow

MODEL = build("bert")
BLUEPRINT = discover(MODEL)
DENSE = BLUEPRINT.dense()
# How far a number may move, in parts of the largest one it shares a scale with.
NEARNESS = {"bf16": 2.0**-8, "int8": 1.0 / 127}

precisions = st.sampled_from(["bf16", "int8"])


def some_adapter(seed: int, rank: int = 4) -> Adapter:
    """Factors of very unlike sizes, some zeros among them, and a head."""
    draw = np.random.default_rng(seed)
    plain = draw_adapter(MODEL, BLUEPRINT, seed, rank)
    factors = {
        name: Factors(f.a * np.float32(10.0 ** draw.integers(-12, 6)), f.b * (draw.random(f.b.shape) < 0.7))
        for name, f in plain.factors.items()
    }
    return Adapter(factors, {"classifier.weight": draw.normal(size=(2, 5)).astype(np.float32)})


@given(seed=st.integers(0, 10**6), precision=precisions)
def test_rounding_stays_near_and_is_done_once(seed: int, precision: str) -> None:
    whole = some_adapter(seed)
    once = rounded(whole, precision)
    for true, near in zip(whole.tensors(), once.tensors(), strict=True):
        assert near.dtype == np.float32
        assert np.abs(true - near).max() <= NEARNESS[precision] * np.abs(true).max()
    np.testing.assert_array_equal(rounded(once, precision).vector, once.vector)


@given(seed=st.integers(0, 10**6), precision=precisions, rank=st.integers(1, 4))
def test_a_part_of_what_was_rounded_is_rounded(seed: int, precision: str, rank: int) -> None:
    """So a device is told the same, whoever shares its message."""
    wants = draw_structure(BLUEPRINT, seed)
    part = narrow(rounded(some_adapter(seed), precision), DENSE, wants, rank)
    np.testing.assert_array_equal(rounded(part, precision).vector, part.vector)


@given(seed=st.integers(0, 10**6), precision=precisions, rounds=st.integers(1, 30))
def test_what_was_sent_adds_up_to_what_was_meant(seed: int, precision: str, rounds: int) -> None:
    memory, meant, sent = None, 0.0, 0.0
    base = some_adapter(seed)
    largest = np.abs(base.vector).max()
    for number in range(rounds):
        # One way for long, as learning goes: the worst for rounding that remembers nothing.
        true = base.with_vector(base.vector * np.float32(1 + 1e-3 * number))
        told, memory = compensated(true, memory, precision)
        meant, sent = meant + true.vector.astype(np.float64), sent + told.vector.astype(np.float64)
    np.testing.assert_allclose(sent + memory.vector, meant, rtol=1e-5, atol=1e-6 * largest)
    for left, whole in zip(memory.tensors(), base.tensors(), strict=True):
        assert np.abs(left).max() <= 1.1 * NEARNESS[precision] * np.abs(whole).max()  # however many rounds


def test_rounding_that_remembers_nothing_does_not_add_up() -> None:
    base = some_adapter(1).with_vector(np.full(some_adapter(1).vector.shape, 0.3, np.float32))
    lost = 100 * (base.vector - rounded(base, "int8").vector)
    assert np.abs(lost).min() > 0.1 * NEARNESS["int8"]


@given(seed=st.integers(0, 10**6), precision=precisions)
def test_zeros_stay_zeros_and_remember(seed: int, precision: str) -> None:
    whole, memory = some_adapter(seed), some_adapter(seed).with_vector(np.ones_like(some_adapter(seed).vector))
    sent, left = compensated(whole, memory, precision)
    gone = whole.vector == 0
    assert gone.any()
    assert not sent.vector[gone].any()
    assert (left.vector[gone] == 1).all()


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_hidden_and_not_remembered(precision: str, odd: float) -> None:
    whole = some_adapter(3)
    next(iter(whole.factors.values())).a[0, 0] = odd
    sent, left = compensated(whole, None, precision)
    assert not np.isfinite(sent.vector).all()
    assert np.isfinite(left.vector).all()


@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("bf16", 2), ("int8", 1)])
def test_bytes_are_those_of_the_arrays(precision: str, size: int) -> None:
    whole = some_adapter(3)
    vector, exponents = pack(whole, precision)
    assert vector.itemsize == size
    assert adapter_bytes(whole, precision) == vector.nbytes + (0 if exponents is None else exponents.nbytes)


def test_a_memory_follows_structure_and_rank() -> None:
    had = draw_structure(BLUEPRINT, 1)
    has = draw_structure(BLUEPRINT, 2, within=had)
    memory = narrow(some_adapter(1), DENSE, had, 3)
    fewer, more = kept(memory, had, has, 2), kept(memory, had, has, 4)
    wanted = narrow(some_adapter(1), DENSE, has, 3)
    for name, f in wanted.factors.items():
        np.testing.assert_array_equal(fewer.factors[name].a, f.a[:2])
        np.testing.assert_array_equal(more.factors[name].b[:, :3], f.b)
        assert not more.factors[name].a[3:].any()
        assert more.factors[name].a.shape == (4, f.a.shape[1])
