"""Every corruption of an update is caught and named; honest updates pass."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.pruning.selection import select
from slimfed.clients.spec import AdapterSpec
from slimfed.clients.structure import Block, Blueprint, Cut, Structure
from slimfed.clients.update import Assignment, Evaluation, Report, Update, Workload
from slimfed.strategies.aggregation import initial_adapter
from slimfed.strategies.checks.update_checks import find_unfit
from slimfed.strategies.coordinates.places import places
from slimfed.strategies.schedule import pruning_bounds, sparsity_after

BLUEPRINT = Blueprint(
    "toy",
    (
        Block("attention", 0, "attention", 4, 40, (Cut("q", "out", 2), Cut("o", "in", 2))),
        Block("ffn", 0, "ffn", 8, 10, (Cut("up", "out", 1), Cut("down", "in", 1))),
    ),
)
SHAPES = {"q": (8, 6), "o": (6, 8), "up": (8, 6), "down": (6, 8)}
BEFORE = initial_adapter(SHAPES, 4, {"head.weight": np.ones((3, 6)), "head.bias": np.zeros(3)}, seed=1)


def structure_of(rng: np.random.Generator, within: Structure, share: float) -> Structure:
    """A random structure within another that keeps a unit of every block."""
    keep = within.keep & (rng.random(BLUEPRINT.units) >= share)
    for index in range(len(BLUEPRINT.blocks)):
        span = BLUEPRINT.span(index)
        if not keep[span].any():
            keep[span] = within.keep[span]
    return Structure(BLUEPRINT, keep)


def honest(device: int, seed: int = 0, step: float = 2e-3, round: int = 3) -> tuple[Assignment, Update]:
    """What a device was given, and an update that an AdamW of some steps could have made of it."""
    rng = np.random.default_rng([seed, device])
    given = structure_of(rng, BLUEPRINT.dense(), 0.3)
    left = structure_of(rng, given, 0.2)
    rank = int(rng.integers(1, 5))
    factors = {}
    for module, place in places(BEFORE, left, rank).items():
        a, b = BEFORE.factors[module].a[place.a], BEFORE.factors[module].b[place.b]
        factors[module] = Factors(moved(a, step, rng), moved(b, step, rng))
    head = {name: moved(tensor, step, rng) for name, tensor in BEFORE.head.items()}
    assignment = Assignment(device, round, rank, left.sparsity, 20, 2e-3, 1e-3, 1, False, given)
    scores = np.where(left.keep, rng.random(BLUEPRINT.units), 0).astype(np.float32)
    report = Report(
        device=device,
        round=round,
        rank=rank,
        effective_rank=rank,
        structure=left,
        loss_before=1.2,
        loss_after=1.3,
        importance=0.4,
        examples=int(rng.integers(1, 500)),
        seconds=2.0,
        measured_memory_bytes=100,
        workload=Workload(1e9, 1e6, 1e6),
        evaluation=Evaluation(0.7, 0.5, 100) if device % 2 else None,
    )
    return assignment, Update(report, Adapter(factors, head), scores)


def moved(tensor: np.ndarray, step: float, rng: np.random.Generator) -> np.ndarray:
    return (tensor + step * rng.standard_normal(tensor.shape)).astype(np.float32)


def fleet(devices: int, seed: int, spread: float = 1.0) -> tuple[dict[int, Assignment], list[Update]]:
    """Honest devices whose step sizes lie within a factor ``spread`` of each other, both ways."""
    rng = np.random.default_rng(seed)
    pairs = [honest(d, seed, 2e-3 * spread ** rng.uniform(-1, 1)) for d in range(devices)]
    return {a.device: a for a, _ in pairs}, [u for _, u in pairs]


@given(st.integers(1, 20), st.integers(0, 10_000), st.floats(1.0, 3.0))
def test_honest_updates_always_pass(devices, seed, spread):
    expected, updates = fleet(devices, seed, spread)
    assert find_unfit(updates, expected, BEFORE) == []


def with_tensor(update: Update, change, rng: np.random.Generator) -> Update:
    """The update with one of its tensors changed."""
    name = str(rng.choice([*update.adapter.factors, "head.weight", "head.bias"]))
    factors, head = dict(update.adapter.factors), dict(update.adapter.head)
    if name in head:
        head[name] = change(head[name])
    elif rng.random() < 0.5:
        factors[name] = replace(factors[name], a=change(factors[name].a))
    else:
        factors[name] = replace(factors[name], b=change(factors[name].b))
    return replace(update, adapter=Adapter(factors, head))


def spoil(value: float):
    def change(update: Update, rng: np.random.Generator) -> Update:
        def put(tensor: np.ndarray) -> np.ndarray:
            tensor = tensor.copy()
            tensor.reshape(-1)[rng.integers(tensor.size)] = value
            return tensor

        return with_tensor(update, put, rng)

    return change


def reshaped(change):
    return lambda update, rng: with_tensor(update, change, rng)


def spoil_scores(update: Update, rng: np.random.Generator) -> Update:
    scores = update.scores.copy()
    scores[rng.integers(scores.size)] = rng.choice([np.nan, np.inf])
    return replace(update, scores=scores)


def set_number(name: str, *values):
    return lambda update, rng: update.with_report(**{name: values[rng.integers(len(values))]})


def lose_factor(update: Update, rng: np.random.Generator) -> Update:
    factors = dict(update.adapter.factors)
    factors.pop(str(rng.choice(list(factors))))
    return replace(update, adapter=replace(update.adapter, factors=factors))


def rename_head(update: Update, rng: np.random.Generator) -> Update:
    head = dict(update.adapter.head)
    head["other"] = head.pop("head.bias")
    return replace(update, adapter=replace(update.adapter, head=head))


def extra_factor(update: Update, rng: np.random.Generator) -> Update:
    factors = update.adapter.factors | {"intruder": update.adapter.factors["q"]}
    return replace(update, adapter=replace(update.adapter, factors=factors))


def prune_more(update: Update, rng: np.random.Generator) -> Update:
    """A structure with one unit in every block: beyond any assigned sparsity of these tests."""
    keep = np.zeros(BLUEPRINT.units, dtype=bool)
    for index in range(len(BLUEPRINT.blocks)):
        keep[BLUEPRINT.offsets[index] + update.report.structure.kept(index)[0]] = True
    return update.with_report(structure=Structure(BLUEPRINT, keep))


def regrow(update: Update, rng: np.random.Generator) -> Update:
    return update.with_report(structure=BLUEPRINT.dense())


def other_model(update: Update, rng: np.random.Generator) -> Update:
    smaller = Blueprint("toy", BLUEPRINT.blocks[:1])
    return update.with_report(structure=smaller.dense())


CORRUPTIONS = {
    "NaN": (spoil(math.nan), "not-finite"),
    "inf": (spoil(math.inf), "not-finite"),
    "minus inf": (spoil(-math.inf), "not-finite"),
    "scores": (spoil_scores, "not-finite"),
    "loss before": (set_number("loss_before", math.nan, math.inf, -1.0), "range"),
    "loss after": (set_number("loss_after", math.nan, math.inf), "range"),
    "importance": (set_number("importance", math.nan, -1.0), "range"),
    "seconds": (set_number("seconds", math.nan, -1.0), "range"),
    "workload": (set_number("workload", Workload(math.nan, 1, 1), Workload(1, -1, 1)), "range"),
    "evaluation": (set_number("evaluation", Evaluation(math.nan, 0.5, 9), Evaluation(1, math.inf, 9)), "range"),
    "another measure": (set_number("evaluation", Evaluation(1, 0.5, 9, calibration_error=math.nan)), "range"),
    "examples": (set_number("examples", 0, -3, 2**40), "examples"),
    "half an example": (set_number("examples", math.nan, 1.5, True), "examples"),
    "broadcastable": (reshaped(lambda t: t[:1, ..., None] if t.ndim == 1 else t[None, :1]), "shape"),
    "one more row": (reshaped(lambda t: np.concatenate([t, t[:1]])), "shape"),
    "flat": (reshaped(lambda t: t.reshape(1, -1, 1)), "shape"),
    "float64": (reshaped(lambda t: t.astype(np.float64)), "shape"),
    "scores shape": (lambda u, rng: replace(u, scores=u.scores[:-1]), "shape"),
    "lost module": (lose_factor, "names"),
    "renamed head": (rename_head, "names"),
    "extra module": (extra_factor, "names"),
    "rank": (lambda u, rng: u.with_report(rank=u.report.rank + 1), "rank"),
    "over-pruned": (prune_more, "structure"),
    "regrown": (regrow, "structure"),
    "other model": (other_model, "structure"),
    "late": (lambda u, rng: u.with_report(round=u.report.round - 1), "late"),
    "stranger": (lambda u, rng: u.with_report(device=999), "unknown-device"),
    "exploded": (reshaped(lambda t: t + np.float32(1e3)), "norm"),
    "huge": (reshaped(lambda t: t + np.float32(3e38)), "norm"),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(0, 7))
def test_every_corruption_is_caught_and_nobody_else_is_accused(name, seed, position):
    corrupt, kind = CORRUPTIONS[name]
    expected, updates = fleet(8, seed)
    changed = corrupt(updates[position], np.random.default_rng(seed))
    if name == "regrown":  # a dense structure has nothing to regrow
        assume(expected[position].structure != BLUEPRINT.dense())
    if name == "over-pruned":  # the smallest structure cannot be pruned further
        assume(changed.report.structure.sparsity > updates[position].report.structure.sparsity)
    updates[position] = changed
    found = find_unfit(updates, expected, BEFORE)
    assert [(reason.index, reason.device, reason.finding.kind) for reason in found] == [
        (position, changed.device, kind)
    ]
    assert found[0].finding.cause
    assert found[0].finding.remedy


def test_a_factor_of_rank_one_that_numpy_would_broadcast_is_a_wrong_shape():
    expected, updates = fleet(1, 4)
    assignment = replace(expected[0], rank=3, structure=BLUEPRINT.dense(), sparsity=0.0)
    thin = {m: Factors(f.a[:1].copy(), f.b[:, :1].copy()) for m, f in BEFORE.factors.items()}
    update = replace(updates[0].with_report(rank=3, structure=BLUEPRINT.dense()), adapter=Adapter(thin, BEFORE.head))
    (reason,) = find_unfit([update], {0: assignment}, BEFORE)
    assert reason.finding.kind == "shape"
    assert "[1, 6], expected [3, 6]" in reason.finding.cause


def test_the_first_fit_update_of_a_device_counts_and_the_repetition_is_named():
    expected, updates = fleet(3, 1)
    late = updates[1].with_report(round=2)
    found = find_unfit([late, updates[0], updates[1], updates[2], updates[1]], expected, BEFORE)
    assert [(reason.index, reason.finding.kind) for reason in found] == [(0, "late"), (4, "repeated")]


def test_a_device_may_prune_less_but_not_more_than_assigned():
    expected, updates = fleet(1, 7)
    sparsity = updates[0].report.structure.sparsity
    assert sparsity > 0.05
    lazy = {0: replace(expected[0], sparsity=sparsity + 0.2)}
    assert find_unfit(updates, lazy, BEFORE) == []
    strict = {0: replace(expected[0], sparsity=sparsity - 0.01)}
    found = find_unfit(updates, strict, BEFORE)
    exempt = expected[0].structure.sparsity >= sparsity - 0.01
    assert [reason.finding.kind for reason in found] == ([] if exempt else ["structure"])


@given(
    st.integers(0, 1000), st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8), st.sampled_from(["layer", "global"])
)
def test_the_real_selection_of_units_never_prunes_more_than_assigned(seed, choices, scope):
    """Floor 1's selection, driven by the schedule's bounds, stays within what the fitness check allows."""
    rng = np.random.default_rng(seed)
    _, update = honest(0, seed)
    structure, target = BLUEPRINT.dense(), 0.5
    for round, choice in enumerate(choices, 1):
        low, high = pruning_bounds(structure.sparsity, target, round, 8, 0.6, (0.0, 0.4))
        goal = min(target, sparsity_after(structure.sparsity, low + choice * (high - low)))
        goal = max(goal, structure.sparsity)
        left = select(structure, rng.random(BLUEPRINT.units), goal, scope)
        assigned = Assignment(0, round, 2, goal, 20, 2e-3, 1e-3, 1, False, structure)
        factors = {
            module: Factors(BEFORE.factors[module].a[place.a], BEFORE.factors[module].b[place.b])
            for module, place in places(BEFORE, left, 2).items()
        }
        adapter = Adapter(factors, BEFORE.head)
        scores = np.where(left.keep, np.float32(1), np.float32(0))
        sent_back = replace(update.with_report(round=round, rank=2, structure=left), adapter=adapter, scores=scores)
        assert find_unfit([sent_back], {0: assigned}, BEFORE) == []
        structure = left


def test_a_small_fleet_is_not_judged_by_its_norms():
    expected, updates = fleet(5, 2)
    updates[0] = with_tensor(updates[0], lambda t: t + np.float32(1e3), np.random.default_rng(0))
    assert find_unfit(updates, expected, BEFORE) == []


def test_scores_that_would_drown_the_fleets_are_refused():
    expected, updates = fleet(8, 3)
    updates[5] = replace(updates[5], scores=updates[5].scores * np.float32(1e6))
    assert [(reason.device, reason.finding.kind) for reason in find_unfit(updates, expected, BEFORE)] == [(5, "scores")]


def test_a_device_that_prunes_nothing_of_a_large_step_is_refused():
    expected, updates = fleet(1, 7)
    structure = updates[0].report.structure
    idle = replace(expected[0], structure=structure, sparsity=structure.sparsity + 0.3)
    (reason,) = find_unfit(updates, {0: idle}, BEFORE)
    assert reason.finding.kind == "structure"
    assert "has pruned nothing" in reason.finding.cause


def test_a_device_may_give_up_the_ranks_that_its_method_lets_it_and_no_others():
    """HetLoRA at gamma 0.5: 4 or 2 ranks of 4, never 3 or 1, and never 2 without the method."""
    expected, updates = fleet(1, 4)
    assigned, method = replace(expected[0], rank=4), AdapterSpec(keep_ranks=0.5)
    for rank, spec, fit in ((4, method, True), (2, method, True), (3, method, False), (2, AdapterSpec(), False)):
        sent = narrow(BEFORE, BLUEPRINT.dense(), updates[0].report.structure, rank)
        found = find_unfit([replace(updates[0].with_report(rank=rank), adapter=sent)], {0: assigned}, BEFORE, spec)
        assert [reason.finding.kind for reason in found] == ([] if fit else ["rank"])
