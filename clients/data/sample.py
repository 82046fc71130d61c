"""A seeded sample of the rows of a test split."""

import numpy as np


def sample_rows(examples: int, wanted: int, seed: int, labels: np.ndarray | None = None) -> np.ndarray:
    """``wanted`` of ``examples`` rows (0, or more than there are: all), int64, ascending; equal for equal seeds.

    With ``labels`` [examples] each label's share in the sample is that in the split, to within one row. A smaller
    sample by the same seed is part of a larger one.
    """
    if not 0 < wanted < examples:
        return np.arange(examples)
    order = np.random.default_rng(seed).permutation(examples)
    if labels is not None:
        order = order[np.argsort(_places(labels[order]), kind="stable")]
    return np.sort(order[:wanted])


def _places(labels: np.ndarray) -> np.ndarray:
    """A place in (0, 1) for each of ``labels``, float64: those of one label are spread evenly, in order."""
    places = np.empty(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        places[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return places
