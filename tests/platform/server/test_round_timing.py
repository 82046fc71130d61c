"""Every phase of a round is counted once, and the arithmetic is what the devices' own shapes ask for."""

import time
from dataclasses import replace

import pytest
from flwr.app import MetricRecord, RecordDict
from round_records import device_record, report, round_record

from slimfed.clients.messages.records import decode_phases, encode_phases
from slimfed.clients.stopwatch import Stopwatch
from slimfed.platform.server.round_timing import keep, read


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
    assert decode_phases(content) == {"steps": 1.5, "read": 0.25}
    assert decode_phases(RecordDict()) == {}
    content["phases"] = MetricRecord({"steps": -1.0, "build": float("nan"), "read": float("inf"), "ok": 1.0})
    assert decode_phases(content) == {"ok": 1.0}
    content["phases"] = MetricRecord({f"phase-{n}": 1.0 for n in range(1000)})
    assert decode_phases(content) == {}


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
