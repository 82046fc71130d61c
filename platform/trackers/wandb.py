"""Weights & Biases: its server, or files of this computer that are sent later (``WANDB_MODE=offline``)."""

import netrc
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from slimfed.platform.trackers.base import TRACKERS, Destination, Sample, TrackedRun, Tracker

_OFFLINE = ("offline", "dryrun", "disabled")
_KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
_SERVER = "https://api.wandb.ai"


@TRACKERS.register("wandb")
class WeightsAndBiases(Tracker):
    """Weights & Biases, by its own `WANDB_` variables; its files lie in `WANDB_DIR`, else below `tracking.folder`."""

    module = "wandb"
    install = "slimfed[wandb]"

    def problem(self, environment: Mapping[str, str]) -> str | None:
        """There must be a key, since nobody can be asked for it while a run goes on."""
        if environment.get("WANDB_MODE", "").lower() in _OFFLINE or any(map(environment.get, _KEYS)):
            return None
        if _logged_in(environment):
            return None
        return "there is no key for Weights & Biases: `wandb login`, set WANDB_API_KEY, or WANDB_MODE=offline"

    def begin(self, run: TrackedRun, where: Destination) -> int:
        """Open the run with slimfed's id, or continue it.

        What a server has cannot be known offline, so the files have the whole run, and take the place of earlier ones.
        """
        import wandb

        folder = Path(where.environment.get("WANDB_DIR") or where.folder)
        folder.mkdir(parents=True, exist_ok=True)
        offline = wandb.setup().settings.mode in _OFFLINE
        for part in (folder / "wandb").glob(f"offline-run-*-{run.id}") if offline else ():
            shutil.rmtree(part)  # first, since the new one has the same name if it begins in the same second
        self._run = wandb.init(
            project=where.environment.get("WANDB_PROJECT") or where.project,
            id=run.id,
            name=run.id,
            notes=run.name,
            config=dict(run.parameters),
            dir=str(folder),
            resume=None if offline else "allow",
        )
        return 0 if offline else max(self._run.step - 1, 0)

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


def _logged_in(environment: Mapping[str, str]) -> bool:
    """True if `wandb login` has kept a key. Read here, since asking the library starts a service."""
    host = urlsplit(environment.get("WANDB_BASE_URL") or _SERVER).hostname or ""
    names = [environment["NETRC"]] if environment.get("NETRC") else ["~/.netrc", "~/_netrc"]
    for name in names:
        try:
            if netrc.netrc(os.path.expanduser(name)).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False
