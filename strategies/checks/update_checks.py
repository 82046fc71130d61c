"""Checks of each single update before it is averaged; a refused update has a cause."""

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters.rank_pruning import kept_ranks
from slimfed.clients.messages.numbers import first_fault
from slimfed.clients.spec import AdapterSpec
from slimfed.clients.structure import Blueprint
from slimfed.clients.update import Assignment, Report, Update
from slimfed.strategies.checks.outliers import (
    DIVERGED,
    Fault,
    Finding,
    Grades,
    Sizes,
    distance,
    find_outliers,
    root_mean_square,
)
from slimfed.strategies.coordinates.global_vector import GlobalVector, named

# Sparsity is a ratio of integers: an excess over the assigned sparsity below this is rounding.
_ROUNDING = 1e-9
_NO_SELF_PRUNING = AdapterSpec()

_REINSTALL = "check that the node runs the same slimfed version and job as the server"

# Numbers whose fault has a kind, or a remedy, of its own.
_NUMBER_FAULTS: dict[str, tuple[Fault, str]] = {
    "examples": ("examples", "give the device data, or leave it out of the fleet"),
    "loss_before": ("range", DIVERGED),
    "loss_after": ("range", DIVERGED),
    "importance": ("range", DIVERGED),
    "evaluation.loss": ("range", DIVERGED),
}


@dataclass(frozen=True)
class Unfit:
    """Why the update at position ``index`` of the round must not be averaged."""

    index: int
    device: int
    finding: Finding


class Inspection:
    """Checks the updates of a round when they arrive; :meth:`outliers` compares them with each other in the end.

    ``expected`` has the round's assignment of every device, ``space`` the global adapter that was sent (all
    coordinates, largest rank). Of several fit updates of one device only the first counts. ``adapter`` gives the ranks
    that a device may prune, ``grades`` the grades of sizes.
    """

    def __init__(
        self, expected: Mapping[int, Assignment], space: GlobalVector, adapter: AdapterSpec, grades: Grades
    ) -> None:
        self._expected = expected
        self._space = space
        self._adapter = adapter
        self.grades = grades
        self.sizes: dict[int, Sizes] = {}

    def inspect(self, update: Update) -> Finding | None:
        """The fault of a single update, or None; for an update that passes, :attr:`sizes` has the sizes, by device."""
        before = self._space.before
        fault = _check(update, self._expected.get(update.device), self._space, self.sizes, self._adapter)
        if fault is not None:
            return fault
        moved = distance(update, self._space)
        if not math.isfinite(moved) or before.undecided or _gated(before):
            fault = _check_values(update)
        if fault is None:
            self.sizes[update.device] = Sizes(moved, root_mean_square(update.scores))
        return fault

    def outliers(self) -> tuple[dict[int, Finding], tuple[int, int]]:
        """Findings against devices whose updates are outliers of this fleet, and the highest accepted grades."""
        return find_outliers(self.sizes, self.grades)


def find_unfit(
    updates: Sequence[Update],
    expected: Mapping[int, Assignment],
    before: Adapter,
    adapter: AdapterSpec = _NO_SELF_PRUNING,
) -> list[Unfit]:
    """Check all updates of a round at once (see :class:`Inspection`); ordered by index.

    Those whose index is not in the result are fit.
    """
    space = GlobalVector(before, next(iter(expected.values())).structure.blueprint)
    inspection = Inspection(expected, space, adapter, Grades.of(expected.values()))
    unfit: list[Unfit] = []
    passed: dict[int, int] = {}
    for index, update in enumerate(updates):
        fault = inspection.inspect(update)
        if fault is None:
            passed[update.device] = index
        else:
            unfit.append(Unfit(index, update.device, fault))
    outliers, _ = inspection.outliers()
    unfit += [Unfit(passed[device], device, finding) for device, finding in outliers.items()]
    return sorted(unfit, key=lambda reason: reason.index)


