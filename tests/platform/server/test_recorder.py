from pathlib import Path

import numpy as np
import pytest
from round_records import device_record, round_record

from slimfed.platform.job.job import job_to_dict, load_job
from slimfed.platform.server import checkpoint
from slimfed.platform.server.recorder import StoreRecorder
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store
from slimfed.strategies.protocols import Event, Recorder

TENSORS = {"a": np.ones(3, np.float32)}


class Watch:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def recorder(store: Store, tmp_path: Path, watch: Watch) -> StoreRecorder:
    store.create_run("run-1", job_to_dict(load_job(None, ["fleet.devices=2"])), tmp_path)
    store.mark_running("run-1")
    return StoreRecorder(store, "run-1", tmp_path / "checkpoints", now=watch)


def rounds(number: int):
    return round_record(number, (device_record(0, number), device_record(1, number)))


def test_rounds_and_checkpoints_are_remembered_together(recorder: StoreRecorder, store: Store, tmp_path: Path) -> None:
    kept: Recorder = recorder
    for number in (1, 2, 3):
        kept.record(rounds(number), TENSORS, {"round": number})
    reader = Reader(store.engine)
    rows = reader.checkpoints("run-1")
    assert [row.round for row in rows] == [3, 2]
    assert rows[0].digest == checkpoint.describe(Path(rows[0].path)).digest
    assert reader.find_run("run-1").rounds_done == 3
    newest = checkpoint.newest(tmp_path / "checkpoints", at_most=3)
    assert newest is not None
    assert checkpoint.load(newest)[1] == {"round": 3}


def test_a_crash_between_checkpoint_and_store_costs_one_round(
    recorder: StoreRecorder, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.record(rounds(1), TENSORS, {"round": 1})
    with monkeypatch.context() as patch:
        patch.setattr(Store, "record_round", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("gone")))
        with pytest.raises(ConnectionError):
            recorder.record(rounds(2), TENSORS, {"round": 2})
    done = Reader(store.engine).find_run("run-1").rounds_done
    newest = checkpoint.newest(tmp_path / "checkpoints", at_most=done)
    assert newest is not None
    assert checkpoint.load(newest)[1] == {"round": 1}
    recorder.record(rounds(2), TENSORS, {"round": 2})
    assert [row.round for row in Reader(store.engine).checkpoints("run-1")] == [2, 1]


def test_events_are_written_at_once(recorder: StoreRecorder, store: Store) -> None:
    recorder.event(Event(1, "quorum-missed", "1 of 2", "wait"))
    assert [row.kind for row in Reader(store.engine).events("run-1")] == ["quorum-missed"]


def test_the_store_is_asked_at_most_five_times_a_second(
    recorder: StoreRecorder, store: Store, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(Store, "stop_requested", lambda self, run: asked.append(run) or False)
    for step in range(100):
        watch.now = step / 100
        recorder.stop_requested()
    assert 5 <= len(asked) <= 6


def test_a_stop_is_heard_and_remembered(recorder: StoreRecorder, store: Store, watch: Watch) -> None:
    assert not recorder.stop_requested()
    store.request_stop("run-1")
    assert not recorder.stop_requested()
    watch.now = 0.2
    assert recorder.stop_requested()
    assert recorder.stop_requested()


def test_asking_shows_that_the_run_is_alive(recorder: StoreRecorder, store: Store, watch: Watch) -> None:
    before = Reader(store.engine).find_run("run-1").heartbeat_at
    watch.now = 10.0
    recorder.stop_requested()
    assert Reader(store.engine).find_run("run-1").heartbeat_at > before
