"""``check``: what a job will train, what fits which device, and what it will cost; nothing is run or written."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimfed.platform.cli.options import Json
from slimfed.platform.cli.output import print_json, print_table, results
from slimfed.platform.console import notes
from slimfed.platform.format import fits, percent, plural, seconds, size

if TYPE_CHECKING:
    from slimfed.platform.job.job import Job
    from slimfed.platform.launch.estimate import ClassEstimate, Estimate
    from slimfed.platform.launch.preflight import Inspected

_LABELS_SHOWN = 8

_COLUMNS = {
    "profile": "class",
    "devices": "devices>",
    "examples": "texts each>",
    "memory": "memory needed / there>",
    "fits": "fits",
    "first": "first round>",
    "last": "last round>",
    "bytes": "sent / received a round>",
}


def check(
    job: Annotated[Path | None, typer.Argument(help="job file; default: the built-in demo with 80 devices")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="override a field of the job; repeatable")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a job will train, which devices hold it, and its time, memory and bytes. Nothing is run or written."""
    from slimfed.platform.home import home
    from slimfed.platform.job.job import load_job
    from slimfed.platform.lineage import with_parent
    from slimfed.platform.stores import check_store

    wanted = load_job(job, sets or [])
    check_store(wanted, home())
    wanted = with_parent(wanted, home())
    with notes().status("checking the job"):
        from slimfed.platform.launch.estimate import estimate
        from slimfed.platform.launch.preflight import inspect

        inspected = inspect(wanted, real=wanted.fleet.clock == "measured")
        costs = None if wanted.fleet.clock == "measured" else estimate(inspected)
    if as_json:
        print_json(_as_json(inspected, costs))
        return
    _print(_facts(inspected, costs))
    if costs is not None:
        print_table("Devices", _COLUMNS, [_class_row(each) for each in costs.classes])
    for reason in inspected.checked.reasons:
        results().print(reason, markup=False, soft_wrap=True)
    real = wanted.fleet.clock == "measured"
    notes().print(f"start it: {_start(job, sets or [], real=real)}", markup=False, soft_wrap=True)


def _start(job: Path | None, sets: Sequence[str], *, real: bool) -> str:
    """The command that runs what was checked."""
    words = ["slimfed", "run", *([str(job)] if job is not None else [])]
    for each in sets:
        words += ["--set", each]
    return shlex.join(words) + (" --federation NAME" if real else "")


def _facts(inspected: "Inspected", costs: "Estimate | None") -> dict[str, str]:
    """The lines of the head: name and text."""
    job, text = inspected.checked.job, inspected.text
    facts = {
        "trains": f"{job.model.path} by {job.method.name}, {job.model.task}",
        "on": f"{job.data.path}: {len(text.train):,} training texts, {len(text.test):,} test texts",
    }
    if text.labels is not None:
        shown = ", ".join(text.labels[:_LABELS_SHOWN]) + (", ..." if len(text.labels) > _LABELS_SHOWN else "")
        facts["labels"] = f"{len(text.labels)}: {shown}"
    sparsity = percent(job.method.target_sparsity)
    facts["rounds"] = f"{job.training.rounds} of {job.training.local_steps} steps on {_devices(job)}"
    if costs is None:
        return facts | {"devices": "real ones, whose speed and memory are not known here"}
    before, after = costs.parameters
    if costs.participants < job.fleet.participants:
        facts["takes part"] = f"about {costs.participants:,.3g} of {job.fleet.devices:,} devices a round"
    return facts | {
        "model": f"{_millions(before)} M parameters, {_millions(after)} M at {sparsity} sparsity",
        **_base(job, costs),
        "virtual time": f"about {seconds(costs.virtual_seconds)} on the devices",
        "traffic": f"about {size(costs.bytes)} in all",
        "wall time": _wall(inspected, costs),
    }


def _base(job: "Job", costs: "Estimate") -> dict[str, str]:
    """What a quantised base takes on a device."""
    if job.model.quantization == "none":
        return {}
    held, plain = costs.held_bytes
    return {"base": f"{size(held)} with the blocks in {job.model.quantization}, {size(plain)} without"}


def _devices(job: "Job") -> str:
    from slimfed.platform.job.job import job_to_dict
    from slimfed.platform.participation import part_of_fleet

    return part_of_fleet(job_to_dict(job), job.fleet.devices)


def _wall(inspected: "Inspected", costs: "Estimate") -> str:
    if costs.wall_seconds is None:
        return "not measured on a GPU"
    workers = plural(inspected.checked.sizing.workers, "worker")
    return f"about {seconds(costs.wall_seconds)} on this computer ({workers}), if nothing else runs on it"


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:,.1f}" if parameters >= 1e5 else f"{parameters / 1e6:.3f}"


def _class_row(each: "ClassEstimate") -> dict[str, str]:
    fewest, most = each.examples
    return {
        "profile": each.profile,
        "devices": f"{each.devices:,}",
        "examples": f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}",
        "memory": f"{size(each.needed_bytes)} / {size(each.memory_bytes)}",
        "fits": fits(each.starts_at),
        "first": seconds(each.first_seconds),
        "last": seconds(each.last_seconds),
        "bytes": f"{size(each.bytes_down)} / {size(each.bytes_up)}",
    }


def _print(facts: dict[str, str]) -> None:
    width = max(map(len, facts))
    for name, text in facts.items():
        results().print(f"{name:<{width}}  {text}", soft_wrap=True, markup=False)


def _as_json(inspected: "Inspected", costs: "Estimate | None") -> dict[str, Any]:
    from dataclasses import asdict

    from slimfed.platform.job.job import job_to_dict

    checked, text = inspected.checked, inspected.text
    return {
        "job": job_to_dict(checked.job),
        "train_examples": len(text.train),
        "test_examples": len(text.test),
        "validation_examples": None if text.validation is None else len(text.validation),
        "labels": None if text.labels is None else list(text.labels),
        "workers": checked.sizing.workers,
        "reasons": list(checked.reasons),
        "estimate": None if costs is None else asdict(costs),
    }
