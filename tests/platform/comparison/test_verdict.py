"""Who leads, by how much, and whether that is more than noise."""

import pytest
from courses import course
from hypothesis import given
from hypothesis import strategies as st

from slimfed.clients.errors import InputError
from slimfed.platform.comparison.as_json import comparison_as_json
from slimfed.platform.comparison.course import Course
from slimfed.platform.comparison.report import Comparison, Target, compare
from slimfed.platform.comparison.verdict import FEWEST_SEEDS, in_words

OTHER = {"training": {"local_steps": 7}}


def runs(finals: list[float], **job: object) -> list[Course]:
    """One run a seed, which ends at the given quality after 3 rounds."""
    return [course([0.1, 0.2, final], f"{job}-{seed}", seed=seed, **job) for seed, final in enumerate(finals, 1)]


def words(comparison: Comparison) -> str:
    assert comparison.verdict is not None
    return in_words(comparison.verdict, comparison.quality, comparison.target)


def test_a_steady_lead_over_enough_seeds_is_more_than_noise() -> None:
    found = compare([*runs([0.80, 0.82, 0.81, 0.83, 0.79]), *runs([0.76, 0.77, 0.77, 0.78, 0.75], **OTHER)])
    assert found.verdict is not None
    assert found.verdict.clear
    assert found.verdict.lead == pytest.approx(0.044)
    low, high = found.verdict.interval or (0.0, 0.0)
    assert 0.03 < low < 0.044 < high < 0.06
    said = words(found)
    assert said.startswith("local_steps=20 leads with 81.0% accuracy, 4.4 points over local_steps=7;")
    assert "over 5 common seeds that is more than noise (95% interval +" in said
    assert said.endswith("Another seed of both takes about 12.0 s on this computer.")


def test_a_lead_that_changes_hands_is_no_more_than_noise() -> None:
    found = compare([*runs([0.80, 0.70, 0.81, 0.70, 0.85]), *runs([0.70, 0.80, 0.71, 0.80, 0.72], **OTHER)])
    assert found.verdict is not None
    assert found.verdict.clear is False
    assert "no more than noise" in words(found)


@pytest.mark.parametrize("count", [1, FEWEST_SEEDS - 1])
def test_too_few_seeds_are_said_to_be_too_few(count: int) -> None:
    found = compare([*runs([0.9] * count), *runs([0.1] * count, **OTHER)])
    assert found.verdict is not None
    assert (found.verdict.interval, found.verdict.clear) == (None, None)
    assert "cannot tell that from noise, 5 are needed" in words(found)


def test_seeds_are_paired() -> None:
    found = compare([*runs([0.5]), course([0.1, 0.4], "other", seed=9, **OTHER)])
    assert found.verdict is not None
    assert (found.verdict.seeds, found.verdict.lead) == ((), None)
    assert "no seed is common to them" in words(found)


def test_a_target_that_somebody_gave_is_what_counts() -> None:
    slow = [course([0.5, 0.9], f"slow-{seed}", seed=seed, scale=2.0 + 0.1 * seed, **OTHER) for seed in range(5)]
    fast = [course([0.5, 0.85], f"fast-{seed}", seed=seed) for seed in range(5)]
    found = compare([*slow, *fast], target=Target(0.8, "as given"))
    assert found.verdict is not None
    assert (found.verdict.measure, found.verdict.leader.name) == ("time", "local_steps=20")
    assert found.verdict.clear
    assert "local_steps=20 reaches 80.0% accuracy first, 2." in words(found)
    assumed = compare([*slow, *fast])
    assert assumed.target is not None
    assert assumed.target.assumed
    assert assumed.verdict is not None
    assert assumed.verdict.measure == "quality"


def test_who_misses_the_target_does_not_lead() -> None:
    lucky = [course([0.5, 0.9], "lucky-1", seed=1), course([0.5, 0.6], "lucky-2", seed=2)]
    steady = [course([0.5, 0.9], f"steady-{seed}", seed=seed, scale=3.0, **OTHER) for seed in (1, 2)]
    found = compare([*lucky, *steady], target=Target(0.8, "as given"))
    assert found.verdict is not None
    assert (found.verdict.leader.name, found.verdict.missed) == ("local_steps=7", (2,))
    assert "which misses it in 1 seed" in words(found)
    none = compare([*steady, course([0.1], "never", seed=1)], target=Target(0.8, "as given"))
    assert "local_steps=7 reaches 80.0% accuracy, local_steps=20 does not" in words(none)


def test_models_that_are_less_pruned_are_named_as_such() -> None:
    long = [course([0.1, 0.2, 0.3, 0.4, 0.9], f"long-{seed}", seed=seed) for seed in range(5)]
    said = words(compare([*long, *[course([0.1, 0.8], f"short-{s}", seed=s, **OTHER) for s in range(5)]]))
    assert "(at 50.0% sparsity against 20.0%)" in said


def test_one_group_has_no_verdict_and_tasks_are_not_mixed() -> None:
    assert compare(runs([0.5, 0.6])).verdict is None
    text = course([0.4], "text", model={"task": "causal-lm", "path": "builtin:tiny-decoder"})
    with pytest.raises(InputError, match=r"different tasks.*classification: .*; causal-lm: text"):
        compare([*runs([0.5]), text])


@given(st.lists(st.floats(0, 1), min_size=FEWEST_SEEDS, max_size=8), st.floats(-0.3, 0.3))
def test_the_interval_holds_the_lead_and_never_calls_equal_groups_different(finals: list[float], gap: float) -> None:
    found = compare([*runs(finals), *runs([final - gap for final in finals], **OTHER)]).verdict
    assert found is not None
    assert found.interval is not None
    assert found.lead == pytest.approx(abs(gap), abs=1e-9)
    assert found.interval == (pytest.approx(abs(gap), abs=1e-9),) * 2
    assert found.clear == (abs(gap) > 1e-8) or 1e-10 < abs(gap) < 1e-8


def test_the_verdict_is_in_the_json() -> None:
    told = comparison_as_json(compare([*runs([0.8, 0.9]), *runs([0.7, 0.7], **OTHER)]))["verdict"]
    assert (told["leader"], told["other"], told["more_than_noise"]) == ("local_steps=20", "local_steps=7", None)
    assert told["words"].startswith("local_steps=20 leads")
