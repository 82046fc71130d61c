"""What flows into the linear modules of a model, as sums that add up over batches, texts and devices."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import nn

from slimfed.clients.calibration.forward import Counted, forward_passes
from slimfed.clients.data.batching import Batch

BINS, LEAST, MOST = 256, 1e-6, 1e3
"""The histogram of absolute inputs: its bins are equally wide in the logarithm from ``LEAST`` to ``MOST``."""


@dataclass(frozen=True)
class InputSums:
    """Sums over the counted tokens of the inputs x [in] of one linear module; the sums of two texts add up.

    ``total``, ``absolute`` and ``squares`` are float64 [in]: the sums of x, abs(x) and x^2. ``histogram`` is int64
    [256], how many values of abs(x), over all tokens and inputs, fall into each bin; what is smaller than the first bin
    or larger than the last is counted there.
    """

    tokens: int
    total: np.ndarray
    absolute: np.ndarray
    squares: np.ndarray
    histogram: np.ndarray

    def __add__(self, other: "InputSums") -> "InputSums":
        return InputSums(
            self.tokens + other.tokens,
            self.total + other.total,
            self.absolute + other.absolute,
            self.squares + other.squares,
            self.histogram + other.histogram,
        )

    @property
    def mean(self) -> np.ndarray:
        """Mean of each input, float64 [in]."""
        return self.total / self.tokens

    @property
    def variance(self) -> np.ndarray:
        """Variance of each input, float64 [in], never negative."""
        return np.maximum(self.squares / self.tokens - self.mean**2, 0.0)

    def quantile(self, share: float) -> float:
        """The value that ``share`` (in [0, 1]) of abs(x) does not exceed, by linear interpolation within a bin."""
        edges = np.geomspace(LEAST, MOST, BINS + 1)
        below = np.concatenate([[0], np.cumsum(self.histogram)])
        return float(np.interp(share * below[-1], below, edges))


def input_sums(
    model: nn.Module, modules: Mapping[str, nn.Module], batches: Iterable[Batch], dtype: torch.dtype = torch.float32
) -> dict[str, InputSums]:
    """Sums of the inputs of ``modules`` of ``model`` over ``batches``, by the modules' names.

    An adapted module is given whole, not the base within it, so that its input is the one that its adapter reads
    (``Adapted.layer(name).module``). Runs in evaluation mode and without gradients; the mode is restored. ``dtype``
    other than float32 computes under autocast. Raises ``ValueError`` without batches.
    """
    seen = _Seen()
    with _hooked(modules, seen):
        for counted in forward_passes(model, batches, dtype):
            seen.counted = counted
    if not seen.sums:
        raise ValueError("no batches to calibrate on")
    return dict(seen.sums)


@contextmanager
def _hooked(modules: Mapping[str, nn.Module], seen: "_Seen") -> Iterator[None]:
    hooks = [module.register_forward_pre_hook(partial(seen.note, name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@dataclass
class _Seen:
    """State of the hooks: the tokens that the next pass counts, and the sums so far."""

    counted: Counted | None = None
    sums: dict[str, InputSums] = field(default_factory=dict)

    def note(self, name: str, _module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        """Add the inputs of module ``name``."""
        assert self.counted is not None, "what counts is said before the forward pass"
        found = _sums_of(self.counted.of(inputs[0]))
        self.sums[name] = self.sums[name] + found if name in self.sums else found


def _sums_of(x: torch.Tensor) -> InputSums:
    """The sums of x, float64 [tokens, in]."""
    size = x.abs()
    place = ((size.clamp_min(LEAST).log10() - np.log10(LEAST)) * (BINS / np.log10(MOST / LEAST))).floor()
    histogram = torch.bincount(place.long().clamp(0, BINS - 1).reshape(-1), minlength=BINS)
    parts = (x.sum(0), size.sum(0), x.square().sum(0), histogram)
    return InputSums(len(x), *(part.cpu().numpy() for part in parts))
