"""Rounds in which a part of the fleet takes part, on real parts: the built-in model and text and the real ClientApp."""

import json
import math
import time
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Message
from rounds import Clock, Evaluator, Memory, assert_same_checkpoint, small_settings, small_task

from slimfed.clients.adapters.training.adapted import head_state
from slimfed.clients.clientapp import serve
from slimfed.clients.messages.machine import Machine
from slimfed.clients.messages.records import encode_host, encode_work
from slimfed.clients.node.runtime import open_runtime
from slimfed.clients.spec import (
    MessageSpec,
    PrivacySpec,
    PruningSpec,
    TaskSpec,
)
from slimfed.strategies import roster as roster_module
from slimfed.strategies.aggregation import initial_adapter
from slimfed.strategies.attempt import QuorumError
from slimfed.strategies.bandits import BanditSpec
from slimfed.strategies.local_grid import LocalGrid
from slimfed.strategies.participants import NobodyAvailableError
from slimfed.strategies.privacy import spent
from slimfed.strategies.restored_state import misfit
from slimfed.strategies.selection import SELECTORS, Participation, make_selector
from slimfed.strategies.server_state import Fleet
from slimfed.strategies.settings import StrategySettings
from slimfed.strategies.strategy import FedSlim
from slimfed.strategies.transport import StopRequestedError
from slimfed.strategies.where import parse_where

DEVICES = 6
TASK = small_task(DEVICES, local_steps=2)
SETTINGS = small_settings(TASK, every=2, own=1)
TWO = Participation(2)


def new_fleet(settings: StrategySettings = SETTINGS) -> Fleet:
    runtime = open_runtime(TASK)
    base, blueprint = runtime.base, runtime.blueprint
    shapes = {name: tuple(base.model.get_submodule(name).weight.shape) for name in blueprint.modules}
    adapter = initial_adapter(shapes, 4, head_state(base.model, base.head), 5)
    selector = make_selector(settings.participation, 5, DEVICES)
    return Fleet.new(blueprint, adapter, DEVICES, settings.bandit, 5, selector=selector)


def run(recorder: Memory, *, fleet: Fleet | None = None, clock=None, context: dict | None = None, **changes) -> Fleet:
    settings = replace(SETTINGS, **changes)
    fleet = fleet or new_fleet(settings)
    strategy = FedSlim(settings, fleet, clock or Clock(), recorder, Evaluator(), **(context or {}))
    strategy.start(LocalGrid(settings.nodes))
    return fleet


def restored(recorder: Memory) -> Fleet:
    tensors, state = recorder.checkpoints[-1]
    return Fleet.restore(open_runtime(TASK).blueprint, dict(tensors), json.loads(state))


def asked(recorder: Memory) -> list[list[int]]:
    return [[each.assignment.device for each in record.devices] for record in recorder.rounds]


@pytest.fixture(scope="module")
def whole_fleet() -> Memory:
    recorder = Memory()
    run(recorder)
    return recorder


def test_to_ask_as_many_as_there_are_is_to_ask_all(whole_fleet: Memory) -> None:
    recorder = Memory()
    run(recorder, participation=Participation(DEVICES))
    assert asked(recorder) == [list(range(DEVICES))] * 4
    (tensors, state), (same, other) = recorder.checkpoints[-1], whole_fleet.checkpoints[-1]
    state = json.loads(state)
    del state["selection"]
    assert_same_checkpoint((tensors, json.dumps(state)), (same, other))
    assert recorder.events == whole_fleet.events == []
    assert "selection" not in json.loads(other)


@pytest.mark.parametrize("name", list(SELECTORS))
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_part_of_the_fleet_is_the_same_on_any_nodes_and_resumed(name: str, precision) -> None:
    task = TASK.model_copy(update={"messages": MessageSpec(precision=precision)})
    changes = {"task": task, "participation": Participation(2, name)}
    whole, first, rest = Memory(), Memory(stop_after=2), Memory()
    run(whole, **changes)
    with pytest.raises(StopRequestedError):
        run(first, nodes=1, **changes)
    run(rest, fleet=restored(first), nodes=3, **changes)
    assert_same_checkpoint(rest.checkpoints[-1], whole.checkpoints[-1])
    assert asked(first) + asked(rest) == asked(whole)
    assert all(len(devices) == 2 for devices in asked(whole))
    probed = {each.assignment.probed for record in whole.rounds for each in record.devices}
    assert probed == {True}


