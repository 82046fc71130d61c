"""Runs in TensorBoard, MLflow and Weights & Biases, read back with the tools' own readers."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from round_records import device_record, round_record

from slimfed.clients.errors import InputError
from slimfed.platform.integrations.following import Following, destination, publish_run
from slimfed.platform.job.job import job_to_dict, load_job
from slimfed.platform.launch.quick_check import quick_check
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store
from slimfed.platform.trackers import TRACKERS, make_tracker, problem_of

RUN = "20260101-120000-abc"

VARIABLES = {"WANDB_MODE": "offline"}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_DIR", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


@pytest.fixture
def store(tmp_path: Path):
    with Store.open("sqlite", tmp_path) as opened:
        sets = ["fleet.devices=2", "name=small", "store.url=postgresql+psycopg://me:hidden@host/db"]
        opened.create_run(RUN, job_to_dict(load_job(None, sets)), tmp_path / RUN)
        opened.set_devices(RUN, [(0, "tx2", 10), (1, "nx", 11)])
        yield opened


def record(store: Store, *rounds: int) -> None:
    for number in rounds:
        store.record_round(RUN, round_record(number, (device_record(0, number), device_record(1, number))))


def follow(name: str, store: Store) -> Following:
    reader = Reader(store.engine)
    return Following(make_tracker(name, VARIABLES), reader, RUN, destination(name, reader.find_run(RUN), VARIABLES))


def accuracies(store: Store) -> list[float]:
    return [row.accuracy for row in Reader(store.engine).evaluations(RUN)]


Read = dict[int, float]


def tensorboard(folder: Path) -> tuple[Read, dict[str, str], str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.api_pb2 import Status
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = EventAccumulator(str(folder / "tensorboard" / RUN)).Reload()
    told = {tag: HParamsPluginData.FromString(data) for tag, data in events.PluginTagToContent("hparams").items()}
    start = told["_hparams_/session_start_info"].session_start_info.hparams
    status = Status.Name(told["_hparams_/session_end_info"].session_end_info.status)
    steps = [event.step for event in events.Scalars("accuracy")]
    assert len(steps) == len(set(steps))
    values = {event.step: event.value for event in events.Scalars("accuracy")}
    return values, {key: str(value.number_value or value.string_value) for key, value in start.items()}, status


def mlflow(folder: Path) -> tuple[Read, dict[str, str], str]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}")
    home = client.get_experiment_by_name("slimfed")
    assert home is not None
    (run,) = client.search_runs([home.experiment_id])
    assert run.info.run_name == RUN
    history = client.get_metric_history(run.info.run_id, "accuracy")
    assert len(history) == len({metric.step for metric in history})
    return {metric.step: metric.value for metric in history}, run.data.params, run.info.status


def _whole(file: Path) -> list[Any]:
    """All records; the library's service may still be writing them when ``finish`` has returned."""
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    deadline = time.monotonic() + 20
    while True:
        part, records = DataStore(), []
        part.open_for_scan(str(file))
        while (data := part.scan_data()) is not None:
            records.append(wandb_internal_pb2.Record.FromString(data))
        if any(record.HasField("exit") for record in records):
            return records
        assert time.monotonic() < deadline, "the file has no end"
        time.sleep(0.1)


def wandb(folder: Path) -> tuple[Read, dict[str, str], str]:
    """The run's only offline part, read as `wandb sync` reads it."""
    values: list[tuple[int, float]] = []
    config: dict[str, str] = {}
    status = ""
    (file,) = (folder / "wandb" / "wandb").glob(f"offline-run-*-{RUN}/*.wandb")
    for record in _whole(file):
        if record.HasField("run"):
            assert record.run.run_id == RUN
            config |= {each.key: str(json.loads(each.value_json)) for each in record.run.config.update}
        if record.HasField("history"):
            items = {each.key or each.nested_key[0]: json.loads(each.value_json) for each in record.history.item}
            values.append((int(items["_step"]), items["accuracy"]))
        for each in record.summary.update if record.HasField("summary") else ():
            if (each.key or each.nested_key[0]) == "status":
                status = json.loads(each.value_json)
    assert len(values) == len({step for step, _ in values})
    return dict(values), config, status


@pytest.mark.parametrize(
    ("read", "end"),
    [(tensorboard, "STATUS_SUCCESS"), (mlflow, "FINISHED"), (wandb, "done")],
    ids=["tensorboard", "mlflow", "wandb"],
)
def test_a_run_is_followed_and_goes_on_after_a_resume(
    read: Callable[[Path], tuple[Read, dict[str, str], str]], end: str, store: Store, tmp_path: Path
) -> None:
    """The second round is lost and repeated, as after a crash; each round is in the tool once."""
    name = read.__name__
    first = follow(name, store)
    record(store, 1)
    assert first.catch_up() > 0
    record(store, 2)
    first.catch_up()
    assert first.catch_up() == 0
    store.finish(RUN, "stopped", "asked to stop")
    first.end()
    assert store.take_over(Reader(store.engine).find_run(RUN))
    store.rewind(RUN, 1)
    second = follow(name, store)
    record(store, 2, 3)
    second.catch_up()
    store.finish(RUN, "done")
    second.end()
    values, parameters, status = read(tmp_path / "tracking")
    assert sorted(values) == [1, 2, 3]
    assert [values[step] for step in (1, 2, 3)] == pytest.approx(accuracies(store))
    assert float(parameters["fleet.devices"]) == 2
    assert parameters["name"] == "small"
    assert not [value for value in parameters.values() if "hidden" in str(value)]
    assert status == end


def test_publishing_twice_sends_nothing_twice(store: Store, tmp_path: Path) -> None:
    record(store, 1, 2)
    reader = Reader(store.engine)
    counts = []
    for _ in range(2):
        run = reader.find_run(RUN)
        count, place = publish_run(make_tracker("mlflow"), reader, run, destination("mlflow", run, {}))
        counts.append(count)
        assert place.endswith(f" at sqlite:///{tmp_path / 'tracking' / 'mlflow' / 'mlflow.db'}")
    assert counts[0] > 0
    assert counts[1] == 0
    assert sorted(mlflow(tmp_path / "tracking")[0]) == [1, 2]


def test_an_unknown_tracker_is_told_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"tracking\.to.*'mlflow', 'tensorboard', 'wandb'"):
        load_job(None, ["tracking.to=['nothing']"])


def test_a_missing_library_is_told_when_the_job_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TRACKERS["tensorboard"], "module", "no_such_package")
    with pytest.raises(InputError, match=r"tracking.to = 'tensorboard': .*pip install 'slimfed\[tensorboard\]'"):
        quick_check(load_job(None, ["tracking.to=['tensorboard']"]))


def test_a_missing_key_is_told_when_the_job_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "netrc"
    assert "wandb login" in (problem_of("wandb", {"NETRC": str(file)}) or "")
    file.write_text("machine api.wandb.ai login user password 0123456789\n")
    assert problem_of("wandb", {"NETRC": str(file)}) is None
    assert problem_of("wandb", {"NETRC": str(file), "WANDB_BASE_URL": "https://wandb.example"}) is not None
    assert problem_of("wandb", {"NETRC": str(file), "WANDB_API_KEY": "0123456789"}) is None


def test_a_relative_folder_starts_at_the_job_file(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text('[tracking]\nto = ["tensorboard"]\nfolder = "boards"\n')
    assert load_job(file).tracking.folder == str(tmp_path / "boards")
