"""Rounds that do not wait for all, on real parts: the built-in model and text and the real ClientApp."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from rounds import Clock, Evaluator, Memory, assert_same_checkpoint, small_settings, small_task

from slimfed.clients.adapters.training.adapted import head_state
from slimfed.clients.node.runtime import open_runtime
from slimfed.clients.spec import MessageSpec, PruningSpec
from slimfed.clients.update import Report
from slimfed.strategies.aggregation import initial_adapter
from slimfed.strategies.attempt import QuorumError
from slimfed.strategies.bandits import BanditSpec
from slimfed.strategies.closing.times import closing_seconds
from slimfed.strategies.late_updates.staleness import own_part, staleness_weight
from slimfed.strategies.local_grid import LocalGrid
from slimfed.strategies.protocols import Completion, RoundRecord
from slimfed.strategies.restored_state import misfit
from slimfed.strategies.selection import Participation, make_selector
from slimfed.strategies.server.spec import ServerSpec
from slimfed.strategies.server_state import Fleet
from slimfed.strategies.settings import StrategySettings
from slimfed.strategies.strategy import FedSlim

DEVICES = 6
TASK = small_task(DEVICES, local_steps=2)
SETTINGS = small_settings(TASK, every=4, own=1)
INT8 = TASK.model_copy(update={"messages": MessageSpec(precision="int8")})
DEADLINE = ServerSpec(mode="deadline", close_seconds=2.5)
BUFFERED = ServerSpec(mode="buffered", buffer=2)


@dataclass
class Times:
    """A clock by which every device takes as long as it is given here; some drop out."""

    seconds: Mapping[int, float]
    dropped: Sequence[int] = ()

    def completion(self, report: Report, bytes_down: int, bytes_up: int) -> Completion:
        assert bytes_down > 0
        assert bytes_up > 0
        return Completion(0.0, self.seconds[report.device], 0.0, dropped=report.device in self.dropped)


class Windows:
    """Devices are available by rounds' openings: all at second 0, later only those of ``later``."""

    def __init__(self, later: Sequence[int] = ()) -> None:
        self.later = later

    def at(self, seconds: float) -> np.ndarray:
        return np.arange(DEVICES) if seconds == 0 else np.array(self.later, dtype=np.int64)

    def next_opening(self, seconds: float, devices: np.ndarray) -> float | None:
        return None


def new_fleet(settings: StrategySettings) -> Fleet:
    runtime = open_runtime(TASK)
    base, blueprint = runtime.base, runtime.blueprint
    shapes = {name: tuple(base.model.get_submodule(name).weight.shape) for name in blueprint.modules}
    adapter = initial_adapter(shapes, 4, head_state(base.model, base.head), 5)
    selector = make_selector(settings.participation, 5, DEVICES)
    return Fleet.new(blueprint, adapter, DEVICES, settings.bandit, 5, selector=selector)


def run(
    server: ServerSpec, *, fleet: Fleet | None = None, clock=None, stop=None, context=None, rounds: int = 4, **changes
) -> tuple[Fleet, Memory]:
    task = changes.pop("task", TASK)
    task = task.model_copy(update={"training": task.training.model_copy(update={"rounds": rounds})})
    settings = replace(SETTINGS, server=server, task=task, **changes)
    fleet, recorder = fleet or new_fleet(settings), stop or Memory()
    strategy = FedSlim(settings, fleet, clock or Clock(), recorder, Evaluator(), **(context or {}))
    strategy.start(LocalGrid(settings.nodes))
    return fleet, recorder


def restored(recorder: Memory, after: int) -> Fleet:
    tensors, state = recorder.checkpoints[after - 1]
    return Fleet.restore(open_runtime(TASK).blueprint, dict(tensors), json.loads(state))


def asked(record: RoundRecord) -> set[int]:
    return {each.assignment.device for each in record.devices if each.assignment.round == record.round}


def counted(record: RoundRecord) -> dict[int, int]:
    """By device, how many rounds late the updates are that count in a round."""
    return {
        each.assignment.device: record.round - each.assignment.round
        for each in record.devices
        if each.status == "done" and each.report is not None
    }


def plain(record: RoundRecord) -> RoundRecord:
    """A record without what depends on the machine, or says that rounds need not wait."""
    devices = tuple(
        replace(each, report=each.report and replace(each.report, seconds=0.0, measured_memory_bytes=0))
        for each in record.devices
    )
    return replace(record, devices=devices, wall_seconds=0.0, phases={}, nodes={}, in_flight=None)


