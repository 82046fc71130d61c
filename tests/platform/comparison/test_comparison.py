"""Runs against each other: properties of the measures, and the groups that runs fall into."""

import statistics
from pathlib import Path

import pytest
from courses import course, point
from hypothesis import given
from hypothesis import strategies as st
from round_records import device_record, round_record

from slimfed.clients.errors import InputError
from slimfed.clients.update import Evaluation
from slimfed.platform.comparison.course import BUDGETS, PRICES, Cost, cost_to_target, under_budget
from slimfed.platform.comparison.grouping import grouped
from slimfed.platform.comparison.report import Target, choose_target, compare, load_courses
from slimfed.platform.comparison.statistic import Statistic
from slimfed.platform.job.job import job_to_dict, parse_job
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store

QUALITIES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(QUALITIES, st.floats(0, 1), st.floats(0, 1), st.sampled_from(PRICES))
def test_a_higher_target_never_costs_less(qualities: list[float], one: float, other: float, cost: Cost) -> None:
    points = course(qualities).points
    low, high = (cost_to_target(points, cost, target) for target in sorted((one, other)))
    if low is None:
        assert high is None
    elif high is not None:
        assert low <= high * (1 + 1e-9)


@given(QUALITIES, st.floats(0, 1), st.sampled_from(PRICES))
def test_a_target_is_paid_between_the_evaluations_around_it(qualities: list[float], target: float, cost: Cost) -> None:
    points = course(qualities).points
    found = cost_to_target(points, cost, target)
    reaching = next((index for index, quality in enumerate(qualities) if quality >= target), None)
    if reaching is None:
        assert found is None
    else:
        paid = points[reaching].cost(cost)
        before = points[reaching - 1].cost(cost) if reaching else paid
        assert found is not None
        assert before is not None
        assert paid is not None
        assert before * (1 - 1e-9) <= found <= paid * (1 + 1e-9)


def test_quality_grows_evenly_between_evaluations() -> None:
    points = (point(1, 0.5), point(5, 0.9))
    assert cost_to_target(points, "virtual_seconds", 0.7) == pytest.approx(30.0)
    assert cost_to_target(points, "bytes", 0.9) == pytest.approx(5000)
    assert cost_to_target(points, "virtual_seconds", 0.4) == 10.0, "no evaluation before the first"


@given(QUALITIES, st.floats(0, 1), st.floats(0, 1))
def test_a_model_that_is_not_slim_enough_reaches_nothing(
    qualities: list[float], target: float, sparsity: float
) -> None:
    """``course`` adds 10% of sparsity a round."""
    points = course(qualities).points
    anyone, slim = (cost_to_target(points, "virtual_seconds", target, each) for each in (0.0, sparsity))
    if slim is not None:
        assert anyone is not None
        assert anyone <= slim * (1 + 1e-9)
        assert any(p.quality >= target and p.sparsity >= sparsity - 0.01 for p in points)
    else:
        assert not any(p.quality >= target and p.sparsity >= sparsity for p in points)


@given(QUALITIES, st.floats(0, 200), st.floats(0, 200))
def test_a_larger_budget_buys_a_later_model(qualities: list[float], one: float, other: float) -> None:
    points = course(qualities).points
    low, high = (under_budget(points, "virtual_seconds", budget) for budget in sorted((one, other)))
    assert low is None or (high is not None and high.round >= low.round)
    if high is not None:
        assert high.virtual_seconds <= max(one, other)


@given(QUALITIES)
def test_a_run_compared_with_itself_is_one_group_as_fast_as_the_fastest(qualities: list[float]) -> None:
    runs = [course(qualities, "a"), course(qualities, "b")]
    result = compare(runs, budgets=dict.fromkeys(BUDGETS, 1e9))
    (group,) = result.groups
    assert group.final.values == (qualities[-1],) * 2
    assert group.final.spread == 0.0
    assert all(each.quality.values == group.final.values for each in group.budgets)
    assert result.robustness == ()
    if group.reached.mean:
        assert group.slower == pytest.approx(1.0)


@given(st.lists(st.floats(-1e6, 1e6), max_size=8), st.integers(0, 3))
def test_mean_and_spread_are_those_of_the_values_that_are_there(values: list[float], missing: int) -> None:
    found = Statistic.over([*values, *[None] * missing])
    assert found.of == len(values) + missing
    assert found.complete == (missing == 0)
    assert found.mean == (pytest.approx(statistics.mean(values)) if values else None)
    assert found.spread == (pytest.approx(statistics.stdev(values)) if len(values) > 1 else None)


