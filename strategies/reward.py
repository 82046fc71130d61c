"""What a device's round was worth to its bandit agent.

FedSpine (arXiv 2501.02438) rewards loss decrease, pruning progress, the importance of the LoRA update and a completion
time close to the others', but its formula is not public; this one is our reconstruction.
"""

import math

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, model_validator

from slimfed.clients.spec import Section

_TINY = 1e-12


class RewardSpec(Section):
    """How the parts of the reward are weighed; ``loss``, ``pruning`` and ``importance`` sum to 1."""

    loss: float = Field(0.5, ge=0.0, le=1.0, description="weight of the relative decrease of the local loss")
    pruning: float = Field(
        0.25, ge=0.0, le=1.0, description="weight of the share of the missing sparsity that was gained"
    )
    importance: float = Field(0.25, ge=0.0, le=1.0, description="weight of the update's importance among the round's")
    time_penalty: float = Field(1.0, ge=0.0, description="kappa: how strongly a time unlike the mean lowers the reward")

    @model_validator(mode="after")
    def _sums_to_one(self) -> "RewardSpec":
        total = self.loss + self.pruning + self.importance
        if not math.isclose(total, 1.0, abs_tol=1e-6):
            raise ValueError(f"loss + pruning + importance must be 1, got {total:g}")
        return self


def rewards(
    spec: RewardSpec,
    *,
    loss_before: ArrayLike,
    loss_after: ArrayLike,
    sparsity_before: ArrayLike,
    sparsity_after: ArrayLike,
    target: float,
    importance: ArrayLike,
    seconds: ArrayLike,
) -> np.ndarray:
    """Rewards in [0, 1], float64 [participants], of the devices whose updates were accepted in one round.

    With L the loss on the same fixed batches before and after, s the sparsity, s* its ``target``, I the importance of
    the update, T the completion time in ``seconds`` and Tbar its mean over the participants::

        g = loss * clip((L0 - L1) / L0, 0, 1) + pruning * clip((s1 - s0) / (s* - s0), 0, 1) + importance * I / max(I)
        reward = g / (1 + time_penalty * abs(T - Tbar) / Tbar)

    All arrays are [participants]; a device that sent nothing has no place in them, so that it moves neither the mean
    time nor the largest importance. A part that cannot be computed (a loss of zero, NaN, nothing left to prune) counts
    as 0. Raises ``ValueError`` if the lengths differ or a time is negative or not finite.
    """
    columns = (loss_before, loss_after, sparsity_before, sparsity_after, importance, seconds)
    before, after, start, end, size, times = (np.asarray(column, dtype=np.float64) for column in columns)
    if before.ndim != 1 or any(column.shape != before.shape for column in (after, start, end, size, times)):
        raise ValueError("all columns of a round must be vectors with one entry for each participant")
    if not np.isfinite(times).all() or (times < 0).any():
        raise ValueError("completion times must be finite and not negative")
    if not before.size:
        return np.zeros(0)
    with np.errstate(invalid="ignore"):  # an infinite loss before and after: no number, counts as 0 below
        decrease = before - after
    gain = (
        spec.loss * _share(decrease, before)
        + spec.pruning * _share(end - start, target - start)
        + spec.importance * _share(size, np.max(size, where=np.isfinite(size), initial=0.0))
    )
    mean = times.mean()
    delay = np.abs(times - mean) / mean if mean > 0 else np.zeros_like(times)
    return np.clip(gain / (1.0 + spec.time_penalty * delay), 0.0, 1.0)


def _share(part: np.ndarray, whole: np.ndarray | float) -> np.ndarray:
    """``part / whole`` within [0, 1]; 0 where either is not finite or ``whole`` is not positive."""
    part, whole = np.broadcast_arrays(part, whole)
    usable = np.isfinite(part) & np.isfinite(whole) & (whole > _TINY)
    shares = np.divide(part, whole, out=np.zeros_like(part), where=usable)
    return np.clip(shares, 0.0, 1.0)