def test_the_sequential_engine_asks_the_same_devices() -> None:
    lists = []
    for engine in ("cohort", "sequential"):
        recorder = Memory()
        task = TASK.model_copy(update={"engine": engine, "cohort_size": 2 if engine == "cohort" else 1})
        run(recorder, task=task, participation=Participation(2, "round-robin"))
        lists.append(asked(recorder))
    assert lists[0] == lists[1]
    assert sorted(device for devices in lists[0][:3] for device in devices) == list(range(DEVICES))


@pytest.mark.parametrize("agent", ["s-ucb", "pooled"])
def test_who_is_away_stays_as_it_was(agent: str) -> None:
    """Structures, paces, memories of rounding and agents change for those alone that took part."""
    task = TASK.model_copy(update={"messages": MessageSpec(precision="int8")})
    recorder = Memory(stop_after=1)
    bandit = BanditSpec(name=agent, ranks=(2, 4), local_steps=(2, 3))
    fleet = new_fleet(replace(SETTINGS, bandit=bandit, participation=TWO))
    with pytest.raises(StopRequestedError):
        run(recorder, fleet=fleet, task=task, bandit=bandit, participation=TWO)
    (there,) = asked(recorder)
    record = recorder.rounds[0]
    for device, state in enumerate(fleet.devices):
        took_part = device in there
        assert (state.structure.sparsity > 0) is took_part
        assert (state.pace is not None) is took_part
        assert (state.memory is not None) is took_part
        if agent == "s-ucb":
            told = len(fleet.agent.agents[device].state()["pulls"])
            assert (told > 0) is took_part
    assert record.virtual_seconds == max(there) + 1.0, "the slowest of those that took part"
    assert record.bytes_up == sum(each.bytes_up for each in record.devices)
    assert record.available == DEVICES
    means = [fleet.devices[device].structure.sparsity for device in there]
    assert fleet.structure.sparsity == pytest.approx(np.mean(means), abs=0.02)
    assert record.sparsity == pytest.approx(sum(means) / DEVICES)


