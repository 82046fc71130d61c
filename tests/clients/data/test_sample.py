"""A sample of test rows stands for the whole split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfed.clients.data.sample import sample_rows

splits = st.lists(st.integers(0, 4), min_size=1, max_size=120).map(np.array)


@given(splits, st.integers(0, 150), st.integers(0, 9), st.booleans())
def test_a_sample_has_so_many_different_rows_in_order(labels, wanted, seed, by_label):
    rows = sample_rows(len(labels), wanted, seed, labels if by_label else None)
    assert len(rows) == min(wanted or len(labels), len(labels))
    assert np.all(np.diff(rows) > 0)
    assert set(rows) <= set(range(len(labels)))
    np.testing.assert_array_equal(rows, sample_rows(len(labels), wanted, seed, labels if by_label else None))


@given(splits, st.integers(1, 120), st.integers(0, 9))
def test_every_label_has_its_share_to_within_a_row(labels, wanted, seed):
    wanted = min(wanted, len(labels))
    rows = sample_rows(len(labels), wanted, seed, labels)
    for label in np.unique(labels):
        assert abs(np.sum(labels[rows] == label) - wanted * np.mean(labels == label)) <= 1 + 1e-9


@given(splits, st.integers(1, 60), st.integers(1, 60), st.integers(0, 9), st.booleans())
def test_a_smaller_sample_is_part_of_a_larger_one(labels, one, other, seed, by_label):
    small, large = (sample_rows(len(labels), n, seed, labels if by_label else None) for n in sorted((one, other)))
    assert set(small) <= set(large)


@pytest.mark.parametrize("labels", [None, np.arange(500) % 3])
def test_another_seed_draws_another_sample(labels):
    assert set(sample_rows(500, 50, 1, labels)) != set(sample_rows(500, 50, 2, labels))
