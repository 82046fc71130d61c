"""The preflight: checks of a job within seconds, before a run is created."""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.adapters.targets import bare_block, targeted
from slimfed.clients.allocation import ALLOCATIONS
from slimfed.clients.allocation.counts import kept_counts
from slimfed.clients.data.batching import tokenise
from slimfed.clients.data.chat import use_template
from slimfed.clients.data.partition import partition
from slimfed.clients.data.readers.files import split_files
from slimfed.clients.data.split import Dropped
from slimfed.clients.data.text import TextData, load_data
from slimfed.clients.errors import InputError
from slimfed.clients.importance import IMPORTANCE
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.linear import shape_of
from slimfed.clients.models.loading import LoadedModel, load_model
from slimfed.clients.pruning.selection import select
from slimfed.clients.structure import Blueprint, Structure
from slimfed.clients.training.calibration import StepCost
from slimfed.clients.training.teacher import BASE, open_teacher
from slimfed.platform.fleet.admission import admitted
from slimfed.platform.fleet.availability import Windows, load_availability
from slimfed.platform.fleet.profiles import Fleet, load_fleet, load_profile
from slimfed.platform.inputs import Inputs, read_inputs
from slimfed.platform.job.compatibility import problems_of_run
from slimfed.platform.job.job import Job
from slimfed.platform.launch.engine_choice import choose
from slimfed.platform.launch.scratch import scratch_base
from slimfed.platform.launch.suiting import stranger, suit
from slimfed.platform.launch.workers import Sizing
from slimfed.strategies.aggregation import AGGREGATIONS

_CLUSTER_SECONDS = 5.0
_HALF_A_POINT = 0.005


@dataclass(frozen=True)
class Checked:
    """A job that can run, without "auto" in ``engine``, its fleet, and the number of examples of each device.

    ``sizing``: its distribution on this machine. ``reasons``: a line with the reason of each engine choice, one if the
    run cannot come within half a point of its target sparsity, and one for each file with empty rows that are left out.
    ``dropped``: these files. ``inputs``: digests of text, model and profile. ``origin``: the GGUF file or the adapter
    that the base's weights came from; empty if they were read as they are. ``truncated``: a line for each split with
    prompts or conversations that are longer than ``data.max_length``.
    """

    job: Job
    fleet: Fleet
    examples: tuple[int, ...]
    sizing: Sizing
    reasons: tuple[str, ...]
    dropped: tuple[Dropped, ...] = ()
    inputs: Inputs | None = None
    origin: str = ""
    truncated: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inspected:
    """A checked job with what was opened to check it. ``step``: the cost of a training step, if it was measured."""

    checked: Checked
    text: TextData
    base: LoadedModel
    blueprint: Blueprint
    step: StepCost | None


def check(job: Job, *, real: bool = False) -> Checked:
    """See :func:`inspect`."""
    return inspect(job, real=real).checked


def inspect(job: Job, *, real: bool = False) -> Inspected:
    """Open everything the job names, as the server and the nodes will. Raises ``InputError``; nothing is written.

    Cheap checks come first, so that most errors are found at once. ``real``: the devices have their own text, so no
    text is divided, and their numbers of examples are unknown (0).
    """
    load_profile(job.fleet.profile)
    problems = problems_of_run(job)
    if problems:
        raise InputError("\n".join(problems))
    check_cluster(job)
    if not real:
        scratch_base()
    job = with_validation(job, real=real)
    text = load_data(job.data, job.model.task, job.seed)
    examples = (0,) * job.fleet.devices
    if not real:
        examples = tuple(len(part) for part in partition(text, job.data.partition, job.fleet.devices, job.seed))
    base = load_model(job.model, text.labels, job.seed)
    use_template(base.tokenizer, job.data)
    blueprint = discover(base.model)
    check_targets(job, blueprint)
    check_ranks(job.bandit.ranks, [shape_of(base.model.get_submodule(name)) for name in blueprint.modules])
    check_length(job, base)
    ADAPTERS[job.method.adapter].training.check(base.model, blueprint)
    first = first_structure(job, base, blueprint)
    check_teacher(job, text, base, blueprint, real)
    job, chosen = suit(job, len(text.train), real=real)
    truncated = longer_texts(job, text, base)
    fleet = load_fleet(job.fleet, job.seed)
    taking_part = () if real else check_participation(job, fleet)
    if real:
        fleet = replace(fleet, devices=tuple(replace(device, profile="real") for device in fleet.devices))
        job = on_devices(job)
    choice = choose(job, base, blueprint)
    reasons = (
        *choice.reasons,
        *divisions(text),
        *chosen,
        *stranger(job),
        *fresh_head(text, base),
        *shortfall(job, first),
        *taking_part,
        *few_updates(job),
        *early_rounds(job),
        *open_cluster(job),
        *map(str, text.dropped),
        *truncated,
    )
    inputs = read_inputs(job, text, blueprint)
    checked = Checked(choice.job, fleet, examples, choice.sizing, reasons, text.dropped, inputs, base.origin, truncated)
    return Inspected(checked, text, base, blueprint, choice.step)


