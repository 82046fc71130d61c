from pathlib import Path

import pytest
from sample import SampleRun, new_store
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from slimfed.clients.errors import InputError
from slimfed.dashboard.source import Source, engine, explain
from slimfed.platform.store.reader import Reader

SECRET = "postgresql+psycopg://reader:hunter2@127.0.0.1:1/slimfed"


@pytest.fixture
def store(tmp_path):
    with new_store(tmp_path) as opened:
        yield opened


@pytest.fixture
def reader(tmp_path, store):
    return Reader(engine(Source("sqlite", tmp_path).url))


def failure(source):
    """What reading this source raises."""
    with pytest.raises(SQLAlchemyError) as caught:
        Reader(engine(source.url)).runs(1)
    return caught.value


def test_a_store_that_was_never_made_is_missing_and_is_not_made_by_looking(tmp_path):
    source = Source("sqlite", tmp_path / "home")
    assert source.missing
    assert "cannot be read at the moment" in explain(failure(source), source).sentence
    assert not (tmp_path / "home").exists()


def test_the_engine_cannot_write(tmp_path, store):
    with (
        engine(Source("sqlite", tmp_path).url).connect() as connection,
        pytest.raises(OperationalError, match="readonly"),
    ):
        connection.execute(text("DELETE FROM runs"))


def test_a_store_that_was_replaced_is_read_anew(tmp_path, store, reader):
    SampleRun(store, name="old", devices=8)
    assert [run.name for run in reader.runs()] == ["old"]
    store.close()
    for file in tmp_path.glob("store.db*"):
        file.unlink()
    with new_store(tmp_path) as replaced:
        SampleRun(replaced, name="new", devices=8)
        assert [run.name for run in reader.runs()] == ["new"]


def test_a_file_that_is_no_store(tmp_path):
    (tmp_path / "store.db").write_bytes(b"this is no database" * 100)
    source = Source("sqlite", tmp_path)
    problem = explain(failure(source), source)
    assert "is not a slimfed store" in problem.sentence
    assert "SLIMFED_STORE" in problem.remedy


def test_a_store_of_another_version(tmp_path):
    (tmp_path / "store.db").touch()
    source = Source("sqlite", tmp_path)
    assert "slimfed db upgrade" in explain(failure(source), source).remedy


def test_a_server_that_is_away_is_named_without_its_password():
    source = Source(SECRET, Path())
    problem = explain(failure(source), source)
    assert "cannot be read at the moment" in problem.sentence
    assert "127.0.0.1" in problem.sentence
    assert "hunter2" not in problem.sentence + problem.remedy


def test_an_address_that_is_none():
    source = Source("mysql://x", Path())
    assert not source.missing
    with pytest.raises(InputError) as caught:
        _ = source.url
    assert "SLIMFED_STORE" in explain(caught.value, source).remedy


def test_the_pulse_changes_with_rounds_events_and_status_and_with_nothing_else(store, reader):
    run = SampleRun(store, devices=8, mishaps=False).play(1)
    first = reader.pulse(run.id)
    store.heartbeat(run.id)
    assert reader.pulse(run.id) == first
    run.play(1)
    second = reader.pulse(run.id)
    assert second.newest_round == 2
    store.request_stop(run.id)
    third = reader.pulse(run.id)
    run.end("stopped")
    assert len({first, second, third, reader.pulse(run.id)}) == 4
    assert reader.pulse("nothing") is None


def test_events_are_counted_by_kind(store, reader):
    run = SampleRun(store, devices=80).play(6)
    kinds = [event.kind for event in reader.events(run.id, limit=None)]
    assert len(kinds) > 1
    assert reader.event_counts(run.id) == {kind: kinds.count(kind) for kind in kinds}


def test_the_slowest_come_first_and_the_lost_last(store, reader):
    run = SampleRun(store, devices=80, seed=3).play(3)
    while not any(row.status == "dropout" for row in reader.device_rows(run.id)):
        run.play(1)
    rows = reader.slowest_rows(run.id, 80)
    times = [row.download_seconds and row.download_seconds + row.compute_seconds + row.upload_seconds for row in rows]
    known = [time for time in times if time is not None]
    assert times == sorted(known, reverse=True) + [None] * (80 - len(known))
    assert len(known) < 80
    assert {row.round for row in rows} == {run.number}
    assert [row.device for row in reader.slowest_rows(run.id, 5)] == [row.device for row in rows[:5]]
