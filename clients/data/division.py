"""Division of the rows of one file into a training and a test split."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slimfed.clients.data.sample import sample_rows
from slimfed.clients.errors import InputError
from slimfed.clients.seeds import derive

TEST_SHARE = 0.1
"""Share of the rows of one file that are its test split, unless the job names one."""


@dataclass(frozen=True)
class Division:
    """How the rows of the file ``name`` were divided: ``train`` and ``test`` rows, and the owners if they are whole."""

    name: str
    train: int
    test: int
    share: float
    by_owner: bool

    def __str__(self) -> str:
        how = "whole owners, drawn by the seed" if self.by_owner else "drawn by the seed"
        return (
            f"data.test_share = {self.share:g}: {self.test:,} of the {self.train + self.test:,} rows of {self.name} "
            f"are the test split ({how})"
        )


def held_out_rows(
    rows: int, share: float, seed: int, labels: Sequence[str] | None = None, owners: Sequence[str] | None = None
) -> np.ndarray:
    """The rows of the test split, int64, ascending: about ``share`` of ``rows``, at least one, never all.

    Drawn by ``seed``, equal for equal rows in equal order. With ``owners`` [rows] all rows of an owner are on one side;
    else with ``labels`` [rows] every label has about its share of the test split, and at least one training row.
    Raises ``InputError`` for fewer than two rows or owners, or if no label has two rows.
    """
    if rows < 2:
        raise InputError(f"data.test_share = {share:g}: {rows} row cannot be divided into training and test rows")
    if owners is not None:
        return _of_owners(owners, share, seed)
    wanted = min(max(round(share * rows), 1), rows - 1)
    drawn = derive(seed, "test rows")
    if labels is None:
        return sample_rows(rows, wanted, drawn)
    numbers = _numbered(labels)
    chosen = _leaving_one_each(sample_rows(rows, wanted, drawn, numbers), numbers)
    if not len(chosen):
        raise InputError(f"data.test_share = {share:g}: no label has a second row that could be a test row")
    return chosen


def _numbered(names: Sequence[str]) -> np.ndarray:
    """The place of every name among the different ones in order, int64."""
    place = {name: number for number, name in enumerate(sorted(set(names)))}
    return np.array([place[name] for name in names], dtype=np.int64)


def _leaving_one_each(chosen: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """``chosen`` without one row of each label that would have no other row left to train on."""
    taken, there = np.bincount(labels[chosen], minlength=labels.max() + 1), np.bincount(labels)
    spared = [chosen[labels[chosen] == label][-1] for label in np.flatnonzero((taken == there) & (there > 0))]
    return np.setdiff1d(chosen, spared)


def _of_owners(owners: Sequence[str], share: float, seed: int) -> np.ndarray:
    """Rows of whole owners, taken in drawn order while each brings the split nearer to its size."""
    places = _numbered(owners)
    counts = np.bincount(places)
    if len(counts) < 2:
        raise InputError(
            f"data.test_share = {share:g}: data.partition.column has one owner, {owners[0]!r:.50}, who cannot be on "
            "both sides; give a test file, or another partition"
        )
    order = np.random.default_rng(derive(seed, "test owners")).permutation(len(counts))
    wanted, taken, total = share * len(owners), list[int](), 0
    for owner in order.tolist():
        after = total + int(counts[owner])
        if abs(after - wanted) <= abs(total - wanted) and len(taken) < len(counts) - 1:
            taken.append(owner)
            total = after
    if not taken:  # every owner has more than twice the rows that are wanted
        taken = [order[np.argmin(counts[order])].item()]
    return np.flatnonzero(np.isin(places, taken))
