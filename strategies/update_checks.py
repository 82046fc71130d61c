"""Which updates may enter the average, and why the others may not."""

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters.rank_pruning import kept_ranks
from slimfed.clients.spec import AdapterSpec
from slimfed.clients.structure import Blueprint
from slimfed.clients.update import Assignment, Update
from slimfed.strategies.aggregation.coordinates import device_shapes, owned_entries, places

Fault = Literal[
    "unknown-device",
    "late",
    "repeated",
    "rank",
    "structure",
    "names",
    "shape",
    "not-finite",
    "examples",
    "norm",
    "scores",
]

# A device is compared with the fleet only if at least so many others can be.
_FEWEST_PEERS = 5
# An honest distance is within this factor of the median, or within _MADS robust standard deviations of its logarithm.
_FACTOR = 10.0
# Importance goes with the square of a gradient, so what moves ten times as far may score a hundred times as much.
_SCORES_FACTOR = 100.0
_MADS = 6.0
# What the fleet is known to score, times this, is taken for honest whatever the median.
_QUIET = 30.0
# Where nothing is known of sizes, grades begin here.
_LEAST_REACH, _LEAST_KNOWN = 1e-12, 1e-20
_MOST_GRADES = 63
_MAD_TO_DEVIATION = 1.4826
# Sparsity is a ratio of integers: what is above the assigned one by less than this is rounding.
_ROUNDING = 1e-9
_MOST_EXAMPLES = 2**29 - 1
_NO_SELF_PRUNING = AdapterSpec()

_REINSTALL = "check that the node runs the same slimfed version and job as the server"
_DIVERGED = "lower training.learning_rate or training.max_grad_norm, or use dtype fp32; check the device's data"


@dataclass(frozen=True)
class Unfit:
    """Why the update at position ``index`` of the round must not be averaged: what is wrong, and what to do."""

    index: int
    device: int
    kind: Fault
    cause: str
    remedy: str


@dataclass(frozen=True)
class Sizes:
    """What of an update is compared with the fleet: how far it moved (:func:`distance`), how large its scores are.

    Both are root mean squares.
    """

    moved: float
    scored: float


@dataclass(frozen=True)
class Grades:
    """The sizes of updates in steps, so that updates of one grade can be added up before the fleet is known.

    Grade 0 are all that move up to ``reach``, or score up to ``known``; every further grade is a factor 2, or 8. An
    update is refused if its grade is above that of the bound: what is refused is always above the bound, and above
    ``reach`` or ``known``.
    """

    reach: float
    known: float

    @staticmethod
    def of(assignments: Iterable[Assignment], scores: np.ndarray | None = None) -> "Grades":
        """``reach``: AdamW moves an entry by about its learning rate a step, and hardly further.

        ``scores``: the fleet's mean scores, if there are any yet; 30 times their size is not loud.
        """
        reach = max((a.local_steps * max(a.learning_rate, a.learning_rate_end) for a in assignments), default=0.0)
        size = 0.0 if scores is None else root_mean_square(scores)
        return Grades(max(reach, _LEAST_REACH), max(_QUIET * size, _LEAST_KNOWN))

    def moved(self, size: float) -> int:
        """The grade of a distance."""
        return _grade(size, self.reach, 2.0)

    def scored(self, size: float) -> int:
        """The grade of a size of scores."""
        return _grade(size, self.known, 8.0)

    def both(self, sizes: Sizes) -> tuple[int, int]:
        """The grades of an update."""
        return self.moved(sizes.moved), self.scored(sizes.scored)


def _grade(size: float, first: float, factor: float) -> int:
    if size <= first:
        return 0
    if not math.isfinite(size):
        return _MOST_GRADES
    return min(_MOST_GRADES, math.ceil((math.log(size) - math.log(first)) / math.log(factor)))


Finding = tuple[Fault, str, str]
"""What is wrong with an update, why, and what to do."""


