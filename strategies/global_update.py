"""From the accepted updates of a round to the next global adapter: aggregate, privacy, error, server optimiser."""

import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.seeds import derive
from slimfed.clients.update import Update
from slimfed.strategies.accumulation import RoundAccumulator
from slimfed.strategies.aggregation import AGGREGATIONS, Frame
from slimfed.strategies.aggregation.error import ErrorEstimate, aggregation_error, restricted, sampled_modules
from slimfed.strategies.coordinates.global_vector import GlobalVector
from slimfed.strategies.planning import Plan
from slimfed.strategies.privacy import release
from slimfed.strategies.round_state import RunContext
from slimfed.strategies.server import moved
from slimfed.strategies.server.base import Memory
from slimfed.strategies.server_state import Fleet
from slimfed.strategies.settings import StrategySettings

# Number of devices on which the aggregation error is measured.
_ERROR_SAMPLE = 100


@dataclass(frozen=True)
class Aggregate:
    """The aggregated adapter before the server optimiser, and the next round's clipping norm (None: the job's)."""

    adapter: Adapter
    clipping_norm: float | None


@dataclass(frozen=True)
class ServerStep:
    """The next global adapter, and the server optimiser's state for the next round."""

    adapter: Adapter
    memory: Memory


def accumulators(
    settings: StrategySettings, fleet: Fleet, space: GlobalVector, number: int, participants: Sequence[int]
) -> Callable[[], RoundAccumulator]:
    """A maker of empty accumulators for round ``number``; ``space``: the global adapter before it.

    They keep whole updates of all devices if the adapter's method or central privacy needs all of them. Else they keep
    the modules on which the aggregation's error is estimated, of a seeded sample of the
    ``participants``, the devices that may bring an update, ascending.
    """
    task, devices = settings.task, np.array(participants, dtype=np.int64)
    units, frame = fleet.blueprint.units, replace(_frame(settings, number), space=space)
    draw = np.random.default_rng(derive(task.seed, "error", number))
    order = devices[draw.permutation(len(devices))]
    part: Callable[[Update], Update] = partial(_only, sampled_modules(fleet.adapter, draw))
    if fleet.adapter.undecided or task.privacy.kind == "central":
        keep, part = set(devices.tolist()), _whole
    else:
        keep = set(order[:_ERROR_SAMPLE].tolist())
    method = AGGREGATIONS[settings.aggregation]
    robust = method.bounds_influence
    return lambda: RoundAccumulator(method.start(space.before, frame), units, keep, part, robust=robust)


def _whole(update: Update) -> Update:
    return update


def _only(modules: Collection[str], update: Update) -> Update:
    return replace(update, adapter=restricted(update.adapter, modules))


def aggregate_round(
    settings: StrategySettings, fleet: Fleet, plans: Sequence[Plan], accumulated: RoundAccumulator
) -> Aggregate:
    """Aggregate the accepted updates; under central privacy, clip each of them and add noise to their sum.

    ``plans``: of all devices that were asked.

    The noise is drawn from the system's entropy and not from the run's seed, since the noise could be removed by
    anybody who knows the seed. So a run under central privacy is not the same to the bit when it is repeated.
    """
    privacy = settings.task.privacy
    if privacy.kind != "central":
        return Aggregate(accumulated.aggregate(), fleet.clipping_norm)
    draw = np.random.default_rng(secrets.randbits(256))
    norm = fleet.clipping_norm or privacy.clipping_norm
    space, assignments = GlobalVector(fleet.adapter, fleet.blueprint), [plan.assignment for plan in plans]
    released = release(space, accumulated.kept_updates(), assignments, privacy, norm, draw)
    return Aggregate(released.adapter, released.next_norm)


def round_error(
    settings: StrategySettings, fleet: Fleet, number: int, after: Adapter, sample: Sequence[Update], accepted: int
) -> ErrorEstimate | None:
    """The aggregation's error (``aggregation/error.py``), on ``sample``, what was kept of the updates.

    If they are fewer than the ``accepted`` ones, they are aggregated separately and replace ``after``. None under
    central privacy, since it is computed of the updates without noise.
    """
    if not sample or settings.task.privacy.kind == "central":
        return None
    modules = sample[0].adapter.factors.keys()
    if len(sample) < accepted:
        after = AGGREGATIONS[settings.aggregation](restricted(fleet.adapter, modules), sample, _frame(settings, number))
    return aggregation_error(fleet.adapter, after, sample, settings.task.adapter.scaling, modules)


def optimize(context: RunContext, fleet: Fleet, number: int, aggregate: Adapter, kept: Sequence[Update]) -> ServerStep:
    """One step of the server optimiser towards ``aggregate``, then what the adapter's method decides by ``kept``."""
    settings = context.settings
    after, memory = moved(context.optimizer, fleet.adapter, aggregate, fleet.server_memory, number)
    method, rank = ADAPTERS[settings.task.adapter.name], max(settings.bandit.ranks)
    return ServerStep(method.decide(fleet.adapter, after, kept, settings.task, rank, number), memory)


def _frame(settings: StrategySettings, number: int) -> Frame:
    return Frame(settings.task.adapter.scaling, derive(settings.task.seed, "aggregate", number))