def test_a_device_that_was_away_comes_back_with_its_old_structure_and_is_averaged_where_it_owns() -> None:
    """What only the device that was away still has moves by its update alone; what nobody has stays."""
    fleet = new_fleet(replace(SETTINGS, participation=TWO))
    blueprint = fleet.blueprint
    small = np.ones(blueprint.units, dtype=bool)
    for index, block in enumerate(blueprint.blocks):
        small[blueprint.span(index)] = np.arange(block.units) < max(1, block.units // 2)
    narrow = type(fleet.structure)(blueprint, small)
    gone = np.ones(blueprint.units, dtype=bool)
    last = blueprint.span(len(blueprint.blocks) - 1)
    gone[last.stop - 1] = False
    away = type(fleet.structure)(blueprint, gone)
    for device in range(1, DEVICES):
        fleet.devices[device].structure = narrow
    fleet.devices[0].structure = away
    before = fleet.adapter
    recorder = Memory(stop_after=1)
    settings = {
        "participation": Participation(2),
        "target_sparsity": 0.0,
        "bandit": BanditSpec(name="fixed", ranks=(4,)),
    }
    seeds = (seed for seed in range(50) if 0 in _first_choice(seed))
    fleet.selector = make_selector(TWO, next(seeds), DEVICES)
    with pytest.raises(StopRequestedError):
        run(recorder, fleet=fleet, **settings)
    moved = np.zeros(blueprint.units, dtype=bool)
    for (module, side), units in blueprint.lines.items():
        if module not in before.factors:
            continue
        old, new = before.factors[module], fleet.adapter.factors[module]
        change = np.abs(new.b - old.b).max(axis=1) if side == "out" else np.abs(new.a - old.a).max(axis=0)
        np.logical_or.at(moved, units, change > 0)
    assert moved[gone & ~small].all(), "the device that was away still trains what the others have removed"
    assert not moved[~gone].any()


def _first_choice(seed: int) -> list[int]:
    from slimfed.strategies.selection import Call

    selector = make_selector(TWO, seed, DEVICES)
    assert selector is not None
    return selector.select(Call(1, np.arange(DEVICES), 2, np.full(DEVICES, math.nan))).tolist()


@pytest.mark.parametrize("structure", ["own", "shared"])
def test_the_global_model_reaches_the_target_though_some_devices_are_seldom_asked(structure) -> None:
    task = TASK.model_copy(update={"pruning": PruningSpec(structure=structure, schedule="cubic", target_sparsity=0.5)})
    recorder = Memory()
    fleet = run(recorder, task=task, participation=Participation(1))
    sparsities = [record.global_sparsity for record in recorder.rounds]
    assert sparsities == sorted(sparsities)
    assert sparsities[-1] == pytest.approx(0.5, abs=0.02)
    away = set(range(DEVICES)) - {device for devices in asked(recorder) for device in devices}
    assert away
    for device in away:
        expected = fleet.structure.sparsity if structure == "shared" else 0.0
        assert fleet.devices[device].structure.sparsity == expected


def test_the_quorum_is_of_those_that_were_asked() -> None:
    chosen = _first_choice(5)
    recorder = Memory(stop_after=1)
    with pytest.raises(StopRequestedError):
        run(recorder, participation=TWO, clock=Clock(dropped=(chosen[0],)))
    assert sorted(each.status for each in recorder.rounds[0].devices) == ["done", "dropout"]
    with pytest.raises(QuorumError, match="1 of 2 updates were usable, 2 are needed"):
        run(Memory(), participation=TWO, quorum=0.75, clock=Clock(dropped=(chosen[0],)))


class Openings:
    """Devices are available from second 10 x device on, for 9 seconds, and never again."""

    def at(self, seconds: float) -> np.ndarray:
        return np.array([device for device in range(DEVICES) if 10 * device <= seconds < 10 * device + 9])

    def next_opening(self, seconds: float, devices: np.ndarray) -> float | None:
        return next((10.0 * device for device in devices.tolist() if 10 * device > seconds), None)


def test_a_round_waits_on_the_virtual_clock_and_fewer_than_asked_are_told() -> None:
    recorder = Memory()
    fleet = run(recorder, participation=TWO, context={"availability": Openings(), "admitted": (2, 3, 4, 5)})
    assert asked(recorder) == [[2], [2], [2], [3]]
    assert [record.waited_seconds for record in recorder.rounds] == [20.0, 0.0, 0.0, 1.0]
    assert [record.virtual_seconds for record in recorder.rounds] == [23.0, 3.0, 3.0, 5.0]
    assert fleet.virtual_clock == 34.0
    assert [record.available for record in recorder.rounds] == [1, 1, 1, 1]
    assert {event.kind for event in recorder.events} == {"few-available"}
    assert recorder.events[0].cause == "1 of 4 devices are available, 2 were to take part"
    everyone = Memory()
    run(everyone, context={"availability": Openings(), "admitted": (2, 3)})
    assert everyone.events == [], "all that are available were to take part"


def test_a_trace_that_has_ended_ends_the_run_with_a_cause() -> None:
    recorder = Memory()
    with pytest.raises(NobodyAvailableError, match=r"round 4: no device is available at virtual second 42\.0 or later"):
        run(recorder, context={"availability": Openings(), "admitted": (3,)})
    assert asked(recorder) == [[3]] * 3


FIXED = {"bandit": BanditSpec(name="fixed", ranks=(4,)), "target_sparsity": 0.0}
TURNS = Participation(2, "round-robin")


def private(kind, **values: float) -> TaskSpec:
    return TASK.model_copy(update={"privacy": PrivacySpec(kind=kind, **values)})


@pytest.mark.parametrize("kind", ["central", "local"])
def test_privacy_is_spent_by_the_device_that_was_asked_most_often_and_sampling_amplifies_nothing(kind) -> None:
    task = private(kind, clipping_norm=1.0, noise_multiplier=1.0)
    whole, first, rest = Memory(), Memory(stop_after=2), Memory()
    run(whole, task=task, participation=TURNS, **FIXED)
    expected = [spent(task.privacy, times) for times in (1, 1, 1, 2)]
    assert [record.epsilon for record in whole.rounds] == expected
    with pytest.raises(StopRequestedError):
        run(first, task=task, participation=TURNS, **FIXED)
    fleet = restored(first)
    assert misfit(fleet, new_fleet(replace(SETTINGS, participation=TURNS, **FIXED)), 2) is None
    rest.told = 3  # two rounds, and one that was abandoned, which counts for every device
    run(rest, fleet=fleet, task=task, participation=TURNS, **FIXED)
    assert [record.epsilon for record in rest.rounds] == [spent(task.privacy, times) for times in (2, 3)]
    everyone = Memory()
    run(everyone, task=task, **FIXED)
    assert [record.epsilon for record in everyone.rounds] == [spent(task.privacy, times) for times in (1, 2, 3, 4)]
    fleet.asked = fleet.asked + 5
    assert "asked is int64" in str(misfit(fleet, new_fleet(replace(SETTINGS, participation=TURNS, **FIXED)), 4))


def test_under_central_privacy_a_sum_is_divided_by_those_that_were_asked() -> None:
    ends = []
    for task in (private("central", noise_multiplier=1e-7, clipping_norm=100.0), TASK):
        recorder = Memory(stop_after=1)
        with pytest.raises(StopRequestedError):
            run(recorder, task=task, participation=TURNS, **FIXED)
        ends.append(recorder.checkpoints[0][0])
    for name, tensor in ends[1].items():
        if name.startswith(("a/", "b/", "head/")):
            assert np.abs(ends[0][name] - tensor).max() < 0.01, "with almost no noise, the mean of the two"


class Hosts(LocalGrid):
    """Real nodes, each of which hosts one device and tells of its machine."""

    def __init__(self, machines: dict[int, Machine]) -> None:
        super().__init__(0)
        self.hosted = {100 + device: (device, machine) for device, machine in machines.items()}

    def get_node_ids(self) -> Iterable[int]:
        return list(self.hosted)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = []
        for message_id in [each for each in message_ids if each in self._sent]:
            message, _ = self._sent.pop(message_id)
            if message.metadata.message_type == "query":
                content = encode_host(*self.hosted[message.metadata.dst_node_id])
            else:
                content = serve(message.content)
                encode_work(content, 0.001)
            replies.append(Message(content, reply_to=message))
        return replies


def real_run(recorder: Memory, grid: LocalGrid, where: str = "", **changes) -> None:
    usual = {"real": True, "nodes": 2, "reply_seconds": 20.0, "filtered": bool(where)}
    settings = replace(SETTINGS, **(usual | changes))
    filters = parse_where(where) if where else None
    fleet = new_fleet(settings)
    FedSlim(settings, fleet, Clock(), recorder, Evaluator(), where=filters).start(grid)


def test_of_real_nodes_those_that_fit_take_part_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same devices as of a simulated fleet of which the same may be asked."""
    monkeypatch.setattr(roster_module, "_LATECOMERS_SECONDS", 0.1)
    machines = {device: Machine(16.0 if device % 2 else 4.0, 4) for device in range(DEVICES)}
    recorder, simulated, turns = Memory(), Memory(), Participation(2, "round-robin")
    real_run(recorder, Hosts(machines), "memory_gib >= 8", participation=turns)
    run(simulated, participation=turns, context={"admitted": (1, 3, 5)})
    assert asked(recorder) == asked(simulated)
    assert {device for devices in asked(recorder) for device in devices} == {1, 3, 5}
    filtered = [event.device for event in recorder.events if event.kind == "filtered"]
    assert sorted(filtered) == [0, 2, 4]
    assert [record.available for record in recorder.rounds] == [3] * 4


def test_fewer_real_nodes_than_asked_go_on_and_none_ends_within_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster_module, "_LATECOMERS_SECONDS", 0.1)
    recorder, machine = Memory(), Machine(4.0, 4)
    real_run(recorder, Hosts({2: machine, 4: machine}), participation=Participation(3))
    assert asked(recorder) == [[2, 4]] * 4
    told = [event.cause for event in recorder.events if event.kind == "few-available"]
    assert told == ["2 of 6 devices are available, 3 were to take part"] * 4
    began = time.monotonic()
    with pytest.raises(NobodyAvailableError, match=r"round 1: no device that may be asked came within 2 s"):
        real_run(Memory(), Hosts({2: machine, 4: machine}), "memory_gib >= 8", participation=TWO, reply_seconds=2.0)
    assert time.monotonic() - began < 30.0


def test_a_checkpoint_of_another_selection_does_not_fit() -> None:
    recorder = Memory(stop_after=1)
    with pytest.raises(StopRequestedError):
        run(recorder, participation=TWO)
    fleet = restored(recorder)
    assert misfit(fleet, new_fleet(replace(SETTINGS, participation=TWO)), 1) is None
    assert "selection is" in str(misfit(fleet, new_fleet(), 1))
