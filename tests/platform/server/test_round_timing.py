"""Every phase of a round is counted once, and the arithmetic is what the devices' own shapes ask for."""

import time
from dataclasses import replace

import pytest
from flwr.app import MetricRecord, RecordDict
from house import tiny_job
from round_records import device_record, report, round_record

from slimfed.clients.clientapp import serve
from slimfed.clients.messages.records import PHASES, decode_phases, encode_orders, encode_phases, time_fault
from slimfed.clients.node.runtime import open_runtime
from slimfed.clients.telemetry.stopwatch import Stopwatch
from slimfed.platform.server.assembly import new_fleet
from slimfed.platform.server.round_timing import keep, read
from slimfed.strategies.dispatch import orders
from slimfed.strategies.planning import plan_round


def test_phases_add_up_to_the_whole_however_they_nest() -> None:
    watch, began = Stopwatch(), time.perf_counter()
    with watch.phase("steps"):
        for _ in range(3):
            with watch.phase("importance"), watch.phase("inner"):
                sum(range(10_000))
        sum(range(100_000))
    assert watch.seconds.keys() == {"steps", "importance", "inner"}
    assert all(seconds >= 0 for seconds in watch.seconds.values())
    assert sum(watch.seconds.values()) <= time.perf_counter() - began


def test_a_phase_that_fails_is_counted_all_the_same() -> None:
    watch = Stopwatch()
    with pytest.raises(ValueError, match="no"), watch.phase("outer"), watch.phase("bad"):
        raise ValueError("no")
    assert set(watch.seconds) == {"outer", "bad"}


def test_phases_travel_and_nonsense_does_not() -> None:
    content = RecordDict()
    encode_phases(content, {"steps": 1.5, "read": 0.25})
    assert decode_phases(content, 2.0) == {"steps": 1.5, "read": 0.25}
    assert time_fault(content, 2.0) is None
    assert decode_phases(RecordDict(), 2.0) == {}
    content["phases"] = MetricRecord({"steps": -1.0, "build": float("nan"), "read": 1e300, "open": 1.0})
    assert decode_phases(content, 2.0) == {"open": 1.0}, "no phase lasts longer than the node took to reply"
    assert time_fault(content, 2.0) == "phases.steps is -1.0 s, the reply came after 2.0 s"
    content["phases"] = MetricRecord({f"phase-{n}": 1.0 for n in range(1000)})
    assert decode_phases(content, 2.0) == {}
    assert time_fault(content, 2.0) == "phases.phase-0 is no time that a node reports"


def test_every_phase_of_a_node_is_known() -> None:
    """Served by the real ClientApp, with both engines."""
    for engine in ("cohort", "sequential"):
        job = tiny_job(f"engine.name={engine}")
        fleet = new_fleet(open_runtime(job.task_spec()), job)
        settings = job.strategy_settings(job.task_spec(), 1)
        plans = plan_round(fleet, settings, 1, None)
        reply = serve(encode_orders(orders(plans, fleet, job.task_spec(), fleet.adapter)))
        assert reply["phases"].keys() <= PHASES
        assert len(reply["phases"]) > 3
        assert time_fault(reply, 600.0) is None


def test_the_first_round_warms_up_and_medians_tell_the_rest(tmp_path) -> None:
    path = tmp_path / "logs" / "profile.jsonl"
    assert read(path) is None
    devices = (device_record(0), replace(device_record(1), report=None))
    for number, steps in ((1, 100.0), (2, 4.0), (3, 1.0), (4, 2.0)):
        phases = {"server": {"wait": steps}, "nodes": {"steps": steps, "importance": 0.0, "read": 9.0}}
        keep(path, round_record(number, devices, phases=phases, wall_seconds=steps), {"checkpoint": 0.2, "store": 0.3})
    found = read(path)
    assert found is not None
    assert (found.rounds, found.wall_seconds) == (3, 2.5)
    assert found.server == {"wait": 2.0, "checkpoint": 0.2, "store": 0.3}
    assert found.nodes == {"steps": 2.0, "importance": 0.0, "read": 9.0}
    assert found.flops == report(0).workload.flops
    assert found.rate == pytest.approx(found.flops / 2.0)
    assert found.as_dict(peak=found.rate * 4)["share_of_peak"] == pytest.approx(0.25)
