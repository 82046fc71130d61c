"""A job for real devices: their times are measured, and one of them must not decide the average alone."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from slimfed.clients.errors import InputError
from slimfed.platform.job.job import Job, load_job
from slimfed.platform.job.overrides import parse_sets, read_toml
from slimfed.platform.job.sections import MethodSpec
from slimfed.strategies.aggregation import AGGREGATIONS


def robust_for(devices: int) -> str:
    """The aggregation on so many real devices in a round where the job names none.

    Multi-Krum held best against flipped updates (docs/security.md), but leaves out nobody of fewer than five.
    """
    return "multi-krum" if devices >= AGGREGATIONS["multi-krum"].least_updates else "median"


@dataclass(frozen=True)
class RealJob:
    """A job for real devices, and a line on its aggregation for the user."""

    job: Job
    remark: str


def load_real_job(path: Path | str | None, sets: Iterable[str] = ()) -> RealJob:
    """The job in the TOML file ``path`` with ``sets`` on top, as ``load_job``, for real devices.

    ``fleet.clock`` is ``measured``. If neither the file nor ``sets`` nor the method's preset names an aggregation of
    its own, it is that of :func:`robust_for`, unless the job needs a mean. Raises ``InputError``.
    """
    given = [*sets, "fleet.clock=measured"]
    job = load_job(path, given)
    name, robust = job.method.aggregation, robust_for(job.fleet.participants)
    if AGGREGATIONS[name].bounds_influence:
        return RealJob(job, f"method.aggregation = {name!r}: a fifth of the devices cannot move it far")
    warning = f"method.aggregation = {name!r}: one device can move it (docs/security.md)"
    if name != MethodSpec.model_fields["aggregation"].default or _chosen(path, given):
        return RealJob(job, f"{warning}; {robust!r} bounds what a fifth of the devices can do")
    if job.privacy.kind != "none":
        return RealJob(job, f"{warning}; privacy.kind = {job.privacy.kind!r} needs a mean")
    try:
        changed = load_job(path, [*given, f"method.aggregation={robust}"])
    except InputError as error:
        return RealJob(job, f"{warning}; {robust!r} does not go with this job: {error}")
    return RealJob(
        changed,
        f"method.aggregation = {robust!r}, since the job names none: a fifth of the devices cannot move it far; "
        f"{name!r} is a plain mean",
    )


def _chosen(path: Path | str | None, sets: Iterable[str]) -> bool:
    """True if the job file or ``sets`` name an aggregation."""
    documents = [parse_sets(sets)] + ([] if path is None else [read_toml(Path(path), "job file")])
    tables = [document.get("method") for document in documents]
    return any(isinstance(table, dict) and "aggregation" in table for table in tables)
