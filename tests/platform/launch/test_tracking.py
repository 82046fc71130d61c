"""Trackers in processes of their own: a live run, one that fails, and one that hangs."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import pytest
from round_records import device_record, round_record

from slimfed.platform.home import run_folder
from slimfed.platform.job.job import job_to_dict, job_to_toml, load_job
from slimfed.platform.launch import tracking as starting
from slimfed.platform.launch import tracking_process
from slimfed.platform.launch.tracking import tracking
from slimfed.platform.launch.tracking_process import Follower, without_secrets
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store
from slimfed.platform.trackers import TRACKERS, Destination, Sample, TrackedRun, Tracker

RUN = "20260101-120000-abc"


@pytest.fixture
def store(tmp_path: Path):
    with Store.open("sqlite", tmp_path) as opened:
        yield opened


def created(store: Store, tmp_path: Path, to: Sequence[str]) -> None:
    job = load_job(None, ["fleet.devices=2", f"tracking.to={json.dumps(list(to))}"])
    folder = run_folder(tmp_path, RUN)
    folder.path.mkdir()
    folder.job.write_text(job_to_toml(job), encoding="utf-8")
    store.create_run(RUN, job_to_dict(job), folder.path)
    store.set_devices(RUN, [(0, "tx2", 10), (1, "nx", 11)])
    store.mark_running(RUN)


def record(store: Store, number: int) -> None:
    store.record_round(RUN, round_record(number, (device_record(0, number), device_record(1, number)), events=()))


def failures(store: Store) -> list[str]:
    return [event.cause for event in Reader(store.engine).events(RUN) if event.kind == "not-tracked"]


def steps(folder: Path) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return [event.step for event in events.Scalars("accuracy")] if "accuracy" in events.Tags()["scalars"] else []


def test_figures_are_there_while_the_run_goes_on_and_a_bad_server_harms_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorBoard follows; MLflow's server does not answer, and its password stays out of the store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hidden-word@127.0.0.1:9/")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    created(store, tmp_path, ["tensorboard", "mlflow"])
    board = tmp_path / "tracking" / "tensorboard" / RUN
    with tracking(store, RUN):
        record(store, 1)
        deadline = time.monotonic() + 60
        while not (board.is_dir() and steps(board) == [1]) or not failures(store):
            assert time.monotonic() < deadline, (
                run_folder(tmp_path, RUN).logs / "tracking-tensorboard.log"
            ).read_text()
            time.sleep(0.2)
        record(store, 2)
        store.finish(RUN, "done")
    assert steps(board) == [1, 2]
    told = failures(store)
    assert len(told) == 1
    assert told[0].startswith("tracking to mlflow: MlflowException")
    assert b"hidden-word" not in (tmp_path / "store.db").read_bytes()
    assert Reader(store.engine).find_run(RUN).status == "done"


def test_a_process_that_does_not_end_is_killed(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server accepts the connection and never answers."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        monkeypatch.setattr(starting, "END_SECONDS", 1.0)
        created(store, tmp_path, ["mlflow"])
        began = time.monotonic()
        with tracking(store, RUN):
            store.finish(RUN, "done")
        assert time.monotonic() - began < 10
    assert failures(store) == ["tracking to mlflow: did not take the end of the run within 1 s"]


class Flaky(Tracker):
    """Fails while ``broken``."""

    module, install = "json", "nothing"
    broken = False
    told: list[int] = []  # noqa: RUF012
    place = "here"

    def begin(self, run: TrackedRun, where: Destination) -> int:
        return max(self.told, default=0)

    def tell(self, round: int, samples: Sequence[Sample]) -> None:
        if Flaky.broken:
            raise ConnectionError("refused for token-12345")
        self.told.append(round)

    def end(self, status: str) -> None:
        return


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> type[Flaky]:
    list(TRACKERS)
    monkeypatch.setitem(TRACKERS._usable, "flaky", Flaky)  # type: ignore[misc]
    monkeypatch.setattr(Flaky, "told", [])
    return Flaky


def test_an_outage_is_one_event_and_is_caught_up(store: Store, tmp_path: Path, flaky: type[Flaky]) -> None:
    created(store, tmp_path, ["flaky"])
    clock = [0.0]
    follower = Follower(store, RUN, "flaky", {"FLAKY_API_KEY": "token-12345"}, now=lambda: clock[0])
    record(store, 1)
    assert follower.step()
    flaky.broken = True
    record(store, 2)
    assert not follower.step()
    flaky.broken = False
    assert not follower.step()  # too soon
    flaky.broken, clock[0] = True, 31.0
    assert not follower.step()
    flaky.broken, clock[0] = False, 62.0
    assert follower.step()
    assert follower.finish()
    assert flaky.told == [1, 2]
    assert failures(store) == ["tracking to flaky: ConnectionError: refused for ***"]


def test_a_call_that_hangs_ends_the_process_alone(
    store: Store, tmp_path: Path, flaky: type[Flaky], monkeypatch: pytest.MonkeyPatch
) -> None:
    created(store, tmp_path, ["flaky"])
    ended = Event()
    monkeypatch.setattr(tracking_process, "CALL_SECONDS", 0.1)
    monkeypatch.setattr(tracking_process.os, "_exit", lambda _code: ended.set())
    monkeypatch.setattr(flaky, "tell", lambda *_: ended.wait(10))
    record(store, 1)
    Follower(store, RUN, "flaky").step()
    assert ended.is_set()
    assert failures(store) == ["tracking to flaky: did not answer within 0 s and was ended"]


def test_secrets_are_taken_out_of_causes() -> None:
    text = "https://me:pass@host/x refused key 0123456789\nby host"
    assert without_secrets(text, {"WANDB_API_KEY": "0123456789"}) == "https://host/x refused key *** by host"