def with_validation(job: Job, *, real: bool = False) -> Job:
    """The job with ``data.validation`` decided: "use" if its folder has a validation file and the job leaves it open.

    ``real``: devices have test files of their own, so that the server's validation file judges nothing.
    """
    if job.data.validation != "auto":
        return job
    folder = Path(job.data.path).expanduser()
    there = not real and folder.is_dir() and split_files(folder, "validation")
    return job.model_copy(update={"data": job.data.model_copy(update={"validation": "use" if there else "off"})})


def divisions(text: TextData) -> tuple[str, ...]:
    """A line if one file was divided, and one if rounds are evaluated on a validation file."""
    lines = [] if text.division is None else [str(text.division)]
    if text.validation is not None:
        lines.append(
            f"data.validation = use: rounds are evaluated on the {len(text.validation):,} validation rows, the model "
            f"after the last round on the {len(text.test):,} test rows too"
        )
    return tuple(lines)


def longer_texts(job: Job, text: TextData, base: LoadedModel) -> tuple[str, ...]:
    """A line for each split with prompts or conversations that are cut. Raises ``InputError`` as training would."""
    lines = []
    for name, split in (("train", text.train), ("validation", text.validation), ("test", text.test)):
        if split is None or not split.prompted:
            continue
        cut = tokenise(split, base.tokenizer, job.data.max_length).truncated
        if cut:
            lines.append(
                f"data.max_length = {job.data.max_length}: {cut} of {len(split)} texts of the {name} split are longer; "
                "what stands before the answer is cut first"
            )
    return tuple(lines)


def first_structure(job: Job, base: LoadedModel, blueprint: Blueprint) -> Structure:
    """What devices start with. Raises ``InputError`` for an adapter that cannot start from a pruned model."""
    if base.start is None:
        return blueprint.dense()
    if ADAPTERS[job.method.adapter].cuts_width:
        raise InputError(
            f'method.adapter = "{job.method.adapter}" cuts the width of a whole model, and that of {base.origin} has '
            "lost heads and channels; use another adapter, or the base"
        )
    return base.start.structure(blueprint)


def fresh_head(text: TextData, base: LoadedModel) -> tuple[str, ...]:
    """A line if the model of another run has a head for other labels, so that this run begins with a new one."""
    if base.start is None or text.labels is None or base.start.labels == tuple(text.labels):
        return ()
    return (f"model.path: the head of run {base.start.run} is for other labels; the run begins with a new one",)


def check_teacher(job: Job, text: TextData, base: LoadedModel, blueprint: Blueprint, real: bool) -> None:
    """Raise ``InputError`` for a teacher that cannot teach this run; ``real``: on devices elsewhere."""
    training = job.training
    if training.teacher != BASE and real:
        raise InputError("training.teacher: is a folder of this computer, which real devices do not have; use 'base'")
    if training.teacher == BASE and training.kl > 0 and job.model.task == "classification":
        raise InputError(
            f"training.kl = {training.kl:g}: the base has no trained head, so it predicts no labels; name a run on "
            "this text as training.teacher = 'run:ID'"
        )
    open_teacher(training, job.model, text.labels, base, blueprint)


def shortfall(job: Job, first: Structure) -> tuple[str, ...]:
    """A line if the run ends more than half a point from its target sparsity; else nothing."""
    target, scope = job.method.target_sparsity, job.pruning.scope
    if not ADAPTERS[job.method.adapter].prunes(Adapter({}, {})):  # width is not taken in whole units
        return ()
    if first.sparsity > target + _HALF_A_POINT:
        line = f"method.target_sparsity = {target:g}: the model that the run starts from has lost {first.sparsity:.1%}"
        return (f"{line} already, which stays removed",)
    pruning = job.pruning
    if not ALLOCATIONS[pruning.allocation].by_scope:
        return _shortfall_of_shares(job, first)
    possible = select(first, np.zeros(first.blueprint.units), target, scope, target).sparsity
    if target - possible <= _HALF_A_POINT:
        return ()
    cause = (
        "channels go in multiples of 8, 16 or 128; pruning.scope = 'layer' comes nearer"
        if scope == "uniform"
        else "every layer keeps a head and a channel"
    )
    return (f"method.target_sparsity = {target:g}: {possible:.1%} can be removed with scope {scope!r}, since {cause}",)


def _shortfall_of_shares(job: Job, first: Structure) -> tuple[str, ...]:
    """The line of :func:`shortfall` if layers have unequal shares: what each keeps at least does not depend on them."""
    target, pruning, blueprint = job.method.target_sparsity, job.pruning, first.blueprint
    alive = [len(first.kept(index)) for index in range(len(blueprint.blocks))]
    least = kept_counts(blueprint, np.ones(len(alive)), target, pruning.allocation_cap, alive)
    possible = 1 - float(least @ [block.unit_parameters for block in blueprint.blocks]) / blueprint.parameters.sum()
    if target - possible <= _HALF_A_POINT:
        return ()
    return (
        f"method.target_sparsity = {target:g}: {possible:.1%} can be removed with allocation {pruning.allocation!r}, "
        f"since no block loses more than pruning.allocation_cap = {pruning.allocation_cap:g}, and each keeps a unit",
    )