def test_groups_are_named_by_what_sets_them_apart() -> None:
    runs = [
        course([0.5], "a", seed=1, method={"target_sparsity": 0.5}),
        course([0.6], "b", seed=2, method={"target_sparsity": 0.5}),
        course([0.7], "c", seed=1, method={"target_sparsity": 0.3}, bandit={"ranks": [4, 8]}),
    ]
    first, second = grouped(runs)
    assert [each.run_id for each in first.courses] == ["a", "b"]
    assert first.seeds == (1, 2)
    assert first.name == "target_sparsity=0.5, ranks=[2, 4, 8, 16]"
    assert second.differences == {"method.target_sparsity": 0.3, "bandit.ranks": [4, 8]}


def test_a_target_that_is_not_reached_is_said() -> None:
    runs = [course([0.5, 0.9], "fast", seed=1), course([0.5, 0.6], "slow", seed=2)]
    (group,) = compare(runs, target=Target(0.8, "as given")).groups
    assert (len(group.reached.values), group.reached.of) == (1, 2)
    assert group.slower is None, "a mean over the lucky seeds only would flatter"


def test_how_much_slower_than_the_fastest() -> None:
    runs = [course([0.5, 0.9], "a"), course([0.5, 0.9], "b", scale=3.0, training={"local_steps": 7})]
    fast, slow = compare(runs, target=Target(0.9, "as given")).groups
    assert (fast.slower, slow.slower) == (1.0, pytest.approx(3.0))


def test_the_target_is_ninety_percent_of_the_best_or_of_the_reference() -> None:
    runs = [course([0.8, 0.7], "a"), course([0.5], "b")]
    best, reference = choose_target(runs), choose_target(runs, reference=runs[1])
    assert best is not None
    assert reference is not None
    assert (best.value, reference.value) == (pytest.approx(0.72), pytest.approx(0.45))
    assert "run b" in reference.origin
    assert choose_target(runs, given=0.6) == Target(0.6, "as given")
    assert choose_target([course([])]) is None


def test_disturbed_runs_are_held_against_the_undisturbed_ones_seed_by_seed() -> None:
    dropping = {"fleet": {"dropout": 0.3}}
    runs = [
        course([0.5, 0.8], "calm-1", seed=1),
        course([0.5, 0.9], "calm-2", seed=2),
        course([0.5, 0.7], "lost-1", seed=1, scale=2.0, **dropping),
        course([0.5, 0.8], "lost-3", seed=3, scale=2.0, **dropping),
        course([0.1], "another job", seed=1, training={"local_steps": 3}, **dropping),
    ]
    (found,) = compare(runs, target=Target(0.7, "as given")).robustness
    assert found.disturbance == "dropout=0.3"
    assert found.change.values == (pytest.approx(-0.1),), "seed 1 is all that both have"
    assert found.delay.values == (pytest.approx(20 * 2 / (10 + 10 * 2 / 3)),)
    assert found.quality.mean == pytest.approx(0.75)


def test_nothing_to_compare_is_bad_input() -> None:
    with pytest.raises(InputError, match="no runs"):
        compare([])


def test_courses_add_up_what_the_store_holds(store: Store) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        store.create_run(name, job_to_dict(parse_job({"seed": seed})), Path("/runs"), sweep="both")
        for number in (1, 2, 3):
            measured = None if number == 2 else Evaluation(0.5, 0.3 * number, 10, macro_f1=0.2)
            record = round_record(number, (device_record(0, number),), evaluation=measured, joules=7.0 * seed)
            store.record_round(name, record)
    reader = Reader(store.engine)
    assert [row.id for row in reader.runs(sweep="both")] == ["two", "one"]
    first, second = load_courses(reader, ["one", "two"])
    assert [each.round for each in first.points] == [1, 3]
    assert [each.joules for each in second.points] == [14.0, 42.0]
    last = first.last
    assert last is not None
    assert (last.quality, last.virtual_seconds, last.wall_seconds, last.bytes) == (
        pytest.approx(0.9),
        pytest.approx(30.0),
        pytest.approx(6.0),
        3 * 5_000_000_000,
    )
    assert last.memory_bytes == 5_000_000_000
    assert [each.quality for each in load_courses(reader, ["one"], "macro_f1")[0].points] == [0.2, 0.2]
    assert [each.round for each in load_courses(reader, ["one"], "device_accuracy_mean")[0].points] == [1, 2, 3]
    assert load_courses(reader, ["one"], "bleu")[0].points == ()
    run = reader.find_run("two")
    assert (run.joules, run.macro_f1, run.task) == (42.0, 0.2, "classification")