def _check(
    update: Update, assigned: Assignment | None, space: GlobalVector, accepted: Container[int], adapter: AdapterSpec
) -> Finding | None:
    """The first fault of an update by itself."""
    if assigned is None:
        return Finding("unknown-device", "no device of this number was given work in this round", _REINSTALL)
    if update.report.round != assigned.round:
        cause = f"answers round {update.report.round}, this is round {assigned.round}"
        return Finding("late", cause, "raise deadlines.reply_seconds if this happens often")
    if update.device in accepted:
        remedy = "check that no two nodes host this device"
        return Finding("repeated", "a second update of the same device in one round", remedy)
    return (
        _check_rank(update.report, assigned, adapter)
        or _check_structure(update.report, assigned)
        or _check_tensors(update, space)
        or _check_entries(update, space.before)
        or _check_numbers(update)
        or _check_measured(update, assigned)
    )


def _check_rank(report: Report, assigned: Assignment, adapter: AdapterSpec) -> Finding | None:
    if report.rank not in (assigned.rank, kept_ranks(assigned.rank, adapter)):
        return Finding("rank", f"has rank {report.rank}, was assigned {assigned.rank}", _REINSTALL)
    return None


def _check_structure(report: Report, assigned: Assignment) -> Finding | None:
    if report.structure.keep.shape != assigned.structure.keep.shape:
        units = report.structure.keep.size, assigned.structure.keep.size
        return Finding("structure", f"has {units[0]} units, the model has {units[1]}", _REINSTALL)
    if not report.structure.within(assigned.structure):
        return Finding("structure", "keeps units that were removed in earlier rounds", _REINSTALL)
    allowed = max(assigned.sparsity, assigned.structure.sparsity)
    if report.structure.sparsity > allowed + _ROUNDING:
        cause = f"has pruned to sparsity {report.structure.sparsity:.4f}, was assigned {allowed:.4f}"
        return Finding("structure", cause, _REINSTALL)
    due = assigned.sparsity - assigned.structure.sparsity
    if report.structure == assigned.structure and due > _coarseness(assigned.structure.blueprint):
        return Finding("structure", f"has pruned nothing, {due:.4f} of the parameters were to go", _REINSTALL)
    return None


def _coarseness(blueprint: Blueprint) -> float:
    """Sparsity that removing whole units may miss: one unit of every block, as a share of the prunable parameters."""
    total = sum(block.units * block.unit_parameters for block in blueprint.blocks)
    return sum(block.unit_parameters for block in blueprint.blocks) / total


def _check_tensors(update: Update, space: GlobalVector) -> Finding | None:
    before = space.before
    factors, head = update.adapter.factors, update.adapter.head
    for what, names, known in (
        ("module", factors, before.factors),
        ("sparse module", update.adapter.deltas, before.deltas),
        ("tensor", update.adapter.extra, before.extra),
        ("head tensor", head, before.head),
    ):
        odd = sorted(set(names) ^ set(known))
        if odd:
            state = "is missing" if odd[0] in known else "is not part of the model"
            return Finding("names", f"{what} {odd[0]} {state} ({len(odd)} such in all)", _REINSTALL)
    if update.adapter.residual:
        return Finding("names", "brings a residual, which only the server makes", _REINSTALL)
    for name, f in factors.items():
        odd = sorted(set(f.parts()) ^ set(before.factors[name].parts()))
        if odd:
            return Finding("names", f"{name}: part {odd[0]} is there or missing, unlike in what was sent", _REINSTALL)
    fault = space.misfit(update)
    if fault:
        return Finding("shape", fault, _REINSTALL)
    scores, wanted = update.scores, update.report.structure.keep.shape
    if scores.shape != wanted:
        cause = f"scores has shape {list(scores.shape)}, expected {list(wanted)}"
        return Finding("shape", cause, _REINSTALL)
    if scores.dtype != np.float32:
        return Finding("shape", f"scores is {scores.dtype}, expected float32", _REINSTALL)
    return None