def check_participation(job: Job, fleet: Fleet) -> tuple[str, ...]:
    """A line on how many simulated devices may be asked, if not all; some must be, and be available at some time.

    Raises ``InputError``.
    """
    may, windows = admitted(fleet, job.fleet.where), _windows(job)
    devices = np.arange(len(fleet.devices)) if may is None else np.array(may)
    if windows is not None and not np.isin(windows.devices, devices).any():
        raise InputError(
            f"fleet.availability = {job.fleet.availability!r}: none of the {len(devices)} devices that may be asked is "
            "ever available; give one of them a line"
        )
    amount = job.fleet.participation
    if isinstance(amount, int) and amount > len(devices):
        raise InputError(
            f"fleet.participation = {amount}: fleet.where = {job.fleet.where!r} admits {len(devices)} devices; give at "
            "most so many, or a share"
        )
    if may is None:
        return ()
    return (f"fleet.where = {job.fleet.where!r}: {len(may)} of {len(fleet.devices)} devices may be asked",)


def _windows(job: Job) -> Windows | None:
    return load_availability(job.fleet.availability, job.fleet.devices, job.seed)


def few_updates(job: Job) -> tuple[str, ...]:
    """A line if a round has too few devices for the aggregation to do what it is for."""
    name, asked = job.method.aggregation, job.fleet.participants
    least = AGGREGATIONS[name].least_updates
    if asked >= least:
        return ()
    return (
        f"method.aggregation = {name!r}: leaves out nobody of fewer than {least} updates, and a round asks {asked} "
        "devices; a median needs no more",
    )


def early_rounds(job: Job) -> tuple[str, ...]:
    """A line if rounds close before all devices are done, which estimates of a run's time do not count with."""
    if job.server.waits_for_all:
        return ()
    cause = "rounds close early, so that the run takes less virtual time than is estimated for as many rounds"
    return (f"server.mode = {job.server.mode!r}: {cause}",)


def on_devices(job: Job) -> Job:
    """With the engine of real devices where the job leaves it open: their model is sliced, which is what they gain by.

    Measurements on this machine do not apply to the devices.
    """
    open_fields = {"name": "sequential", "dtype": "fp32", "cohort_size": 1, "workers": 1}
    chosen = {name: value for name, value in open_fields.items() if getattr(job.engine, name) == "auto"}
    return job.model_copy(update={"engine": job.engine.model_copy(update=chosen)})


def check_ranks(ranks: tuple[int, ...], shapes: Sequence[tuple[int, int]]) -> None:
    """A rank must not exceed either side of a layer of these ``shapes``. Raises ``InputError``."""
    smallest = min(map(min, shapes))
    if max(ranks) > smallest:
        raise InputError(f"bandit.ranks: {max(ranks)} is larger than the smallest adapted layer ({smallest})")


def check_targets(job: Job, blueprint: Blueprint) -> None:
    """Modules must exist, and be enough for scoring the units that are pruned. Raises ``InputError``."""
    bare = bare_block(blueprint, targeted(blueprint, job.adapter.targets))
    if bare is None or job.method.target_sparsity == 0 or not IMPORTANCE[job.method.importance].needs_adapters:
        return
    others = ", ".join(name for name, each in IMPORTANCE.items() if not each.needs_adapters)
    raise InputError(
        f"adapter.targets: {bare} has no adapter, and method.importance = {job.method.importance!r} scores units by "
        f"the gradients of adapters; use one of {others}, or method.target_sparsity = 0, or more targets"
    )


def check_length(job: Job, base: LoadedModel) -> None:
    """``max_length`` must not exceed the model's positions. Raises ``InputError``."""
    if base.positions is not None and job.data.max_length > base.positions:
        raise InputError(f"data.max_length = {job.data.max_length}: the model can take at most {base.positions} tokens")
    longest, writes = job.evaluation.generate.max_new_tokens, job.evaluation.generate.examples > 0
    if job.model.task == "causal-lm" and writes and base.positions is not None and longest >= base.positions:
        raise InputError(
            f"evaluation.generate.max_new_tokens = {longest}: the model can take {base.positions} tokens, and a prompt "
            "needs some of them; give less, or evaluation.generate.examples = 0"
        )


def open_cluster(job: Job, variables: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """A line if the Ray cluster is used without a token, so that it is open to whoever reaches its ports."""
    if not job.engine.cluster or variables.get("RAY_AUTH_MODE") == "token":
        return ()
    cause = "is used without RAY_AUTH_MODE=token: whoever reaches its ports can run code as its owner"
    return (f"engine.cluster = {job.engine.cluster!r} {cause} (docs/cluster.md)",)


def check_cluster(job: Job) -> None:
    """The head of the Ray cluster must be reachable. Raises ``InputError``."""
    if not job.engine.cluster:
        return
    host, _, port = job.engine.cluster.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_CLUSTER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"engine.cluster = {job.engine.cluster!r}: nothing answers there ({error}); start the cluster with "
            f"'ray start --head --port={port}', or leave the field empty"
        ) from None
