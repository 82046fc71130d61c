"""Assembling a run: from a job to its strategy."""

from slimfed.clients.allocation import ALLOCATIONS
from slimfed.clients.errors import InputError
from slimfed.clients.node.runtime import NodeRuntime
from slimfed.clients.plain_text import clean
from slimfed.clients.processors import processor_count
from slimfed.platform.fleet.admission import admitted
from slimfed.platform.fleet.availability import load_availability
from slimfed.platform.fleet.clock import MeasuredClock, VirtualClock
from slimfed.platform.fleet.forecast import ProfileForecast
from slimfed.platform.fleet.profiles import load_fleet
from slimfed.platform.home import RunFolder
from slimfed.platform.job.job import Job
from slimfed.platform.server import checkpoint
from slimfed.platform.server.evaluator import GlobalEvaluator
from slimfed.strategies.first_adapter import first_adapter
from slimfed.strategies.progress import RunProgress
from slimfed.strategies.protocols import Clock, Recorder
from slimfed.strategies.restored_state import misfit
from slimfed.strategies.selection import make_selector
from slimfed.strategies.server_state import Fleet
from slimfed.strategies.strategy import FedSlim
from slimfed.strategies.where import parse_where


def assemble(
    job: Job,
    runtime: NodeRuntime,
    fleet: Fleet,
    nodes: int,
    recorder: Recorder,
    *,
    real: bool = False,
    progress: RunProgress | None = None,
) -> FedSlim:
    """The strategy of a job with all its parts, which continues from ``fleet``.

    ``real``: devices are real. ``progress`` is told what is under way.
    """
    progress = progress or RunProgress()
    evaluator = GlobalEvaluator(runtime, processor_count(), progress.meter)
    clock = _clock(job)
    forecast = ProfileForecast(clock, runtime, fleet.adapter) if isinstance(clock, VirtualClock) else None
    settings = job.strategy_settings(runtime.task, nodes, real=real)
    return FedSlim(
        settings,
        fleet,
        clock,
        recorder,
        evaluator,
        forecast,
        _examples(job, runtime, real),
        progress,
        where=parse_where(job.fleet.where) if real and job.fleet.where else None,
        admitted=admitted(clock.fleet, job.fleet.where) if isinstance(clock, VirtualClock) else None,
        availability=load_availability(job.fleet.availability, job.fleet.devices, job.seed),
    )


def _examples(job: Job, runtime: NodeRuntime, real: bool) -> dict[int, int] | None:
    """Training texts of every device, if the server knows them; 1 under local privacy, where no device tells them."""
    if job.privacy.kind == "local":
        return dict.fromkeys(range(job.fleet.devices), 1)
    return None if real else {device: len(rows) for device, rows in runtime.parts.items()}


def new_fleet(runtime: NodeRuntime, job: Job) -> Fleet:
    """The fleet before round 1."""
    rank, targets = max(job.bandit.ranks), job.adapter.targets
    adapter = first_adapter(runtime.base, runtime.blueprint, job.method.adapter, rank, job.seed, targets)
    scores = runtime.scores_of_base() if job.pruning.structure == "shared" else None
    first = runtime.base.start
    start = None if first is None else first.structure(runtime.blueprint)
    selector = make_selector(job.fleet.wanted, job.seed, job.fleet.devices)
    calibrates = ALLOCATIONS[job.pruning.allocation].measures and job.calibration.source == "server"
    measured = runtime.measured_by_server(adapter, start or runtime.blueprint.dense()) if calibrates else None
    return Fleet.new(
        runtime.blueprint, adapter, job.fleet.devices, job.bandit, job.seed, scores, start, selector, measured
    )


def restored_fleet(runtime: NodeRuntime, job: Job, folder: RunFolder, finished: int) -> Fleet:
    """The fleet after round ``finished``, or the last before it with a complete checkpoint.

    Raises ``InputError``, also for a checkpoint whose content this job cannot have left.
    """
    newest = checkpoint.newest(folder.checkpoints, at_most=finished)
    if newest is None:
        raise InputError(f"{folder.checkpoints} has no checkpoint up to round {finished}; the run cannot be resumed")
    try:
        fleet = Fleet.restore(runtime.blueprint, *checkpoint.load(newest))
        fault = misfit(fleet, new_fleet(runtime, job), checkpoint.describe(newest).round)
    except InputError:
        raise
    except Exception as error:  # whatever an edited file makes numpy or the agents raise
        fault = f"{type(error).__name__}: {error}"
    if fault is not None:
        raise InputError(
            f"checkpoint {str(newest)!r}: does not fit the run's job: {clean(fault, 500)}; delete the folder to resume "
            "from an earlier one"
        )
    return fleet


def _clock(job: Job) -> Clock:
    if job.fleet.clock == "measured":
        return MeasuredClock()
    return VirtualClock(load_fleet(job.fleet, job.seed), job.seed, job.disturbance)
