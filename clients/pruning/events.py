"""Prune events within a round: steps, shares and ranking; the same alone and in a cohort."""

import numpy as np

from slimfed.clients.pruning.selection import Scope, select
from slimfed.clients.spec import PruningSpec
from slimfed.clients.structure import Blueprint, Structure
from slimfed.clients.update import Assignment


def prune_steps(steps: int, events: int) -> dict[int, float]:
    """Local steps before which units are removed, and the share of the round's pruning done by then.

    The steps are divided into ``events`` + 1 parts of about equal length; the later ones are the longer.
    """
    lengths = [(steps + i) // (events + 1) for i in range(events + 1)]
    return {sum(lengths[:event]): event / events for event in range(1, events + 1)}


def can_prune(assignment: Assignment, spec: PruningSpec) -> bool:
    """False if the assigned sparsity is less than one unit away, so that no scores are needed."""
    start = assignment.structure
    return (
        assignment.score
        or select(start, np.zeros(start.blueprint.units), assignment.sparsity, spec.scope, spec.target_sparsity)
        is not start
    )


def prune(
    assignment: Assignment, structure: Structure, own: np.ndarray, fleet: np.ndarray, share: float, spec: PruningSpec
) -> Structure:
    """``structure`` after ``share`` of the pruning to the assigned sparsity.

    Every event removes the same fraction of what remains, 1 - (1 - p)^(1/n). ``own`` and ``fleet`` are scores, float32
    [units]. Returns ``structure`` itself if no unit is removed.
    """
    start, goal = assignment.structure.sparsity, assignment.sparsity
    sparsity = goal if share >= 1 else 1 - (1 - start) * ((1 - goal) / (1 - start)) ** share
    own = np.where(structure.keep, own, np.float32(0.0))
    return select(
        structure,
        mix_scores(structure.blueprint, own, fleet, spec),
        sparsity,
        spec.scope,
        spec.target_sparsity,
    )


def mix_scores(blueprint: Blueprint, own: np.ndarray, fleet: np.ndarray, spec: PruningSpec) -> np.ndarray:
    """A device's ranking: its own scores and the fleet's, mixed by ``spec.prior_weight``.

    Each is scaled first to sum 1 over the units that compete: within a block, or if all layers compete over all blocks
    of a kind, so that a layer that matters more stays ahead. The fleet's scores keep the devices' structures similar,
    so that their updates overlap. All vectors are float32 [units]; without fleet scores the device's own are used
    alone.
    """
    weight = spec.prior_weight
    if weight == 0.0 or not fleet.any():
        return own
    pools = _competing(blueprint, spec.scope)
    return (1.0 - weight) * _scaled(own, pools) + weight * _scaled(fleet, pools)


def _competing(blueprint: Blueprint, scope: Scope) -> list[np.ndarray]:
    """The units, numbered through the whole model, of each pool whose members are ranked against each other."""
    spans = [np.arange(blueprint.units)[blueprint.span(index)] for index in range(len(blueprint.blocks))]
    if scope not in ("global", "balanced"):
        return spans
    kinds = [block.kind for block in blueprint.blocks]
    return [np.concatenate([span for span, of in zip(spans, kinds, strict=True) if of == kind]) for kind in set(kinds)]


def _scaled(scores: np.ndarray, pools: list[np.ndarray]) -> np.ndarray:
    scaled = scores.astype(np.float64)
    for pool in pools:
        scaled[pool] /= max(scaled[pool].sum(), 1e-300)
    return scaled