class Inspection:
    """Judges the updates of a round as they come; :meth:`outliers` says in the end what only the fleet can tell.

    ``expected`` has the round's assignment of every device, ``before`` is the global adapter that was sent (all
    coordinates, largest rank). Of several fit updates of one device only the first counts. ``adapter`` says which
    ranks a device may give up, ``grades`` how finely sizes are told apart.
    """

    def __init__(
        self, expected: Mapping[int, Assignment], before: Adapter, adapter: AdapterSpec, grades: Grades
    ) -> None:
        self._expected = expected
        self._before = before
        self._adapter = adapter
        self.grades = grades
        self.sizes: dict[int, Sizes] = {}

    def inspect(self, update: Update) -> Finding | None:
        """What is wrong with an update by itself; of one that passes, :attr:`sizes` has the sizes, by device."""
        fault = _check(update, self._expected.get(update.device), self._before, self.sizes, self._adapter)
        if fault is None:
            self.sizes[update.device] = Sizes(distance(update, self._before), root_mean_square(update.scores))
        return fault

    def outliers(self) -> tuple[dict[int, Finding], tuple[int, int]]:
        """Devices whose updates are too large for this fleet, and the highest grades that are not.

        An update's distance must not be far above the median (:func:`largest_distance`), nor its scores: they would
        decide alone what everybody prunes next.
        """
        found: dict[int, Finding] = {}
        far = largest_distance([sizes.moved for _, sizes in sorted(self.sizes.items())])
        highest = self.grades.moved(far)
        for device, sizes in self.sizes.items():
            if self.grades.moved(sizes.moved) > highest:
                cause = f"moved {sizes.moved:.3g} from what was sent, the fleet at most {far:.3g} (root mean square)"
                found[device] = "norm", cause, _DIVERGED
        quiet = {device: sizes.scored for device, sizes in sorted(self.sizes.items()) if device not in found}
        loud = largest_distance(list(quiet.values()), _SCORES_FACTOR)
        loudest = self.grades.scored(loud)
        for device, size in quiet.items():
            if self.grades.scored(size) > loudest:
                cause = f"has importance scores of size {size:.3g}, the fleet at most {loud:.3g} (root mean square)"
                found[device] = "scores", cause, _DIVERGED
        return found, (highest, loudest)


def find_unfit(
    updates: Sequence[Update],
    expected: Mapping[int, Assignment],
    before: Adapter,
    adapter: AdapterSpec = _NO_SELF_PRUNING,
) -> list[Unfit]:
    """Judge all updates of a round at once (see :class:`Inspection`); ordered by index.

    Those whose index is not in the result are fit.
    """
    inspection = Inspection(expected, before, adapter, Grades.of(expected.values()))
    unfit: list[Unfit] = []
    passed: dict[int, int] = {}
    for index, update in enumerate(updates):
        fault = inspection.inspect(update)
        if fault is None:
            passed[update.device] = index
        else:
            unfit.append(Unfit(index, update.device, *fault))
    outliers, _ = inspection.outliers()
    unfit += [Unfit(passed[device], device, *finding) for device, finding in outliers.items()]
    return sorted(unfit, key=lambda reason: reason.index)


