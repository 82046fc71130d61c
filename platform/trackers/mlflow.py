"""MLflow: a tracking server, or a database of this computer."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from slimfed.platform.trackers.base import TRACKERS, Destination, Sample, TrackedRun, Tracker

_TAG, _ROUND = "slimfed.run", "slimfed.round"
_BY_END = {"done": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


@TRACKERS.register("mlflow")
class MLflow(Tracker):
    """The server that `MLFLOW_TRACKING_URI` names, else a database below `tracking.folder`."""

    module = "mlflow"
    install = "slimfed[mlflow]"

    def begin(self, run: TrackedRun, where: Destination) -> int:
        """Continue the MLflow run with this run's id as tag, or create it with the job as parameters."""
        import mlflow

        address = where.environment.get("MLFLOW_TRACKING_URI")
        if not address:
            where.folder.mkdir(parents=True, exist_ok=True)
            address = f"sqlite:///{where.folder.resolve() / 'mlflow.db'}"
        self._client = mlflow.MlflowClient(tracking_uri=address)
        self._address = _without_user(address)
        home = self._experiment(where.environment.get("MLFLOW_EXPERIMENT_NAME") or where.project, where)
        there = self._client.search_runs([home], f"tags.`{_TAG}` = '{run.id}'", max_results=1)
        if there:
            self._run = there[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return int(there[0].data.tags.get(_ROUND, 0))
        self._run = self._create(home, run)
        return 0

    def tell(self, round: int, samples: Sequence[Sample]) -> None:
        """One metric for each figure, and the round as a tag, in one request."""
        from mlflow.entities import Metric, RunTag

        metrics = [Metric(each.name, each.value, int(each.at.timestamp() * 1000), each.round) for each in samples]
        self._client.log_batch(self._run, metrics=metrics, tags=[RunTag(_ROUND, str(round))])

    def end(self, status: str) -> None:
        """Finished, failed or killed; a run that goes on stays as it is."""
        if status in _BY_END:
            self._client.set_terminated(self._run, _BY_END[status])

    @property
    def place(self) -> str:
        """MLflow's id of the run, and the address without a password."""
        return f"run {self._run} at {self._address}"

    def _experiment(self, name: str, where: Destination) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        elsewhere = bool(where.environment.get("MLFLOW_TRACKING_URI"))
        artifacts = None if elsewhere else (where.folder / "artifacts").resolve().as_uri()
        return str(self._client.create_experiment(name, artifact_location=artifacts))

    def _create(self, home: str, run: TrackedRun) -> str:
        from mlflow.entities import Param

        created: Any = self._client.create_run(home, run_name=run.id, tags={_TAG: run.id, "slimfed.name": run.name})
        values = [Param(name, str(value)) for name, value in run.parameters.items() if value != ""]
        for start in range(0, len(values), 100):  # MLflow takes no more in one request
            self._client.log_batch(created.info.run_id, params=values[start : start + 100])
        return str(created.info.run_id)


def _without_user(address: str) -> str:
    parts = urlsplit(address)
    if "@" not in parts.netloc and not parts.query:
        return address  # put together again, sqlite:////FILE would lose slashes
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