@pytest.mark.parametrize("server", [DEADLINE, BUFFERED], ids=["deadline", "buffered"])
@pytest.mark.parametrize("case", ["fp32", "int8-failing", "shared-part"])
def test_to_wait_for_all_is_sync_to_the_bit(server: ServerSpec, case: str) -> None:
    changes = {
        "fp32": {},
        "int8-failing": {"task": INT8, "clock": Clock(out_of_memory=(1,), dropped=(4,))},
        "shared-part": {
            "task": TASK.model_copy(update={"pruning": PruningSpec(structure="shared", schedule="cubic")}),
            "participation": Participation(4, "round-robin"),
        },
    }[case]
    (_, sync) = run(ServerSpec(), rounds=3, **changes)
    patient = server.model_copy(update={"close_seconds": 100.0, "buffer": 4 if case == "shared-part" else DEVICES})
    (_, other) = run(patient, rounds=3, **changes)
    for one, two in zip(sync.checkpoints, other.checkpoints, strict=True):
        assert_same_checkpoint(one, two)
    assert repr([plain(each) for each in sync.rounds]) == repr([plain(each) for each in other.rounds])
    assert sync.events == other.events
    assert [each.in_flight for each in sync.rounds] == [None] * 3
    assert [each.in_flight for each in other.rounds] == [0] * 3


def simulated(server: ServerSpec, seconds: Sequence[float], rounds: int) -> Iterator[tuple[float, dict[int, int], int]]:
    """The same by its definition, in absolute time: clock, rounds late by device that counts, and number in flight."""
    clock, at_work = 0.0, {}
    for number in range(1, rounds + 1):
        for device in set(range(len(seconds))) - at_work.keys():
            at_work[device] = (clock + seconds[device], number)
        times = sorted(time for time, _ in at_work.values())
        if server.mode == "buffered":
            clock = times[: server.buffer][-1]
        else:
            in_time = [time for time in times if time <= clock + (server.close_seconds or 0.0)]
            waits = len(in_time) < len(times) and in_time
            clock = clock + (server.close_seconds or 0.0) if waits else (in_time or times[:1])[-1]
        arrived = {device: number - begun for device, (time, begun) in at_work.items() if time <= clock}
        at_work = {device: work for device, work in at_work.items() if device not in arrived}
        yield clock, arrived, len(at_work)


@pytest.mark.parametrize(
    "server",
    [DEADLINE, BUFFERED, ServerSpec(mode="deadline", close_seconds=0.25), ServerSpec(mode="buffered", buffer=4)],
    ids=["deadline", "buffered", "first-of-all", "most"],
)
def test_the_clock_is_that_of_the_events(server: ServerSpec) -> None:
    seconds = [1.0, 1.75, 2.25, 3.5, 4.0, 9.0]  # exact in binary, so that sums are, too
    fleet, recorder = run(server, clock=Times(dict(enumerate(seconds))), rounds=7)
    clock, in_flight = 0.0, 0
    for record, (time, late, left) in zip(recorder.rounds, simulated(server, seconds, 7), strict=True):
        assert record.virtual_seconds > 0
        clock += record.virtual_seconds
        assert (clock, counted(record), record.in_flight) == (time, late, left)
        # nothing is lost: what was at work has arrived or is in flight
        assert in_flight + len(asked(record)) == len(counted(record)) + left
        in_flight = left
    assert fleet.virtual_clock == clock
    assert any(max(counted(record).values()) > 0 for record in recorder.rounds)
    told = [each.assignment for record in recorder.rounds for each in record.devices if each.reward is not None]
    assert len({(each.device, each.round) for each in told}) == len(told), "an agent is told once, on arrival"
    assert len(told) == sum(len(counted(record)) for record in recorder.rounds)


@pytest.mark.parametrize("server", [DEADLINE, BUFFERED], ids=["deadline", "buffered"])
def test_a_run_resumed_with_updates_in_flight_is_the_same_to_the_bit(server: ServerSpec) -> None:
    changes = {"task": INT8, "rounds": 5, "clock": Clock(dropped=(1,)), "participation": Participation(5, "oort")}
    _, whole = run(server, **changes)
    for after in (1, 3):
        fleet = restored(whole, after)
        assert fleet.in_flight
        assert misfit(fleet, new_fleet(replace(SETTINGS, participation=Participation(5, "oort"))), after) is None
        _, rest = run(server, fleet=fleet, **changes)
        for one, two in zip(whole.checkpoints[after:], rest.checkpoints, strict=True):
            assert_same_checkpoint(one, two)
        assert repr([plain(each) for each in whole.rounds[after:]]) == repr([plain(each) for each in rest.rounds])


