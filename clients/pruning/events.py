"""When and how far a device prunes within a round, and by which ranking; the same alone and in a cohort."""

import numpy as np

from slimfed.clients.pruning.selection import select
from slimfed.clients.spec import PruningSpec
from slimfed.clients.structure import Blueprint, Structure
from slimfed.clients.update import Assignment


def prune_steps(steps: int, events: int) -> dict[int, float]:
    """Local steps before which units are removed, and the share of the round's pruning that is then done.

    The steps are cut into ``events`` + 1 stretches as equal as can be, the later ones, which recover, being the longer.
    """
    lengths = [(steps + i) // (events + 1) for i in range(events + 1)]
    return {sum(lengths[:event]): event / events for event in range(1, events + 1)}


def can_prune(assignment: Assignment, spec: PruningSpec) -> bool:
    """False once the assigned sparsity is less than a unit away: then nothing needs to be scored, unless asked for."""
    start = assignment.structure
    return (
        assignment.score or select(start, np.zeros(start.blueprint.units), assignment.sparsity, spec.scope) is not start
    )


def prune(
    assignment: Assignment, structure: Structure, own: np.ndarray, fleet: np.ndarray, share: float, spec: PruningSpec
) -> Structure:
    """What is left of ``structure`` once ``share`` of the way to the assigned sparsity is gone.

    Every event removes the same fraction of what remains, 1 - (1 - p)^(1/n). ``own`` and
    ``fleet`` are scores, float32 [units]. Returns ``structure`` itself if no unit goes.
    """
    start, goal = assignment.structure.sparsity, assignment.sparsity
    sparsity = goal if share >= 1 else 1 - (1 - start) * ((1 - goal) / (1 - start)) ** share
    own = np.where(structure.keep, own, np.float32(0.0))
    return select(structure, mix_scores(structure.blueprint, own, fleet, spec.prior_weight), sparsity, spec.scope)


def mix_scores(blueprint: Blueprint, own: np.ndarray, fleet: np.ndarray, weight: float) -> np.ndarray:
    """A device's ranking: its own scores and the fleet's, each scaled to sum 1 within a block, mixed by ``weight``.

    Devices that lean on the same fleet scores keep like structures, which is what lets their updates add up. All
    vectors are float32 [units]; where the fleet has no scores yet, the device's own decide alone.
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
