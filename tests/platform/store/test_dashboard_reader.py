"""The sums that the dashboard reads, against the rows that they were made from; on SQLite and on PostgreSQL."""

from pathlib import Path

import pytest
from round_records import device_record, round_record

from slimfed.platform.job.job import job_to_dict, load_job
from slimfed.platform.store.dashboard_reader import Insight
from slimfed.platform.store.writer import Store

RUN = "20260101-120000-abc"
PROFILES = ("tx2", "nx", "tx2", "nx")


@pytest.fixture
def run(store: Store) -> str:
    store.create_run(RUN, job_to_dict(load_job(None, ["fleet.devices=4"])), Path("/runs") / RUN)
    store.set_devices(RUN, [(d, profile, 10 + d) for d, profile in enumerate(PROFILES)])
    return RUN


def four(round: int):
    return tuple(
        device_record(d, round, seconds=2.0 + d, status="rejected" if d == 1 else "failed" if d == 3 else "done")
        for d in range(4)
    )


@pytest.fixture
def insight(store: Store, run: str) -> Insight:
    for number in (1, 2, 3):
        store.record_round(run, round_record(number, four(number)))
    return Insight(store.engine)


def test_a_class_is_the_sum_of_its_devices(insight: Insight) -> None:
    rows = [row for row in insight.class_rounds(RUN) if row.round == 3]
    nx, tx2 = rows
    assert (tx2.profile, tx2.devices, tx2.done, tx2.sparsity, tx2.rank) == ("tx2", 2, 2, 0.5, 4.0)
    assert (tx2.reward, tx2.slowest_seconds) == (0.5, 4.0)
    assert tx2.download_seconds + tx2.compute_seconds + tx2.upload_seconds == pytest.approx(3.0)
    # Device 3 never came back: it counts as one that took part, but has no time and no reward.
    assert (nx.profile, nx.devices, nx.done, nx.sparsity, nx.reward, nx.slowest_seconds) == ("nx", 2, 0, 0.0, None, 3.0)


def test_pulls_count_rewarded_assignments_only(insight: Insight) -> None:
    rewarded = [row for d in (0, 2) for row in insight.device_history(RUN, d)]
    (row,) = insight.pulls(RUN)
    assert (row.rank, row.step, row.pulls) == (4, 20, len(rewarded))
    assert row.reward == pytest.approx(sum(each.reward for each in rewarded))
    assert insight.pulls(RUN, "nx") == []


def test_blocks_say_what_the_fleet_has_left(insight: Insight) -> None:
    (block,) = insight.blocks(RUN)
    # Two devices kept 4 of 8 units; the update of the other two was not accepted, they still have all.
    assert (block.round, block.layer, block.kind, block.units, block.kept) == (3, 0, "ffn", 8, 6.0)
    assert list(block.shares) == [255] * 4 + [128] * 4


def test_the_slowest_devices_of_the_last_rounds(insight: Insight) -> None:
    rows = insight.late_devices(RUN, rounds=2, most=2)
    assert [(row.round, row.device) for row in rows] == [(3, 2), (3, 1), (2, 2), (2, 1)]
    assert {row.round_seconds for row in rows} == {10.0}
    assert rows[0].profile == "tx2"


def test_sums_go_with_the_rounds_they_belong_to(store: Store, insight: Insight) -> None:
    store.rewind(RUN, 1)
    assert {row.round for row in insight.class_rounds(RUN)} == {1}
    assert [row.pulls for row in insight.pulls(RUN)] == [2]
    assert {row.round for row in insight.blocks(RUN)} == {1}
    assert len(insight.find_run(RUN).course) == 1


def test_a_course_is_thinned_and_keeps_the_newest(store: Store, run: str) -> None:
    for number in range(1, 71):
        store.record_round(run, round_record(number, ()))
    course = Insight(store.engine).find_run(run).course
    assert len(course) <= 32
    assert course[-1] == pytest.approx(1.2)
    assert course == sorted(course)


def test_events_and_classes_are_counted(insight: Insight) -> None:
    assert [(row.round, row.kind, row.count) for row in insight.event_rounds(RUN)] == [
        (number, "rejected", 1) for number in (1, 2, 3)
    ]
    assert [(row.profile, row.devices, row.examples) for row in insight.class_sizes(RUN)] == [
        ("tx2", 2, 22),
        ("nx", 2, 24),
    ]


def test_what_a_reader_says_of_a_run(store: Store, run: str) -> None:
    store.label(run, tags=["paper", "paper", "table 2"], notes="the good one")
    store.label(run, archived=True)
    found = Insight(store.engine).find_run(run)
    assert (found.tags, found.notes, found.archived) == (["paper", "table 2"], "the good one", True)
    assert Insight(store.engine).runs(archived=False) == []
    assert len(Insight(store.engine).runs(archived=True)) == 1


def test_a_run_leaves_the_queue_once(store: Store) -> None:
    for name in ("first", "second"):
        store.create_run(name, job_to_dict(load_job()), Path("/runs") / name, status="queued")
    insight = Insight(store.engine)
    assert [row.id for row in insight.queued()] == ["first", "second"]
    assert store.claim("first")
    assert not store.claim("first")
    assert store.finish("second", "stopped", "taken out of the queue")
    assert not store.claim("second")
    assert insight.queued() == []
    assert store.enqueue(insight.find_run("second"))
    assert not store.enqueue(insight.find_run("first")), "it is being started"
    assert [row.id for row in insight.queued()] == ["second"]
