"""Runs in other people's tools: TensorBoard, MLflow and Prometheus. Each needs a package of its own (extras)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from slimfed.clients.errors import InputError
from slimfed.platform.store.reader import Reader

_OF_A_ROUND = (
    "train_loss",
    "sparsity",
    "global_sparsity",
    "device_accuracy_mean",
    "virtual_seconds",
    "virtual_clock",
    "wall_seconds",
    "bytes_up",
    "bytes_down",
    "joules",
    "accepted",
    "rejected",
)
_OF_AN_EVALUATION = ("accuracy", "loss", "macro_f1", "calibration_error", "exact_match", "rouge_l", "bleu")
_OF_A_RUN = (
    ("rounds_done", "Rounds done"),
    ("accuracy", "Pruned global model on the test split, a share"),
    ("device_accuracy_mean", "Mean accuracy of the devices' own pruned models, a share"),
    ("sparsity", "Share of the prunable parameters removed, mean over devices"),
    ("virtual_seconds", "Simulated seconds of all rounds"),
    ("wall_seconds", "Real seconds of all rounds"),
    ("bytes_up", "Bytes from the devices to the server"),
    ("bytes_down", "Bytes from the server to the devices"),
    ("rejected_updates", "Updates kept out of the average"),
)
STATES = ("queued", "created", "running", "done", "failed", "stopped")
SCRAPED = 200


@dataclass(frozen=True)
class Sample:
    """One value of one series after a round."""

    name: str
    round: int
    value: float
    at: datetime


def samples(reader: Reader, run: Any) -> Iterator[Sample]:
    """Every finite figure of every round of a run (a row of the store), oldest round first."""
    measured = {row.round: row for row in reader.evaluations(run.id)}
    for row in reader.rounds(run.id):
        for source, names in ((row, _OF_A_ROUND), (measured.get(row.round), _OF_AN_EVALUATION)):
            for name in names:
                value = getattr(source, name, None)
                if value is not None and math.isfinite(value):
                    yield Sample(name, row.round, float(value), row.finished_at)


def to_tensorboard(reader: Reader, run: Any, folder: Path) -> int:
    """Write the run below ``folder``, in a folder of its own; returns how many values. Raises ``InputError``."""
    _needed("tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    count = 0
    with SummaryWriter(str(folder / run.id)) as writer:
        for count, each in enumerate(samples(reader, run), 1):  # noqa: B007
            writer.add_scalar(each.name, each.value, each.round, walltime=each.at.timestamp())
    return count


def to_mlflow(reader: Reader, run: Any, address: str, experiment: str = "slimfed") -> str:
    """Write the run to an MLflow tracking server or folder; returns MLflow's id of it. Raises ``InputError``.

    Fields of the job become parameters. A run that was written before is written again as another one.
    """
    mlflow = _needed("mlflow", "mlflow")
    client = mlflow.MlflowClient(tracking_uri=address)
    found = client.get_experiment_by_name(experiment)
    home = found.experiment_id if found else client.create_experiment(experiment)
    tags = {"slimfed.run": run.id, "slimfed.status": run.status, "mlflow.runName": run.name}
    there = client.create_run(home, tags=tags).info.run_id
    for name, value in _flat(run.job):
        client.log_param(there, name, str(value)[:500])
    for each in samples(reader, run):
        client.log_metric(there, each.name, each.value, int(each.at.timestamp() * 1000), each.round)
    client.set_terminated(there, "FINISHED" if run.status == "done" else "FAILED")
    return str(there)


class Exposition:
    """What Prometheus scrapes: the newest runs, each with its figures (a ``prometheus_client`` collector).

    The store is asked at every scrape, so nothing is older than that.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def collect(self) -> Iterator[Any]:
        """One family a figure, labelled with run and name."""
        from prometheus_client.core import GaugeMetricFamily

        runs = self._reader.runs(SCRAPED)
        for name, meaning in _OF_A_RUN:
            family = GaugeMetricFamily(f"slimfed_{name}", meaning, labels=("run", "name", "method"))
            for run in runs:
                if (value := getattr(run, name)) is not None:
                    family.add_metric((run.id, run.name, run.method), float(value))
            yield family
        states = GaugeMetricFamily("slimfed_runs", "Runs in each state, of the newest", labels=("status",))
        for state in STATES:
            states.add_metric((state,), sum(run.status == state for run in runs))
        yield states


def serve_prometheus(reader: Reader, port: int, address: str = "127.0.0.1") -> Any:
    """Answer scrapes at ``/metrics`` in a thread; returns the server. Raises ``InputError``."""
    client = _needed("prometheus_client", "prometheus")
    registry = client.CollectorRegistry()
    registry.register(Exposition(reader))
    try:
        server, _thread = client.start_http_server(port, address, registry)
    except OSError as error:
        raise InputError(f"--port {port}: cannot be listened on ({error.strerror}); name another one") from None
    return server


def _needed(module: str, extra: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        raise InputError(f"the package {module} is missing: pip install 'slimfed[{extra}]'") from None


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