@pytest.mark.parametrize(("staleness", "weight"), [("polynomial", 3**-0.5), ("constant", 1.0)])
def test_a_late_update_adds_its_change_where_its_device_owned_something(staleness, weight: float) -> None:
    """Device 1 alone comes in round 3, two rounds late: after device 0 in each round before."""
    server = ServerSpec(mode="buffered", buffer=1, staleness=staleness)
    clock = Times({0: 1.0, 1: 2.5} | dict.fromkeys(range(2, DEVICES), 100.0))
    _, recorder = run(server, clock=clock, rounds=3)
    assert [counted(record) for record in recorder.rounds] == [{0: 0}, {0: 0}, {1: 2}]
    before, after = restored(recorder, 2), restored(recorder, 3)
    late = next(each for each in before.in_flight if each.device == 1)
    assert late.change.vector.any()
    wanted = own_part(before.adapter, late.report).vector + np.float32(weight) * late.change.vector
    np.testing.assert_array_equal(own_part(after.adapter, late.report).vector, wanted)
    moved = np.count_nonzero(after.adapter.vector != before.adapter.vector)
    assert 0 < moved <= late.change.vector.size
    # what the device brings settles when it comes
    assert before.devices[1].structure == before.blueprint.dense()
    assert after.devices[1].structure == late.report.structure
    assert before.devices[1].pace is None
    assert after.devices[1].pace is not None


def test_an_update_that_is_too_late_is_dropped_with_an_event_and_its_device_is_asked_again() -> None:
    server = ServerSpec(mode="buffered", buffer=5, max_staleness=1)
    clock = Times(dict.fromkeys(range(5), 1.0) | {5: 3.0})
    fleet, recorder = run(server, clock=clock, rounds=4)
    assert [counted(record).get(5) for record in recorder.rounds] == [None] * 4
    assert [5 in asked(record) for record in recorder.rounds] == [True, False, False, True]
    (event,) = recorder.rounds[2].events
    assert (event.kind, event.device, event.round) == ("stale", 5, 3)
    (record,) = (each for each in recorder.rounds[2].devices if each.assignment.device == 5)
    assert (record.status, record.report, record.bytes_down) == ("stale", None, 0)
    assert record.bytes_up > 0
    assert [each.device for each in fleet.in_flight] == [5]


def test_a_round_may_ask_nobody_while_others_are_at_work() -> None:
    """After the first round nobody is available, so the rounds are those of the updates in flight, then of nobody."""
    server = ServerSpec(mode="buffered", buffer=2)
    _, recorder = run(server, context={"availability": Windows()}, rounds=3)
    assert [len(asked(record)) for record in recorder.rounds] == [6, 0, 0]
    assert [counted(record) for record in recorder.rounds] == [{0: 0, 1: 0}, {2: 1, 3: 1}, {4: 2, 5: 2}]
    assert [record.virtual_seconds for record in recorder.rounds] == [2.0, 2.0, 2.0]


def test_bytes_and_work_of_a_late_device_count_once() -> None:
    _, recorder = run(BUFFERED, rounds=4)
    down = {(e.assignment.device, e.assignment.round): 0 for r in recorder.rounds for e in r.devices}
    up = dict(down)
    for record in recorder.rounds:
        for each in record.devices:
            work = each.assignment.device, each.assignment.round
            down[work] += each.bytes_down > 0
            up[work] += each.bytes_up > 0
    arrived = {(device, r.round - late) for r in recorder.rounds for device, late in counted(r).items()}
    assert set(down.values()) == {1}
    assert {work for work, times in up.items() if times} == arrived
    assert set(up.values()) == {0, 1}


def test_updates_in_flight_count_for_the_quorum() -> None:
    clock = Times({0: 1.0} | dict.fromkeys(range(1, DEVICES), 50.0))
    server = ServerSpec(mode="buffered", buffer=1)
    fleet, first = run(server, clock=clock, rounds=1)
    assert len(fleet.in_flight) == 5
    _, recorder = run(server, fleet=fleet, clock=replace(clock, dropped=(0,)), rounds=2)
    assert [each.status for each in recorder.rounds[0].devices if each.assignment.device == 0] == ["dropout"]
    assert recorder.rounds[0].virtual_seconds == 49.0
    with pytest.raises(QuorumError, match="0 of 6 updates were usable"):
        run(server, clock=replace(clock, dropped=range(DEVICES)), rounds=1)
    assert first.rounds[0].in_flight == 5


