"""Every number that a node reports, at extreme values: through the decoder, a round of the strategy, and the store.

The replies are those of real training, with one number changed. Whatever it is, the round ends, is stored, and has at
most one event on that device, which names the field; without an event the number is within its range.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

import pytest
from flwr.app import Message, MetricRecord, RecordDict
from house import DEVICES, House, tiny_job
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rounds import Evaluator, Memory

from slimfed.clients.clientapp import serve
from slimfed.clients.messages.numbers import REPORT, Number
from slimfed.clients.node.runtime import open_runtime
from slimfed.clients.update import Evaluation as Measured
from slimfed.clients.update import Report, Workload
from slimfed.platform.fleet.clock import VirtualClock
from slimfed.platform.fleet.profiles import load_fleet
from slimfed.platform.server.assembly import new_fleet
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store
from slimfed.strategies.local_grid import LocalGrid
from slimfed.strategies.protocols import RoundRecord
from slimfed.strategies.strategy import FedSlim

LIAR = 2
JOB = tiny_job("training.rounds=1", "evaluation.devices=4", "deadlines.retries=0")
RUNTIME = open_runtime(JOB.task_spec())
KEYS = {
    name: name.removeprefix("workload.").replace("evaluation.", "test_")
    for name, number in REPORT.items()
    if number.owner != "server" and name not in ("device", "evaluation.generated")
}
EXTREMES = [2**31 - 1, 2**31, 2**53, 2**62, 2**63 - 1, -1, -(2**63), 0, 1]
EXTREMES += [1e300, -1e300, 1.7e308, math.inf, -math.inf, math.nan, 5.0, 0.5, -0.0, 1e-320, 1e18]  # type: ignore[list-item]


class Replaying(LocalGrid):
    """One node, whose honest reply is kept: every further round is answered with it, after ``tamper`` changed it."""

    honest: RecordDict | None = None

    def __init__(self) -> None:
        super().__init__(1)
        self.tamper: Any = lambda _content: None

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = []
        for message_id in list(message_ids):
            message, _ = self._sent.pop(message_id)
            if Replaying.honest is None:
                Replaying.honest = serve(message.content)
                del Replaying.honest["phases"]  # replayed within less time than the work took
            content = RecordDict(dict(Replaying.honest))
            self.tamper(content)
            replies.append(Message(content, reply_to=message))
        return replies


class Storing(Memory):
    """Writes a finished round into the store, without a checkpoint; a second one of the same run replaces it."""

    def __init__(self, store: Store, run: str) -> None:
        super().__init__()
        self.store, self.run = store, run

    def record(self, record: RoundRecord, tensors: dict, state: dict) -> None:
        json.dumps(state, allow_nan=False)
        self.store.record_round(self.run, record)


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storing]:
    house = House(tmp_path_factory.mktemp("home"), JOB)
    run = house.new_run()
    with Store.open(house.url, house.home) as store:
        yield Storing(store, run)


def played(recorder: Storing, tamper: Any) -> tuple[list[Any], list[Any], Any, Any]:
    """One round with changed replies: events, rows of devices, the row of the round, and that of the run."""
    grid = Replaying()
    grid.tamper = tamper
    clock = VirtualClock(load_fleet(JOB.fleet, JOB.seed), JOB.seed)
    FedSlim(JOB.strategy_settings(RUNTIME.task, 1), new_fleet(RUNTIME, JOB), clock, recorder, Evaluator()).start(grid)
    reader, run = Reader(recorder.store.engine), recorder.run
    [row] = reader.rounds(run)
    return list(reader.events(run)), list(reader.device_rows(run, 1)), row, reader.find_run(run)


def with_metric(key: str, value: object) -> Any:
    def tamper(content: RecordDict) -> None:
        old: Any = content[f"metrics-{LIAR}"]
        content[f"metrics-{LIAR}"] = MetricRecord({**old, key: value})  # type: ignore[dict-item]

    return tamper


def test_every_number_of_a_report_has_a_type_a_range_and_an_owner() -> None:
    """Add a field to a report, and this asks for its range."""
    found = {f.name for f in fields(Report) if f.name not in ("structure", "workload", "evaluation", "memory")}
    measured = {f.name for f in fields(Measured)} - {"samples"}  # texts of the server, never in a message
    found |= {f"workload.{f.name}" for f in fields(Workload)} | {f"evaluation.{name}" for name in measured}
    assert found == REPORT.keys()
    assert all(number.low < number.high < math.inf for number in REPORT.values())


@settings(max_examples=60)
@given(st.sampled_from(sorted(KEYS)), st.sampled_from(EXTREMES) | st.integers(-(2**63), 2**63 - 1) | st.floats())
@example("measured_memory_bytes", 2**63 - 1)
@example("workload.flops", 1e300)
@example("workload.peak_memory_bytes", 1e300)
@example("evaluation.accuracy", 5.0)
@example("loss_after", 1e308)
@example("examples", 2**29 - 1)
def test_no_number_ends_a_run_and_each_is_in_range_or_one_event(recorder: Storing, name: str, value: Any) -> None:
    events, devices, round_row, run_row = played(recorder, with_metric(KEYS[name], value))
    assert len(devices) == DEVICES
    number: Number = REPORT[name]
    about = [event for event in events if event.kind not in ("small-memory", "weight-capped")]
    states = {row.device: row.status for row in devices}
    assert {states[device] for device in range(DEVICES) if device != LIAR} == {"done"}
    if number.owner == "update_checks" and type(value) is number.kind and number.low <= value <= number.high:
        assert states[LIAR] in ("done", "out-of-memory")
    if states[LIAR] in ("rejected", "failed"):
        [event] = about
        assert event.device == LIAR
        assert name.removeprefix("workload.").split(".")[-1] in event.cause
        assert len(event.cause) < 300
    for row in (*devices, round_row, run_row):
        told = [value for value in row._asdict().values() if isinstance(value, int | float)]
        assert all(math.isfinite(value) and abs(value) <= 1e30 for value in told)


@pytest.mark.parametrize("seconds", [1e300, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("record", ["node", "phases"])
def test_times_that_cannot_be_are_one_event_with_the_node(recorder: Storing, record: str, seconds: float) -> None:
    name = "seconds" if record == "node" else "steps"

    def tamper(content: RecordDict) -> None:
        content[record] = MetricRecord({name: seconds})

    events, devices, _, _ = played(recorder, tamper)
    [event] = [event for event in events if event.kind == "node-times"]
    assert event.cause.startswith(f"node 1: {record}.{name} is ")
    assert {row.status for row in devices} == {"done"}
