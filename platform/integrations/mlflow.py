"""A run in MLflow."""

from collections.abc import Iterator
from typing import Any

from slimfed.clients.plain_text import clean
from slimfed.platform.integrations.samples import needed, samples
from slimfed.platform.store.reader import Reader


def to_mlflow(reader: Reader, run: Any, address: str, experiment: str = "slimfed") -> str:
    """Write the run to an MLflow tracking server or folder; returns MLflow's id of it. Raises ``InputError``.

    Fields of the job become parameters. Writing a run twice creates two MLflow runs.
    """
    mlflow = needed("mlflow", "mlflow")
    client = mlflow.MlflowClient(tracking_uri=address)
    found = client.get_experiment_by_name(experiment)
    home = found.experiment_id if found else client.create_experiment(experiment)
    tags = {"slimfed.run": run.id, "slimfed.status": run.status, "mlflow.runName": clean(run.name)}
    there = client.create_run(home, tags=tags).info.run_id
    for name, value in _flat(run.job):
        client.log_param(there, name, clean(value, 500))
    for each in samples(reader, run):
        client.log_metric(there, each.name, each.value, int(each.at.timestamp() * 1000), each.round)
    client.set_terminated(there, "FINISHED" if run.status == "done" else "FAILED")
    return str(there)


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
