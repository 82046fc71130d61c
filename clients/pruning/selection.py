"""Selecting units to remove: the number of each kind for a sparsity, and the lowest-scored units."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from slimfed.clients.structure import Block, Blueprint, Structure

Scope = Literal["layer", "balanced", "global", "uniform"]

# Preferred multiples of channels for kernels, used if rounding adds at most an eighth of a layer's channels.
_FRIENDLY = (128, 16, 8)

# Sparsities come out of float arithmetic: 0.49999999999 means 0.5. It is smaller than the share of any unit.
_ROUNDING = 1e-9

# A device within half a point of the target is at its end.
_NEAR = 0.005

_MOST = 1 << 40
"""More units than any block has."""


@dataclass(frozen=True)
class _Pool:
    """Blocks of one kind whose units compete with each other: of one layer, or of all layers."""

    blocks: tuple[int, ...]
    units: int
    unit_parameters: int

    @property
    def parameters(self) -> int:
        """Parameters of all units of the unpruned model."""
        return self.units * self.unit_parameters


@dataclass(frozen=True)
class _Sizes:
    """Units of ``layers`` layers, each of which keeps one of each kind, and the parameters of one of each kind."""

    heads: int
    head: int
    channels: int
    channel: int
    layers: int = 1

    def on_the_way(self, sparsity: float) -> tuple[int, int]:
        """Heads and channels to remove at ``sparsity``, so that none has to return at a higher one.

        With k = floor(sparsity * heads), k heads go. A head is a large step, so more channels than their share fill the
        budget, but not beyond the share (k + 1) / heads, at which the next head goes: otherwise channels would have to
        return then.
        """
        heads = min(math.floor(sparsity * self.heads + _ROUNDING), self.heads - self.layers)
        limit = self.channels * (heads + 1) / self.heads
        return heads, min(math.floor(min(self._fill(sparsity, heads), limit) + _ROUNDING), self._spare)

    def at_the_end(self, sparsity: float) -> tuple[int, int]:
        """Heads and channels to remove so that the budget is spent to less than a channel.

        The number of heads is the nearest to their share that the budget allows. If all channels but one are gone, more
        heads go.
        """
        most = min(self.heads - self.layers, self._affordable(sparsity))
        heads = min(math.floor(sparsity * self.heads + 0.5), most)
        while heads < most and self._fill(sparsity, heads) >= self._spare + self.head / self.channel:
            heads += 1
        return heads, min(math.floor(self._fill(sparsity, heads) + _ROUNDING), self._spare)

    @property
    def _spare(self) -> int:
        """Channels that can go."""
        return self.channels - self.layers

    def _fill(self, sparsity: float, heads: int) -> float:
        """Channels that fill the budget beside so many heads."""
        budget = sparsity * (self.heads * self.head + self.channels * self.channel)
        return (budget - heads * self.head) / self.channel

    def _affordable(self, sparsity: float) -> int:
        budget = sparsity * (self.heads * self.head + self.channels * self.channel)
        return math.floor(budget / self.head + _ROUNDING)


def kept_units(
    heads: int,
    head_parameters: int,
    channels: int,
    channel_parameters: int,
    sparsity: float,
    target: float | None = None,
    layers: int = 1,
) -> tuple[int, int]:
    """Heads and channels that remain at ``sparsity``, never more than at a lower sparsity.

    Each of ``layers`` keeps one of each kind. Multiples of 1 / heads are met exactly, other sparsities to a fraction of
    a head; none is exceeded. ``target``: the sparsity that the run ends at. It is met to a channel, and on the way to
    it no unit goes that it keeps.
    """
    sizes = _Sizes(heads, head_parameters, channels, channel_parameters, layers)
    if target is None or sparsity > target:
        gone = sizes.on_the_way(sparsity)
    else:
        last = sizes.at_the_end(target)
        now = sizes.at_the_end(sparsity) if sparsity >= target - _NEAR else sizes.on_the_way(sparsity)
        gone = min(now[0], last[0]), min(now[1], last[1])
    return heads - gone[0], channels - gone[1]


def plan_counts(blueprint: Blueprint, sparsity: float) -> tuple[int, ...]:
    """Units of every block that remain at ``sparsity`` if all layers become equally sparse (scope "layer")."""
    counts: dict[int, int] = {}
    for attention, ffn in _pools(blueprint, "layer"):
        heads, channels = _targets(attention, ffn, sparsity)
        counts |= {attention.blocks[0]: heads, ffn.blocks[0]: channels}
    return tuple(counts[index] for index in range(len(blueprint.blocks)))


def select(
    structure: Structure, scores: np.ndarray, sparsity: float, scope: Scope, target: float | None = None
) -> Structure:
    """Remove the lowest-scored units until ``sparsity`` (cumulative, share of all prunable parameters) is reached.

    ``scores`` is [units]. Removed units never return, no block loses its last unit, and of equal scores the lower index
    is removed. With scope "layer" all layers become equally sparse; with "global" units of a kind compete over all
    layers; "balanced" is "global", but the heads of layers differ by one at most (coarse units: a layer that loses most
    of its few heads does not recover), and a layer keeps at least half of its share of the channels; "uniform" is
    "layer" with channels rounded up (:func:`friendly`), so that slightly less may be removed. If ``structure`` lacks
    more units of one kind than planned, fewer of the other kind are removed to keep the budget. ``target``: the
    sparsity that the run ends at, which is then met to a channel (:func:`kept_units`). Returns ``structure`` itself if
    no unit can be removed, or if it has that sparsity already, though its layers may be unequal.
    """
    if sparsity <= structure.sparsity + _ROUNDING:
        return structure
    keep = structure.keep.copy()
    for attention, ffn in _pools(structure.blueprint, scope):
        heads, channels = _targets(attention, ffn, sparsity, target)
        if scope == "uniform":
            channels = friendly(channels, ffn.units)
        alive_heads, alive_channels = (_alive(structure, pool.blocks) for pool in (attention, ffn))
        room = sparsity * (attention.parameters + ffn.parameters)
        room -= (attention.units - _count(alive_heads)) * attention.unit_parameters
        room -= (ffn.units - _count(alive_channels)) * ffn.unit_parameters
        excess = min(_count(alive_heads) - heads, math.floor(room / attention.unit_parameters + _ROUNDING))
        bounds = _even(heads, len(alive_heads)) if scope == "balanced" else _free(len(alive_heads))
        room -= _drop(keep, scores, alive_heads, excess, bounds) * attention.unit_parameters
        excess = min(_count(alive_channels) - channels, math.floor(room / ffn.unit_parameters + _ROUNDING))
        bounds = _half(channels, len(alive_channels)) if scope == "balanced" else _free(len(alive_channels))
        _drop(keep, scores, alive_channels, excess, bounds)
    return structure if np.array_equal(keep, structure.keep) else Structure(structure.blueprint, keep)


def friendly(channels: int, of: int) -> int:
    """``channels`` of a layer with ``of``, rounded up to a multiple of 128, 16 or 8: the largest within ``of`` / 8."""
    multiple = next((size for size in _FRIENDLY if size <= of // 8), 1)
    return min(of, -(-channels // multiple) * multiple)


def _targets(attention: _Pool, ffn: _Pool, sparsity: float, target: float | None = None) -> tuple[int, int]:
    units = attention.units, attention.unit_parameters, ffn.units, ffn.unit_parameters
    return kept_units(*units, sparsity, target, len(attention.blocks))


def _alive(structure: Structure, blocks: Sequence[int]) -> list[np.ndarray]:
    """Kept units of each of ``blocks``, numbered through the whole model."""
    return [structure.kept(index) + structure.blueprint.offsets[index] for index in blocks]


def _count(alive: list[np.ndarray]) -> int:
    return sum(len(units) for units in alive)


_Bounds = list[tuple[int, int]]
"""For each block, the units that it keeps at least, and the number above which units go first."""


def _free(blocks: int) -> _Bounds:
    """Every block keeps its best unit; nothing else is asked."""
    return [(1, _MOST)] * blocks


def _even(kept: int, blocks: int) -> _Bounds:
    """``kept`` units in all are divided as equally as whole units allow."""
    return [(max(1, kept // blocks), -(-kept // blocks))] * blocks


def _half(kept: int, blocks: int) -> _Bounds:
    """Half of ``kept`` is divided equally, the rest is free. The first blocks have one more if it does not go even."""
    return [(max(1, (kept // 2 + blocks - 1 - block) // blocks), _MOST) for block in range(blocks)]


def _drop(keep: np.ndarray, scores: np.ndarray, alive: list[np.ndarray], excess: int, bounds: _Bounds) -> int:
    """Clear the ``excess`` lowest-scored of the ``alive`` units in ``keep`` within the blocks' ``bounds``; returns
    their number."""
    if excess <= 0:
        return 0
    candidates, early = [], []
    for units, (least, most) in zip(alive, bounds, strict=True):
        best_first = units[np.argsort(-scores[units], kind="stable")]
        candidates.append(best_first[least:])
        early.append(np.arange(least, len(units)) >= most)
    free, first = np.concatenate(candidates), np.concatenate(early)
    gone = free[np.lexsort((free, scores[free], ~first))[:excess]]
    keep[gone] = False
    return len(gone)


def _pools(blueprint: Blueprint, scope: Scope) -> list[tuple[_Pool, _Pool]]:
    """Pairs of competing attention and FFN blocks. Blocks of a kind are alike in all families that are understood."""
    numbered = list(enumerate(blueprint.blocks))
    if scope in ("global", "balanced"):
        return [
            (
                _pool([p for p in numbered if p[1].kind == "attention"]),
                _pool([p for p in numbered if p[1].kind == "ffn"]),
            )
        ]
    layers = sorted({block.layer for block in blueprint.blocks})
    return [
        (
            _pool([p for p in numbered if p[1].layer == layer and p[1].kind == "attention"]),
            _pool([p for p in numbered if p[1].layer == layer and p[1].kind == "ffn"]),
        )
        for layer in layers
    ]


def _pool(blocks: list[tuple[int, Block]]) -> _Pool:
    weights = {block.unit_parameters for _, block in blocks}
    if len(weights) != 1:
        raise ValueError(f"blocks that compete must have units of one size, got {sorted(weights)}")
    return _Pool(tuple(index for index, _ in blocks), sum(block.units for _, block in blocks), weights.pop())