def test_without_close_seconds_the_observed_speeds_or_the_agent_give_the_deadline() -> None:
    seconds = {0: 1.0, 1: 1.75, 2: 2.25, 3: 3.5, 4: 4.0, 5: 9.0}
    server = ServerSpec(mode="deadline", close_share=0.6)
    fixed = {"bandit": BanditSpec(name="fixed", ranks=(4,), pacing="off"), "target_sparsity": 0.0}
    _, recorder = run(server, clock=Times(seconds), rounds=3, **fixed)
    # Round 1 knows no speed and waits for all; 0.6 of the six are expected after 3.5 s.
    assert [record.virtual_seconds for record in recorder.rounds] == pytest.approx([9.0, 3.5, 2.25], rel=1e-6)
    assert set(counted(recorder.rounds[1])) == {0, 1, 2, 3}
    # Round 3 asks four devices, 0.6 of which are expected after 2.25 s; device 4 comes 0.5 s after its opening.
    assert counted(recorder.rounds[2]) == {0: 0, 1: 0, 2: 0, 4: 1}
    fleet, recorder = run(server, clock=Times(seconds), rounds=2, bandit=BanditSpec(name="pooled", ranks=(2, 4)))
    assert recorder.rounds[0].virtual_seconds == 9.0
    assert fleet.agent.deadline is not None
    assert recorder.rounds[1].virtual_seconds <= fleet.agent.deadline


@pytest.mark.parametrize(
    ("server", "arrivals", "deadline", "seconds"),
    [
        (ServerSpec(mode="deadline"), [3.0, 1.0, 2.0], 2.5, 2.5),
        (ServerSpec(mode="deadline"), [3.0, 1.0, 2.0], 2.0, 2.0),
        (ServerSpec(mode="deadline"), [3.0, 1.0, 2.0], 9.0, 3.0),
        (ServerSpec(mode="deadline"), [3.0, 1.0, 2.0], 0.5, 1.0),
        (ServerSpec(mode="deadline"), [3.0], float("inf"), 3.0),
        (ServerSpec(mode="buffered", buffer=2), [3.0, 1.0, 2.0], 0.5, 2.0),
        (ServerSpec(mode="buffered", buffer=9), [3.0, 1.0, 2.0], 0.5, 3.0),
    ],
)
def test_when_a_round_closes(server: ServerSpec, arrivals: list[float], deadline: float, seconds: float) -> None:
    assert closing_seconds(server, arrivals, deadline) == seconds


def test_weights_by_staleness() -> None:
    assert [staleness_weight("polynomial", rounds) for rounds in (0, 1, 3, 8)] == [1.0, 2**-0.5, 0.5, 1 / 3]
    assert {staleness_weight("constant", rounds) for rounds in (0, 1, 100)} == {1.0}


class Weather:
    """A clock by which times and dropouts are drawn anew for every round and device."""

    def completion(self, report: Report, bytes_down: int, bytes_up: int) -> Completion:
        draw = np.random.default_rng([report.round, report.device])
        return Completion(0.0, float(draw.lognormal(0.0, 1.0)), 0.0, dropped=bool(draw.random() < 0.2))


@pytest.mark.parametrize("server", [DEADLINE, BUFFERED], ids=["deadline", "buffered"])
def test_what_is_asked_arrives_fails_is_dropped_or_stays_in_flight(server: ServerSpec) -> None:
    server = server.model_copy(update={"close_seconds": 0.6, "max_staleness": 1})
    fleet, recorder = run(server, clock=Weather(), rounds=8, participation=Participation(5), quorum=0.2)
    at_work: set[int] = set()
    seen: dict[str, int] = {}
    for record in recorder.rounds:
        assert not at_work & asked(record), "a device at work is not asked"
        assert len(at_work | asked(record)) == 5
        ended = {each.assignment.device: each.status for each in record.devices if each.status != "in-flight"}
        assert ended.keys() <= at_work | asked(record)
        at_work = (at_work | asked(record)) - ended.keys()
        assert record.in_flight == len(at_work)
        for status in ended.values():
            seen[status] = seen.get(status, 0) + 1
        assert {status for device, status in ended.items() if device not in asked(record)} <= {"done", "stale"}
    assert seen.keys() == {"done", "dropout", "stale"}
    assert at_work == {each.device for each in fleet.in_flight}
    assert sum(seen.values()) + len(at_work) == sum(len(asked(record)) for record in recorder.rounds)