def _check_measured(update: Update, assigned: Assignment) -> Finding | None:
    """What a device measured for the layers' shares: there if it was asked for, and sums that can be."""
    found = update.measured
    if (found is not None) != (assigned.calibrate > 0):
        cause = "measured nothing for the layers' shares" if found is None else "measured what it was not asked for"
        return Finding("names", cause, _REINSTALL)
    if found is None:
        return None
    size = 1 + len(assigned.structure.blueprint.blocks)
    if found.shape != (size,) or found.dtype != np.float64:
        return Finding("shape", f"measured is {found.dtype} {list(found.shape)}, expected float64 [{size}]", _REINSTALL)
    if not np.isfinite(found).all():
        return Finding("not-finite", "measured has NaN or infinite values", DIVERGED)
    if not 0 < found[0] <= assigned.calibrate:
        cause = f"measured on {found[0]:g} tokens, expected 1 to {assigned.calibrate}"
        return Finding("range", cause, _REINSTALL)
    if (found < 0).any():
        return Finding("range", "measured has negative sums", _REINSTALL)
    return None


def _check_entries(update: Update, before: Adapter) -> Finding | None:
    """Which entries deltas have: those that were sent, or, while none are decided, proposals within the budget."""
    if not before.undecided:
        told = [name for name, d in update.adapter.deltas.items() if d.indices is not None or d.levels is not None]
        cause = "says which entries it changed, they were decided"
        return Finding("names", f"{told[0]}: {cause}", _REINSTALL) if told else None
    for name, delta in update.adapter.deltas.items():
        shape, at = before.deltas[name].shape, delta.indices
        if delta.shape != shape or at is None or at.shape != delta.values.shape or delta.levels is not None:
            return Finding("shape", f"{name}: proposes no entries of a weight of shape {list(shape)}", _REINSTALL)
        if delta.values.dtype != np.float32:
            return Finding("shape", f"{name} (proposal) is {delta.values.dtype}, expected float32", _REINSTALL)
        if at.size and (at[0] < 0 or at[-1] >= shape[0] * shape[1] or (np.diff(at) <= 0).any()):
            return Finding("shape", f"{name}: proposed entries are not ascending within {list(shape)}", _REINSTALL)
        if (delta.values < 0).any():
            return Finding("not-finite", f"{name}: proposes entries with negative scores", _REINSTALL)
    proposed, allowed = sum(d.values.size for d in update.adapter.deltas.values()), before.budget(update.report.rank)
    if proposed > allowed:
        cause = f"proposes {proposed} entries, at most {allowed} for rank {update.report.rank}"
        return Finding("shape", cause, _REINSTALL)
    return None


def _gated(adapter: Adapter) -> bool:
    return any(f.gate is not None for f in adapter.factors.values())


def _check_values(update: Update) -> Finding | None:
    """The first tensor with a value that it cannot have: only needed if the update's distance is not finite, or it has
    values with a sign."""
    for name, tensor in named(update.adapter).items():
        if not np.isfinite(tensor).all():
            return Finding("not-finite", f"{name} has NaN or infinite values", DIVERGED)
        if name.endswith("(gate)") and (tensor < 0).any():
            cause = f"{name} has negative values, which the size of a gate cannot have"
            return Finding("not-finite", cause, _REINSTALL)
    return None


def _check_numbers(update: Update) -> Finding | None:
    """The scores, and the numbers of the report by their ranges (``clients/messages/numbers.py``)."""
    scores = update.scores
    if not np.isfinite(scores).all():
        return Finding("not-finite", "scores has NaN or infinite values", DIVERGED)
    if (scores < 0).any():
        return Finding("scores", "scores has negative values, which the size of an importance cannot have", _REINSTALL)
    if scores[~update.report.structure.keep].any():
        return Finding("scores", "scores units that the device has removed", _REINSTALL)
    found = first_fault(update.report)
    if found is None:
        return None
    name, fault = found
    kind, remedy = _NUMBER_FAULTS.get(name, ("range", _REINSTALL))
    return Finding(kind, f"{name} {fault}", remedy)
