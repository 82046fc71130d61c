"""Weights & Biases: its server, or files of this computer that are sent later (``WANDB_MODE=offline``)."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from slimfed.platform.trackers.base import TRACKERS, Destination, Sample, TrackedRun, Tracker

_OFFLINE = ("offline", "dryrun", "disabled")


@TRACKERS.register("wandb")
class WeightsAndBiases(Tracker):
    """Weights & Biases, by its own `WANDB_` variables; its files lie in `WANDB_DIR`, else below `tracking.folder`."""

    module = "wandb"
    install = "slimfed[wandb]"

    def problem(self, environment: Mapping[str, str]) -> str | None:
        """There must be a key, since nobody can be asked for it while a run goes on."""
        if environment.get("WANDB_MODE", "").lower() in _OFFLINE or environment.get("WANDB_API_KEY"):
            return None
        import wandb

        if wandb.setup().settings.mode in _OFFLINE or wandb.api.api_key:  # by `wandb offline`, or `wandb login`
            return None
        return "there is no key for Weights & Biases: `wandb login`, set WANDB_API_KEY, or WANDB_MODE=offline"

    def begin(self, run: TrackedRun, where: Destination) -> int:
        """Open the run with slimfed's id, or continue it.

        What a server has cannot be known offline, so the files have the whole run, and take the place of earlier ones.
        """
        import wandb

        folder = Path(where.environment.get("WANDB_DIR") or where.folder)
        folder.mkdir(parents=True, exist_ok=True)
        earlier = list((folder / "wandb").glob(f"offline-run-*-{run.id}"))
        self._run = wandb.init(
            project=where.environment.get("WANDB_PROJECT") or where.project,
            id=run.id,
            name=run.id,
            notes=run.name,
            config=dict(run.parameters),
            dir=str(folder),
            resume="allow",
        )
        if not self._run.offline:
            return max(self._run.step - 1, 0)
        for part in earlier:
            if part != Path(self._run.dir).parent:
                shutil.rmtree(part)
        return 0

    def tell(self, round: int, samples: Sequence[Sample]) -> None:
        """Log all figures of the round as one step."""
        self._run.log({each.name: each.value for each in samples}, step=round, commit=True)

    def end(self, status: str) -> None:
        """Write the end state to the summary; a run that is not done ends with code 1."""
        self._run.summary["status"] = status
        self._run.finish(exit_code=0 if status == "done" else 1)

    @property
    def place(self) -> str:
        """The run's page, or the folder of its offline files."""
        return str(self._run.url or self._run.dir)
