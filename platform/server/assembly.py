"""Putting a run's parts together: from a job to a strategy that can start."""

from typing import Any

from transformers.pytorch_utils import Conv1D

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.adapters.adapted import head_state
from slimfed.clients.errors import InputError
from slimfed.clients.models.loading import LoadedModel
from slimfed.clients.node.runtime import Workplace
from slimfed.clients.structure import Blueprint
from slimfed.clients.update import Adapter
from slimfed.platform.fleet.clock import MeasuredClock, VirtualClock
from slimfed.platform.fleet.forecast import ProfileForecast
from slimfed.platform.fleet.profiles import load_fleet
from slimfed.platform.home import RunFolder
from slimfed.platform.job.job import Job
from slimfed.platform.launch.workers import processor_count
from slimfed.platform.server import checkpoint
from slimfed.platform.server.evaluator import GlobalEvaluator
from slimfed.strategies.aggregation import initial_adapter
from slimfed.strategies.protocols import Clock, Recorder
from slimfed.strategies.server_state import Fleet
from slimfed.strategies.strategy import FedSlim


def assemble(
    job: Job, workplace: Workplace, fleet: Fleet, nodes: int, recorder: Recorder, *, real: bool = False
) -> FedSlim:
    """The strategy of a job with all its parts; it goes on where ``fleet`` stands. ``real``: devices, not simulated."""
    evaluator = GlobalEvaluator(workplace, processor_count())
    clock = _clock(job)
    forecast = ProfileForecast(clock, workplace, fleet.adapter) if isinstance(clock, VirtualClock) else None
    settings = job.strategy_settings(workplace.task, nodes, real=real)
    return FedSlim(settings, fleet, clock, recorder, evaluator, forecast)


def new_fleet(workplace: Workplace, job: Job) -> Fleet:
    """The fleet before round 1."""
    adapter = first_adapter(workplace.base, workplace.blueprint, job)
    scores = workplace.scores_of_base() if job.pruning.structure == "shared" else None
    return Fleet.new(workplace.blueprint, adapter, job.fleet.devices, job.bandit, job.seed, scores)


def first_adapter(base: LoadedModel, blueprint: Blueprint, job: Job) -> Adapter:
    """What the devices are sent in round 1, before it is cut to them."""
    shapes = {name: _shape(base.model.get_submodule(name)) for name in blueprint.modules}
    head = head_state(base.model, base.head)
    plain = initial_adapter(shapes, max(job.bandit.ranks), head, job.seed)
    return ADAPTERS[job.method.adapter].begin(plain, blueprint, job.seed)


def restored_fleet(workplace: Workplace, folder: RunFolder, finished: int) -> Fleet:
    """The fleet after round ``finished``, or the last before it with a complete checkpoint. Raises ``InputError``."""
    newest = checkpoint.newest(folder.checkpoints, at_most=finished)
    if newest is None:
        raise InputError(f"{folder.checkpoints} has no checkpoint up to round {finished}; the run cannot be resumed")
    return Fleet.restore(workplace.blueprint, *checkpoint.load(newest))


def _clock(job: Job) -> Clock:
    if job.fleet.clock == "measured":
        return MeasuredClock()
    return VirtualClock(load_fleet(job.fleet, job.seed), job.seed, job.disturbance)


def _shape(module: Any) -> tuple[int, int]:
    """(out, in) of a linear module; Conv1D stores its weight the other way round."""
    rows, columns = module.weight.shape
    return (columns, rows) if isinstance(module, Conv1D) else (rows, columns)
