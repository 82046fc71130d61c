"""Sparse deltas: changes of few entries of the frozen weights, chosen in the first round for the whole fleet."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from slimfed.clients.adapter import Adapter, Delta
from slimfed.clients.adapters.base import ADAPTERS, AdapterMethod
from slimfed.clients.models.cost import AdapterLoad, Dimensions
from slimfed.clients.structure import Blueprint
from slimfed.clients.update import Update

if TYPE_CHECKING:
    from slimfed.clients.adapters.training.sparse import SparseTraining
    from slimfed.clients.spec import TaskSpec


@ADAPTERS.register("sparse")
class Sparse(AdapterMethod):
    """y = (W + D) x with D zero outside the fleet's chosen entries (LT-SFT, Ansell et al., arXiv 2110.07560).

    Round 1 is phase 1: devices train all entries of the adapted weights, and propose those that moved most, with
    |theta1 - theta0| as their scores. The server adds the scores up, weighted by examples, takes the largest over all
    modules, the same for all devices, and discards the rest: weights, head and moments are reset. From then on (phase
    2) only these entries are trained, and only their values are sent back.

    The number of entries is that of LoRA's parameters at the largest rank. A device of rank r trains the share r /
    r_max with the highest scores, so a rank costs as much as with LoRA.
    """

    supports_shared_structure = False
    supports_quantised_base = False
    uses_dropout = False

    @property
    def training(self) -> "SparseTraining":
        """As a parametrisation of the frozen weights."""
        from slimfed.clients.adapters.training.sparse import SparseTraining  # imports torch

        return SparseTraining()

    def begin(self, adapter: Adapter, blueprint: Blueprint, seed: int) -> Adapter:
        """Deltas without entries, for the modules of the factors."""
        none = (np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(0, np.uint16))
        deltas = {name: Delta((len(f.b), f.a.shape[1]), *none) for name, f in adapter.factors.items()}
        return replace(adapter, factors={}, deltas=deltas)

    def opened(self, adapter: Adapter) -> Adapter:
        """Before the decision: all entries, starting at zero."""
        if not adapter.undecided:
            return adapter
        deltas = {n: Delta(d.shape, np.zeros(d.shape[0] * d.shape[1], np.float32)) for n, d in adapter.deltas.items()}
        return replace(adapter, deltas=deltas)

    def closed(self, adapter: Adapter, rank: int) -> Adapter:
        """After phase 1: the entries that moved most with their distance, as many as ``rank`` allows."""
        if any(delta.indices is not None for delta in adapter.deltas.values()):
            return adapter
        moved = {name: np.abs(delta.values) for name, delta in adapter.deltas.items()}
        chosen = largest(moved, adapter.budget(rank))
        deltas = {
            name: Delta(delta.shape, moved[name][at], at.astype(np.int32))
            for (name, delta), at in zip(adapter.deltas.items(), chosen.values(), strict=True)
        }
        return replace(adapter, deltas=deltas)

    def upload(self, adapter: Adapter) -> Adapter:
        """The values alone, once the server knows their positions."""
        if any(delta.levels is None for delta in adapter.deltas.values()):
            return adapter
        bare = {name: replace(delta, indices=None, levels=None) for name, delta in adapter.deltas.items()}
        return replace(adapter, deltas=bare)

    def decide(
        self, before: Adapter, after: Adapter, updates: Sequence[Update], task: "TaskSpec", rank: int, round: int
    ) -> Adapter:
        """After phase 1: one mask for all devices from the summed scores; everything else is reset."""
        if not before.undecided:
            return after
        scores = {name: np.zeros(d.shape[0] * d.shape[1]) for name, d in before.deltas.items()}
        for update in updates:
            for name, delta in update.adapter.deltas.items():
                scores[name][delta.indices] += delta.values.astype(np.float64) * update.report.examples
        chosen = largest(scores, before.budget(rank))
        levels = _levels({name: scores[name][at] for name, at in chosen.items()}, rank)
        deltas = {}
        for name, delta in before.deltas.items():
            at = chosen[name].astype(np.int32)
            deltas[name] = Delta(delta.shape, np.zeros(len(at), np.float32), at, levels[name])
        return replace(before, deltas=deltas)

    def prunes(self, adapter: Adapter) -> bool:
        """False in phase 1, whose scores must refer to the same weights on every device."""
        return not adapter.undecided

    def finished(self, adapter: Adapter) -> Adapter:
        """The deltas; proposals are left out, as they do not change the model."""
        proposed = any(delta.levels is None for delta in adapter.deltas.values())
        return replace(adapter, deltas={}) if proposed else adapter

    def load(self, size: Dimensions, rank: int, sent: Adapter) -> AdapterLoad:
        """Cost of the full gradient of every adapted weight, and of computing W + D at every step."""
        trained = size.adapted_weights if sent.undecided else rank * size.adapter_parameters_per_rank
        return AdapterLoad(trained, 2 * size.adapted_weights, 0, weights=size.adapted_weights)


def largest(scores: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Positions of the ``count`` largest scores above 0 over all vectors, ascending in each; of equals the first."""
    whole = np.concatenate(list(scores.values()))
    taken = whole > 0
    if int(taken.sum()) > count:
        at = len(whole) - max(count, 1)
        threshold = np.partition(whole, at)[at]
        taken = whole > threshold
        ties = np.flatnonzero(whole == threshold)
        taken[ties[: count - int(taken.sum())]] = True
    ends = np.cumsum([0, *map(len, scores.values())])
    return {name: np.flatnonzero(taken[a:b]) for name, (a, b) in zip(scores, pairwise(ends), strict=True)}


def _levels(scores: Mapping[str, np.ndarray], rank: int) -> dict[str, np.ndarray]:
    """For every entry the smallest rank that trains it: the best share r / ``rank`` of all has levels up to r."""
    whole = np.concatenate(list(scores.values()))
    order = np.argsort(-whole, kind="stable")
    levels = np.empty(len(whole), np.uint16)
    levels[order] = np.arange(len(whole)) * rank // max(len(whole), 1) + 1
    ends = np.cumsum([0, *map(len, scores.values())])
    return {name: levels[a:b] for name, (a, b) in zip(scores, pairwise(ends), strict=True)}
