"""A run in TensorBoard, MLflow and Prometheus, read back with the tools' own readers."""

import urllib.request
from pathlib import Path

import pytest
from round_records import device_record, round_record

from slimfed.clients.errors import InputError
from slimfed.platform.integrations.mlflow import to_mlflow
from slimfed.platform.integrations.prometheus import serve_prometheus
from slimfed.platform.integrations.samples import needed
from slimfed.platform.integrations.tensorboard import to_tensorboard
from slimfed.platform.job.job import job_to_dict, load_job
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store

RUN = "20260101-120000-abc"


@pytest.fixture
def reader(tmp_path: Path):
    with Store.open("sqlite", tmp_path) as store:
        store.create_run(RUN, job_to_dict(load_job(None, ["fleet.devices=2", "name=small"])), tmp_path / RUN)
        store.set_devices(RUN, [(0, "tx2", 10), (1, "nx", 11)])
        for number in (1, 2, 3):
            store.record_round(RUN, round_record(number, (device_record(0, number), device_record(1, number))))
        store.finish(RUN, "done")
        yield Reader(store.engine)


def accuracies(reader: Reader) -> list[float]:
    return [row.accuracy for row in reader.evaluations(RUN)]


def test_tensorboard_has_every_round(reader: Reader, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    count = to_tensorboard(reader, reader.find_run(RUN), tmp_path / "boards")
    events = EventAccumulator(str(tmp_path / "boards" / RUN)).Reload()
    scalars = events.Scalars("accuracy")
    assert [event.step for event in scalars] == [1, 2, 3]
    assert [event.value for event in scalars] == pytest.approx(accuracies(reader))
    assert count == sum(len(events.Scalars(tag)) for tag in events.Tags()["scalars"])


def test_prometheus_scrapes_what_the_store_says_now(reader: Reader) -> None:
    server = serve_prometheus(reader, 0)
    try:
        address = f"http://127.0.0.1:{server.server_port}/metrics"
        text = urllib.request.urlopen(address, timeout=10).read().decode()
    finally:
        server.shutdown()
        server.server_close()
    found = reader.find_run(RUN)
    labels = f'{{method="slimfed",name="small",run="{RUN}"}}'
    assert f"slimfed_rounds_done{labels} 3.0" in text
    assert f"slimfed_accuracy{labels} {found.accuracy}" in text
    assert 'slimfed_runs{status="done"} 1.0' in text


def test_a_missing_package_is_named_with_its_extra() -> None:
    with pytest.raises(InputError, match=r"pip install 'slimfed\[nothing\]'"):
        needed("no_such_package", "nothing")


def test_mlflow_has_parameters_and_every_round(reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    address = (tmp_path / "mlruns").as_uri()
    there = to_mlflow(reader, reader.find_run(RUN), address)
    client = mlflow.MlflowClient(tracking_uri=address)
    history = sorted(client.get_metric_history(there, "accuracy"), key=lambda metric: metric.step)
    assert [metric.step for metric in history] == [1, 2, 3]
    assert [metric.value for metric in history] == pytest.approx(accuracies(reader))
    assert client.get_run(there).data.params["fleet.devices"] == "2"
    assert client.get_run(there).info.status == "FINISHED"
