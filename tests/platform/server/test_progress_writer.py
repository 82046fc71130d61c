"""Progress in the store: one small row, at most once a second, gone with the run's end."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from round_records import device_record, round_record
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from slimfed.clients.telemetry.meter import Amount
from slimfed.platform.job.job import job_to_dict, load_job
from slimfed.platform.server import progress_writer
from slimfed.platform.server.progress_writer import ProgressWriter
from slimfed.platform.store.database import writing
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store
from slimfed.platform.under_way import under_way
from slimfed.strategies.progress import RunProgress

RUN = "run-1"


@pytest.fixture
def reader(store: Store) -> Reader:
    store.create_run(RUN, job_to_dict(load_job(None, ["fleet.devices=2", "training.rounds=4"])), Path("/runs"))
    assert store.mark_running(RUN)
    return Reader(store.engine)


def row(reader: Reader):
    return reader.progress([RUN]).get(RUN)


def said(reader: Reader) -> str:
    return under_way(reader.find_run(RUN), row(reader), row(reader).began_at).describe()


def test_a_run_prepares_trains_evaluates_and_leaves_no_row(store: Store, reader: Reader) -> None:
    assert row(reader).phase == "preparing"
    told = [Amount(0.5)]
    progress = RunProgress(lambda _round, _firsts: told[0])
    writer = ProgressWriter(store, RUN, progress, 4)
    writer.write()
    assert row(reader).phase == "preparing"
    progress.begin(1, 2)
    progress.send([0])
    writer.write()
    assert said(reader) == "round 1 of 4 · training, 0 of 2 devices"
    told[0] = Amount(1.5)
    writer.write()
    found = row(reader)
    assert (found.devices_done, found.devices) == (1, 2)
    assert found.seconds_left is not None
    progress.receive(0, 2)
    progress.enter("evaluating")
    progress.meter.expect(1000)
    progress.meter.evaluate(250)
    writer.write()
    assert said(reader).startswith("round 1 of 4 · evaluating the global model, 250 of 1,000 test texts")
    store.record_round(RUN, round_record(1, (device_record(0, 1), device_record(1, 1))))
    assert (row(reader).round, row(reader).phase, row(reader).devices_done) == (2, "planning", 0)
    writer.write()  # of the round that has been recorded meanwhile
    assert row(reader).round == 2
    assert store.finish(RUN, "done")
    assert row(reader) is None
    progress.enter("recording")
    writer.write()
    assert row(reader) is None, "a run that has ended has no progress"


def test_nothing_is_written_while_nothing_changes(store: Store, reader: Reader, monkeypatch) -> None:
    written = []
    monkeypatch.setattr(store, "write_progress", lambda _run, values: written.append(values))
    progress = RunProgress()
    progress.begin(1, 2)
    writer = ProgressWriter(store, RUN, progress, 4)
    for _ in range(5):
        writer.write()
    assert len(written) == 1


def test_a_fast_run_writes_no_more_often_than_a_slow_one(store: Store, reader: Reader, monkeypatch) -> None:
    monkeypatch.setattr(progress_writer, "EVERY_SECONDS", 0.2)
    written, write = [], store.write_progress
    monkeypatch.setattr(store, "write_progress", lambda *given: (written.append(given), write(*given)))
    progress, began = RunProgress(), time.monotonic()
    with ProgressWriter(store, RUN, progress, 1000):
        for number in range(1, 1001):
            progress.begin(number, 2)
            time.sleep(0.001)
    assert 1 <= len(written) <= (time.monotonic() - began) / 0.2 + 1
    assert store.engine.connect().scalar(text("SELECT count(*) FROM progress")) == 1


def test_a_store_that_fails_costs_the_display_and_not_the_run(store: Store, reader: Reader, monkeypatch) -> None:
    monkeypatch.setattr(progress_writer, "EVERY_SECONDS", 0.02)
    calls = []

    def refuse(*_given: object) -> None:
        calls.append(1)
        raise OperationalError("UPDATE", {}, Exception("disk full"))

    monkeypatch.setattr(store, "write_progress", refuse)
    progress = RunProgress()
    progress.begin(1, 2)
    with ProgressWriter(store, RUN, progress, 4):
        deadline = time.monotonic() + 20
        while len(calls) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(calls) >= 2


@pytest.mark.parametrize("change", ["take_over", "end_without_process", "enqueue"])
def test_a_run_that_changes_hands_begins_anew(store: Store, reader: Reader, change: str) -> None:
    run = reader.find_run(RUN)
    if change == "take_over":
        assert store.take_over(run)
    elif change == "enqueue":
        assert store.enqueue(run)
    else:
        assert store.end_without_process(run, "failed", "gone")
    assert row(reader) is None


def test_a_second_start_of_the_same_process_keeps_its_beginning(store: Store, reader: Reader) -> None:
    before = row(reader)
    assert store.mark_running(RUN)
    assert row(reader) == before
    assert (datetime.now(UTC) - before.began_at).total_seconds() < 60


def test_a_deleted_run_takes_its_progress_along(store: Store, reader: Reader) -> None:
    with writing(store.engine) as connection:
        connection.execute(text("DELETE FROM runs"))
    assert row(reader) is None
