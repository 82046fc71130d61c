"""Prune events within a round: steps, shares and ranking; the same alone and in a cohort."""

import numpy as np

from slimfed.clients.pruning.selection import select
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
        mix_scores(structure.blueprint, own, fleet, spec.prior_weight),
        sparsity,
        spec.scope,
        spec.target_sparsity,
    )


def mix_scores(blueprint: Blueprint, own: np.ndarray, fleet: np.ndarray, weight: float) -> np.ndarray:
    """A device's ranking: its own scores and the fleet's, each scaled to sum 1 within a block, mixed by ``weight``.

    The fleet's scores keep the devices' structures similar, so that their updates overlap. All vectors are float32
    [units]; without fleet scores the device's own are used alone.
    """
    if weight == 0.0 or not fleet.any():
        return own
    return (1.0 - weight) * _scaled(blueprint, own) + weight * _scaled(blueprint, fleet)


def _scaled(blueprint: Blueprint, scores: np.ndarray) -> np.ndarray:
    scaled = scores.astype(np.float64)
    for index in range(len(blueprint.blocks)):
        span = blueprint.span(index)
        scaled[span] /= max(scaled[span].sum(), 1e-12)
    return scaled
