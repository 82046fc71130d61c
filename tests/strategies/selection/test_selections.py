"""What every selection claims, as properties over fleets, numbers and answers."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from slimfed.strategies.selection import SELECTORS, Answer, Call, Participation, make_selector, unpack_selector
from slimfed.strategies.selection.base import Selector, pack_selector
from slimfed.strategies.selection.oort import Oort
from slimfed.strategies.selection.power_of_choice import PowerOfChoice

NAMES = ["fast-first", "oort", "power-of-choice", "random", "round-robin"]


def test_the_registry_has_them_all() -> None:
    assert list(SELECTORS) == NAMES
    blind = [name for name, each in SELECTORS.items() if each.independent_of_text]
    assert blind == ["random", "round-robin"]


def selector(name: str, devices: int, seed: int = 3, **options: float) -> Selector:
    made = make_selector(Participation(1, name, **options), seed, devices)
    assert made is not None
    return made


def call(number: int, candidates: list[int], count: int) -> Call:
    each = np.array(candidates)
    return Call(number, each, count, np.full(len(each), np.nan))


def answer(device: int, loss: float = 1.0, seconds: float = 1.0, examples: int = 10) -> Answer:
    return Answer(device, True, loss, examples, seconds)


def silent(device: int) -> Answer:
    return Answer(device, False, math.nan, 0, math.nan)


def play(chosen: Selector, rounds: range, devices: int, count: int, losses: np.random.Generator) -> list[list[int]]:
    """Rounds in which devices come and go and some stay silent."""
    asked = []
    for number in rounds:
        away = np.random.default_rng(number).random(devices) < 0.3
        there = [device for device in range(devices) if not away[device]]
        picked = sorted(chosen.select(call(number, there, min(count, len(there) - 1))).tolist())
        asked.append(picked)
        draws = losses.random((len(picked), 2)) + 0.1
        chosen.observe(
            number,
            [
                silent(device) if (device + number) % 5 == 0 else answer(device, *draw.tolist())
                for device, draw in zip(picked, draws, strict=True)
            ],
        )
    return asked


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(devices=some.integers(4, 30), seed=some.integers(0, 1000), data=some.data())
def test_different_devices_of_the_candidates_and_resumed_to_the_bit(name: str, devices: int, seed: int, data) -> None:
    count = data.draw(some.integers(1, devices // 2))
    whole, first = selector(name, devices, seed), selector(name, devices, seed)
    draws = np.random.default_rng(seed)
    asked = play(whole, range(1, 9), devices, count, draws)
    assert all(len(set(picked)) == len(picked) for picked in asked)
    draws = np.random.default_rng(seed)
    before = play(first, range(1, 5), devices, count, draws)
    tensors, rest = pack_selector(first)
    again = unpack_selector(
        {name: tensor.copy() for name, tensor in tensors.items()}, json.loads(json.dumps(rest)), devices
    )
    assert before + play(again, range(5, 9), devices, count, draws) == asked
    last, same = pack_selector(whole), pack_selector(again)
    assert last[1] == same[1]
    for each, tensor in last[0].items():
        np.testing.assert_array_equal(tensor, same[0][each])


@pytest.mark.parametrize("name", ["fast-first", "oort", "power-of-choice", "round-robin"])
def test_a_state_of_another_fleet_is_refused(name: str) -> None:
    tensors, rest = pack_selector(selector(name, 5))
    with pytest.raises(ValueError, match="selection/asked"):
        unpack_selector(tensors, rest, 6)


@settings(max_examples=60, deadline=None)
@given(devices=some.integers(2, 60), seed=some.integers(0, 10_000), data=some.data())
def test_round_robin_visits_everyone_within_a_turn(devices: int, seed: int, data) -> None:
    count = data.draw(some.integers(1, devices - 1))
    chosen, turn = selector("round-robin", devices, seed), math.ceil(devices / count)
    last = dict.fromkeys(range(devices), 0)
    for number in range(1, 3 * turn + 1):
        picked = chosen.select(call(number, list(range(devices)), count)).tolist()
        chosen.observe(number, [silent(device) for device in picked])
        last |= dict.fromkeys(picked, number)
        assert min(last.values()) > number - turn or number < turn, "nobody waits longer than a turn"
    assert min(last.values()) > 0


def test_round_robin_asks_a_device_as_soon_as_it_is_back() -> None:
    chosen = selector("round-robin", 6)
    for number in range(1, 6):
        picked = chosen.select(call(number, [0, 1, 2, 3, 4], 2)).tolist()
        chosen.observe(number, [answer(device) for device in picked])
    assert 5 in chosen.select(call(6, list(range(6)), 2)).tolist()


def test_random_is_uniform_over_devices_and_pairs() -> None:
    """4,000 rounds of 3 of 10: each count lies within 5 standard deviations of its mean."""
    rounds, devices, count = 4000, 10, 3
    chosen, together = selector("random", devices), np.zeros((devices, devices))
    for number in range(rounds):
        picked = chosen.select(call(number, list(range(devices)), count))
        together[np.ix_(picked, picked)] += 1
    for share, counts in (
        (count / devices, np.diag(together)),
        (count * (count - 1) / (devices * (devices - 1)), together[np.triu_indices(devices, 1)]),
    ):
        deviation = math.sqrt(rounds * share * (1 - share))
        assert np.abs(counts - rounds * share).max() < 5 * deviation


@settings(max_examples=50, deadline=None)
@given(seed=some.integers(0, 10_000), number=some.integers(2, 50), factor=some.floats(1.0, 6.0))
def test_power_of_choice_takes_the_highest_losses_of_the_drawn_ones(seed: int, number: int, factor: float) -> None:
    devices, count = 20, 3
    chosen = selector("power-of-choice", devices, seed, candidates=factor)
    assert isinstance(chosen, PowerOfChoice)
    losses = np.random.default_rng(seed).permutation(devices) + 1.0
    chosen.observe(1, [answer(device, losses[device]) for device in range(devices)])
    question = call(number, list(range(devices)), count)
    drawn = chosen.drawn(question)
    assert len(set(drawn.tolist())) == max(count, round(factor * count))
    assert set(chosen.select(question).tolist()) == set(drawn[np.argsort(-losses[drawn])][:count].tolist())


def test_power_of_choice_draws_in_proportion_to_text_and_begins_with_the_unknown() -> None:
    chosen = selector("power-of-choice", 4, candidates=1.0)
    examples, counts = np.array([1.0, 1.0, 2.0, 4.0]), np.zeros(4)
    for number in range(4000):
        counts[chosen.select(Call(number, np.arange(4), 1, examples))] += 1
    np.testing.assert_allclose(counts / 4000, examples / 8, atol=0.03)
    wide = selector("power-of-choice", 4, candidates=4.0)
    wide.observe(1, [answer(0, loss=9.0), answer(1, loss=8.0)])
    assert set(wide.select(call(2, [0, 1, 2, 3], 2)).tolist()) == {2, 3}


def test_fast_first_takes_the_quickest_and_keeps_places_for_those_that_waited_longest() -> None:
    devices, count = 10, 5
    chosen = selector("fast-first", devices, exploration=0.4)
    chosen.observe(1, [answer(device, seconds=float(device + 1)) for device in range(8)])
    picked = set(chosen.select(call(2, list(range(devices)), count)).tolist())
    assert picked == {0, 1, 2, 8, 9}
    greedy = selector("fast-first", devices, exploration=0.0)
    greedy.observe(1, [answer(device, seconds=float(device + 1)) for device in range(8)])
    assert set(greedy.select(call(2, list(range(devices)), count)).tolist()) == {0, 1, 2, 3, 4}


def test_fast_first_asks_everyone_in_time_if_it_explores() -> None:
    chosen, seen = selector("fast-first", 12, exploration=0.25), set()
    for number in range(1, 14):
        picked = chosen.select(call(number, list(range(12)), 4)).tolist()
        seen |= set(picked)
        chosen.observe(number, [answer(device, seconds=device + 1.0) for device in picked])
    assert seen == set(range(12))


@pytest.mark.parametrize("name", ["fast-first", "oort"])
def test_one_place_a_round_is_still_shared_between_known_and_new_devices(name: str) -> None:
    """A fifth of one place is one place in every fifth round."""
    chosen, rounds = selector(name, 400, exploration=0.2), range(2000, 2400)
    chosen.observe(1, [answer(device, seconds=1.0 + device) for device in range(20)])
    new = sum(int(chosen.select(call(number, list(range(400)), 1))[0]) >= 20 for number in rounds)
    assert 0.1 < new / len(rounds) < 0.3


def known_oort(exploration: float = 0.0) -> Oort:
    chosen = selector("oort", 40, exploration=exploration)
    assert isinstance(chosen, Oort)
    chosen.observe(1, [answer(d, loss=1.0 + d / 10, seconds=10.0 if d % 2 else 1.0) for d in range(20)])
    return chosen


def test_the_utility_of_oort_is_that_of_its_formula() -> None:
    chosen, devices, number = known_oort(), np.arange(20), 50
    learning = 10 * (1.0 + devices / 10)
    learning = np.minimum(learning, np.quantile(learning, 0.95))
    scaled = (learning - learning.min()) / (learning.max() - learning.min())
    preferred = np.percentile([10.0 if d % 2 else 1.0 for d in devices], 30)
    late = np.array([(preferred / 10.0) ** 2 if d % 2 else 1.0 for d in devices])
    expected = (scaled + math.sqrt(0.1 * math.log(number) / 1)) * late
    assert preferred == chosen.preferred_seconds == 1.0
    np.testing.assert_allclose(chosen.utilities(devices, number), expected)


def test_oort_keeps_the_share_of_exploration_and_else_draws_of_the_best() -> None:
    chosen, everyone = known_oort(exploration=0.2), list(range(40))
    assert chosen.exploration(1) == 0.9
    assert chosen.exploration(10_000) == 0.2
    picked = chosen.select(call(10_000, everyone, 10))
    assert (picked >= 20).sum() == 2, "a fifth of the places is for devices that have never answered"
    best = [device for device in picked.tolist() if device < 20]
    utilities = chosen.utilities(np.arange(20), 10_000)
    assert utilities[best].min() >= 0.95 * np.sort(utilities)[-8]
    early = chosen.select(call(1, everyone, 10))
    assert (early >= 20).sum() == 9


def test_the_pacer_of_oort_lets_slower_devices_in_when_rounds_teach_less() -> None:
    chosen = selector("oort", 100)
    assert isinstance(chosen, Oort)
    for number in range(1, 61):
        chosen.observe(number, [answer(d, loss=1.0 / number, seconds=1.0 + d) for d in range(100)])
    assert chosen.preferred_seconds == np.percentile(np.arange(100) + 1.0, 40), "30, and 5 for each of two windows"


@pytest.mark.parametrize(
    ("amount", "devices", "count"), [("all", 7, 7), (0.1, 80, 8), (0.01, 7, 1), (0.5, 5, 3), (4, 9, 4)]
)
def test_a_share_is_rounded_to_a_number_of_devices(amount, devices: int, count: int) -> None:
    wanted = Participation(amount)
    assert wanted.count(devices) == count
    assert wanted.share(devices) == count / devices
    assert (make_selector(wanted, 1, devices) is None) == (amount == "all")
