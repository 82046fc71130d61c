"""Seeds: stable across processes and machines, unlike for unlike purposes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfed.clients.seeds import derive

keys = st.lists(st.one_of(st.integers(0, 2**40), st.text(max_size=8)), max_size=4)


def test_seeds_are_the_same_everywhere():
    """A change here would change every run ever recorded."""
    assert derive(7, "device", 1, 2) == 1555956117
    assert derive(0) == derive(0)


@given(st.integers(0, 2**31 - 1), keys)
def test_a_seed_has_31_bits(seed, path):
    assert 0 <= derive(seed, *path) < 2**31


@given(st.integers(0, 2**31 - 1), keys, keys)
def test_unlike_keys_give_unlike_seeds(seed, one, other):
    assert (derive(seed, *one) == derive(seed, *other)) == (one == other)


def test_neighbours_and_spellings_differ():
    seeds = {derive(1, "a", "b"), derive(1, "ab"), derive(1, 12), derive(1, "12"), derive(1, 1, 2), derive(11, 2)}
    assert len(seeds) == 6
    assert len({derive(1, "train", round, device) for round in range(20) for device in range(80)}) == 1600


def test_numpy_integers_count_as_integers():
    assert derive(np.int64(1), np.int32(2)) == derive(1, 2)


def test_floats_are_refused():
    with pytest.raises(TypeError):
        derive(1, 0.5)  # type: ignore[arg-type]