def root_mean_square(values: np.ndarray) -> float:
    """In float64; 0 of nothing."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) if values.size else 0.0


def distance(update: Update, before: Adapter) -> float:
    """Root mean square difference between an update and the part of ``before`` that the device was sent.

    The mean makes devices of unequal rank and structure comparable: an AdamW step moves every entry by about as much.
    """
    squares, count = 0.0, 0
    parts = places(before, update.report.structure, update.report.rank)
    for module, factors in update.adapter.factors.items():
        sent, place = before.factors[module], parts[module]
        for part, now in factors.parts().items():
            squares += _square_difference(now, sent.parts()[part][place.of(part)])
            count += now.size
    for part in ("extra", "head"):
        for name, tensor in getattr(update.adapter, part).items():
            squares += _square_difference(tensor, getattr(before, part)[name])
            count += tensor.size
    entries = {} if before.undecided else owned_entries(before, update.report.structure, update.report.rank)
    for module, own in entries.items():  # proposals are sizes of a change that is not kept
        squares += _square_difference(update.adapter.deltas[module].values, before.deltas[module].values[own])
        count += int(own.sum())
    return math.sqrt(squares / max(count, 1))


def largest_distance(distances: Sequence[float], factor: float = _FACTOR) -> float:
    """The largest distance that is still taken for honest, in a round whose updates have these ``distances``.

    ``factor`` times the median, or e^(6 * 1.4826 * MAD) times, with MAD the median absolute deviation of their logs,
    if the fleet is that diverse. Fewer than half of the devices cannot move it at will. Infinite (no judgement) with
    fewer than 5 peers, or when most devices did not move at all.
    """
    values = np.asarray(distances, dtype=np.float64)
    if values.size <= _FEWEST_PEERS:
        return math.inf
    median = float(np.median(values))
    if median == 0.0:
        return math.inf
    logs = np.log(np.maximum(values / median, 1e-300))
    deviation = _MAD_TO_DEVIATION * float(np.median(np.abs(logs)))
    return median * max(factor, math.exp(min(_MADS * deviation, 700.0)))


def _check(
    update: Update, assigned: Assignment | None, before: Adapter, accepted: Container[int], adapter: AdapterSpec
) -> Finding | None:
    """The first fault of an update by itself."""
    if assigned is None:
        return "unknown-device", "no device of this number was given work in this round", _REINSTALL
    if update.report.round != assigned.round:
        cause = f"answers round {update.report.round}, this is round {assigned.round}"
        return "late", cause, "raise deadlines.reply_seconds if this happens often"
    if update.device in accepted:
        return "repeated", "a second update of the same device in one round", "check that no two nodes host this device"
    return (
        _check_rank(update, assigned, adapter)
        or _check_structure(update, assigned)
        or _check_tensors(update, before)
        or _check_entries(update, before)
        or _check_values(update)
        or _check_examples(update)
    )


def _check_rank(update: Update, assigned: Assignment, adapter: AdapterSpec) -> Finding | None:
    if update.report.rank not in (assigned.rank, kept_ranks(assigned.rank, adapter)):
        return "rank", f"has rank {update.report.rank}, was assigned {assigned.rank}", _REINSTALL
    return None


def _check_structure(update: Update, assigned: Assignment) -> Finding | None:
    if update.report.structure.keep.shape != assigned.structure.keep.shape:
        units = update.report.structure.keep.size, assigned.structure.keep.size
        return "structure", f"has {units[0]} units, the model has {units[1]}", _REINSTALL
    if not update.report.structure.within(assigned.structure):
        return "structure", "keeps units that were removed in earlier rounds", _REINSTALL
    allowed = max(assigned.sparsity, assigned.structure.sparsity)
    if update.report.structure.sparsity > allowed + _ROUNDING:
        cause = f"has pruned to sparsity {update.report.structure.sparsity:.4f}, was assigned {allowed:.4f}"
        return "structure", cause, _REINSTALL
    due = assigned.sparsity - assigned.structure.sparsity
    if update.report.structure == assigned.structure and due > _coarseness(assigned.structure.blueprint):
        return "structure", f"has pruned nothing, {due:.4f} of the parameters were to go", _REINSTALL
    return None


def _coarseness(blueprint: Blueprint) -> float:
    """The most that whole units can leave undone: one of every block, as a share of the prunable parameters."""
    total = sum(block.units * block.unit_parameters for block in blueprint.blocks)
    return sum(block.unit_parameters for block in blueprint.blocks) / total


def _check_tensors(update: Update, before: Adapter) -> Finding | None:
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
            return "names", f"{what} {odd[0]} {state} ({len(odd)} such in all)", _REINSTALL
    if update.adapter.residual:
        return "names", "brings a residual, which only the server makes", _REINSTALL
    for name, f in factors.items():
        odd = sorted(set(f.parts()) ^ set(before.factors[name].parts()))
        if odd:
            return "names", f"{name}: part {odd[0]} is there or missing, unlike in what was sent", _REINSTALL
    shapes = device_shapes(before, update.report.structure, update.report.rank)
    tensors: list[tuple[str, np.ndarray, tuple[int, ...]]] = [
        (f"{name} (a)", f.a, shapes[name][0]) for name, f in factors.items()
    ]
    tensors += [(f"{name} (b)", f.b, shapes[name][1]) for name, f in factors.items()]
    gates = {f"{name} (gate)": f.gate for name, f in factors.items() if f.gate is not None}
    tensors += [(name, gate, (update.report.rank,)) for name, gate in gates.items()]
    tensors += [(name, tensor, before.head[name].shape) for name, tensor in head.items()]
    tensors += [(name, tensor, before.extra[name].shape) for name, tensor in update.adapter.extra.items()]
    if not before.undecided:
        entries = owned_entries(before, update.report.structure, update.report.rank)
        tensors += [(f"{n} (delta)", d.values, (int(entries[n].sum()),)) for n, d in update.adapter.deltas.items()]
    tensors += [("scores", update.scores, update.report.structure.keep.shape)]
    for name, tensor, shape in tensors:
        if tensor.shape != shape:
            return "shape", f"{name} has shape {list(tensor.shape)}, expected {list(shape)}", _REINSTALL
        if tensor.dtype != np.float32:
            return "shape", f"{name} is {tensor.dtype}, expected float32", _REINSTALL
    return None


def _check_entries(update: Update, before: Adapter) -> Finding | None:
    """Which entries deltas have: those that were sent, or, while none are decided, proposals within the budget."""
    if not before.undecided:
        told = [name for name, d in update.adapter.deltas.items() if d.indices is not None or d.levels is not None]
        return ("names", f"{told[0]}: says which entries it changed, they were decided", _REINSTALL) if told else None
    for name, delta in update.adapter.deltas.items():
        shape, at = before.deltas[name].shape, delta.indices
        if delta.shape != shape or at is None or at.shape != delta.values.shape or delta.levels is not None:
            return "shape", f"{name}: proposes no entries of a weight of shape {list(shape)}", _REINSTALL
        if delta.values.dtype != np.float32:
            return "shape", f"{name} (proposal) is {delta.values.dtype}, expected float32", _REINSTALL
        if at.size and (at[0] < 0 or at[-1] >= shape[0] * shape[1] or (np.diff(at) <= 0).any()):
            return "shape", f"{name}: proposed entries are not ascending within {list(shape)}", _REINSTALL
        if (delta.values < 0).any():
            return "not-finite", f"{name}: proposes entries with negative scores", _REINSTALL
    proposed, allowed = sum(d.values.size for d in update.adapter.deltas.values()), before.budget(update.report.rank)
    if proposed > allowed:
        return "shape", f"proposes {proposed} entries, at most {allowed} for rank {update.report.rank}", _REINSTALL
    return None


def _check_values(update: Update) -> Finding | None:
    tensors = {f"{name} ({part})": t for name, f in update.adapter.factors.items() for part, t in f.parts().items()}
    tensors |= {f"{name} (delta)": delta.values for name, delta in update.adapter.deltas.items()}
    for name, tensor in (tensors | update.adapter.extra | update.adapter.head | {"scores": update.scores}).items():
        if not np.isfinite(tensor).all():
            return "not-finite", f"{name} has NaN or infinite values", _DIVERGED
        if name.endswith("(gate)") and (tensor < 0).any():
            return "not-finite", f"{name} has negative values, which the size of a gate cannot have", _REINSTALL
    numbers = {
        "loss_before": update.report.loss_before,
        "loss_after": update.report.loss_after,
        "importance": update.report.importance,
        "seconds": update.report.seconds,
        "workload.flops": update.report.workload.flops,
        "workload.traffic_bytes": update.report.workload.traffic_bytes,
        "workload.peak_memory_bytes": update.report.workload.peak_memory_bytes,
    }
    if update.report.evaluation is not None:
        measured = vars(update.report.evaluation).items()
        numbers |= {f"evaluation.{name}": number for name, number in measured if number is not None}
    for name, number in numbers.items():
        if not (math.isfinite(number) and number >= 0):
            return "not-finite", f"{name} is {number}, expected a finite number that is not negative", _DIVERGED
    return None


def _check_examples(update: Update) -> Finding | None:
    examples = update.report.examples
    if isinstance(examples, bool) or not isinstance(examples, int | np.integer):
        return "examples", f"counts {examples!r} examples, expected a whole number", _REINSTALL
    if not 1 <= examples <= _MOST_EXAMPLES:
        cause = f"counts {examples} examples, expected 1 to {_MOST_EXAMPLES}"
        return "examples", cause, "give the device data, or leave it out of the fleet"
    return None


def _square_difference(now: np.ndarray, then: np.ndarray) -> float:
    difference = now.astype(np.float64)
    difference -= then
    return float(np.square(difference, out=difference).sum())
