"""The home folder: the default store, and a folder for every run."""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from slimfed.clients.errors import InputError

if TYPE_CHECKING:
    from slimfed.platform.job.job import Job

FOLDER = "slimfed-runs"
"""Name of a home within a folder of one's work."""

STORE = "store.db"
"""Name of the SQLite store in a home."""

_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, and the paths in it."""

    path: Path

    @property
    def job(self) -> Path:
        """The job with all defaults filled in."""
        return self.path / "job.toml"

    @property
    def checkpoints(self) -> Path:
        """One folder a checkpoint (see ``checkpoint.save``)."""
        return self.path / "checkpoints"

    def finished(self, round: int) -> Path:
        """The global model after ``round``, for runs that start from it."""
        return self.path / f"finished-{round}"

    @property
    def logs(self) -> Path:
        """Log files of server, nodes and runtime."""
        return self.path / "logs"

    @property
    def engine_log(self) -> Path:
        """The reasons of the choices of the engine, written when the job was checked."""
        return self.logs / "engine.log"

    @property
    def profile(self) -> Path:
        """Time of every round by phase, a line of JSON each."""
        return self.logs / "profile.jsonl"

    @property
    def federation(self) -> Path:
        """Names the SuperLink of the run's real devices; missing if the fleet is simulated."""
        return self.path / "federation"

    @property
    def lock(self) -> Path:
        """Locked by the process that computes the run (``launch/run_lock.py``)."""
        return self.path / "lock"

    @property
    def base(self) -> Path:
        """Hash of the base that the run began with (``server/base_digest.py``)."""
        return self.path / "base.json"

    @property
    def inputs(self) -> Path:
        """Digests of the text, model and profile that the run began with (``platform/inputs.py``)."""
        return self.path / "inputs.json"

    @property
    def told(self) -> Path:
        """A byte for each disclosure about the devices' text; missing without privacy."""
        return self.path / "told"

    @property
    def rows(self) -> Path:
        """Copies of the run's rows in the store (``store/mirror.py``)."""
        return self.path / "rows"

    @property
    def exports(self) -> Path:
        """Exported models."""
        return self.path / "exports"


def home(environment: Mapping[str, str] = os.environ) -> Path:
    """Where runs are kept, absolute; nothing is created.

    ``SLIMFED_HOME`` if it is set; else ``slimfed-runs`` in the working directory or the nearest folder above it that
    has one; else the user's data folder.
    """
    if named := environment.get("SLIMFED_HOME"):
        return Path(named).expanduser().absolute()
    return next(iter(homes_upwards(Path.cwd())), user_home())


def user_home() -> Path:
    """The home of a user who works in no folder with one: ``~/.local/share/slimfed/runs`` on Linux."""
    from platformdirs import user_data_path

    return user_data_path("slimfed") / "runs"


def homes_upwards(start: Path) -> list[Path]:
    """``slimfed-runs`` in ``start`` and in the folders above it, nearest first.

    Above ``start`` only folders of this user count, so that nobody plants a store in a folder that all may write to.
    """
    found = [folder / FOLDER for folder in (start, *start.parents) if (folder / FOLDER).is_dir()]
    return [each for each in found if each.parent == start or each.stat().st_uid == os.getuid()]


def looked_for_runs(environment: Mapping[str, str] = os.environ) -> str:
    """Where :func:`home` looked, and which other homes have a store, in words."""
    here, cwd = home(environment), Path.cwd()
    if environment.get("SLIMFED_HOME"):
        looked = "SLIMFED_HOME names it"
    elif here == user_home():
        looked = f"your data folder, as neither {cwd} nor a folder above it has {FOLDER}"
    else:
        looked = f"the nearest {FOLDER} from {cwd} upwards"
    there = "".join(f"; there are runs in {each} (SLIMFED_HOME={each})" for each in other_homes(here))
    return f"{here} ({looked}){there}"


def other_homes(here: Path) -> list[Path]:
    """Homes beside ``here`` that have a store: of the folders upwards, and the user's."""
    found = dict.fromkeys([*homes_upwards(Path.cwd()), user_home()])
    return [each for each in found if each != here and (each / STORE).is_file()]


def store_url(job: "Job | None" = None, environment: Mapping[str, str] = os.environ) -> str:
    """Where runs are recorded: ``store.url`` of the job if it names one, else ``SLIMFED_STORE``, else SQLite."""
    if job is not None and job.store.url != "sqlite":
        return job.store.url
    return environment.get("SLIMFED_STORE") or "sqlite"


def run_folder(home: Path, run_id: str) -> RunFolder:
    """The folder of a run, whether it exists or not."""
    return RunFolder(home / run_id)


def new_run_id(now: datetime | None = None) -> str:
    """Such as ``20260101-120000-abc``: the UTC second, so that names sort by age, and three random characters."""
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    return f"{moment:%Y%m%d-%H%M%S}-{''.join(secrets.choice(_LETTERS) for _ in range(3))}"


def create_run_folder(home: Path) -> tuple[str, RunFolder]:
    """A new, unique run id and its folder. Raises ``InputError`` if the home cannot be written."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        while True:
            run_id = new_run_id()
            folder = run_folder(home, run_id)
            try:
                folder.path.mkdir()
            except FileExistsError:
                continue
            return run_id, folder
    except OSError as error:
        raise InputError(
            f"SLIMFED_HOME = {str(home)!r}: cannot be written ({error.strerror}); name a folder that can"
        ) from None
