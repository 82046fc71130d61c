"""Structures that fit the devices' memory, so that every device takes part from the first round on."""

from collections.abc import Collection, Mapping

import numpy as np

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.pruning.selection import select
from slimfed.clients.structure import Structure
from slimfed.strategies.aggregation import AGGREGATIONS
from slimfed.strategies.protocols import Event, Forecast
from slimfed.strategies.server_state import Fleet
from slimfed.strategies.settings import StrategySettings


def fitted(
    fleet: Fleet, settings: StrategySettings, structures: Mapping[int, Structure], forecast: Forecast | None
) -> dict[int, Structure]:
    """The devices' ``structures``, by device, cut further where the memory does not hold training in them.

    The units with the lowest of the fleet's scores go, or before there are any, of those of the base's weights. A
    device that fits at no sparsity keeps its structure, and runs out of memory.
    """
    needs = needed(fleet, settings, forecast, structures)
    if forecast is None or not any(needs):
        return dict(structures)
    scores = fleet.scores if fleet.scores.any() else forecast.first_scores()
    pruning, cut = settings.task.pruning, dict[tuple[bytes, float], Structure]()

    def smaller(structure: Structure, need: float) -> Structure:
        if structure.sparsity >= need:
            return structure
        key = structure.keep.tobytes(), need
        if key not in cut:
            cut[key] = select(structure, scores, need, pruning.scope, max(need, settings.target_sparsity))
        return cut[key]

    return {device: smaller(each, need) for (device, each), need in zip(structures.items(), needs, strict=True)}


def needed(
    fleet: Fleet, settings: StrategySettings, forecast: Forecast | None, devices: Collection[int]
) -> list[float]:
    """The least sparsity of each of ``devices``; 0 where the dense model fits.

    It is 0 for methods that need equal structures, too. Without profiles nothing is known of the devices' memory, and
    for a run that prunes nothing devices stay dense.
    """
    adapter, aggregation = ADAPTERS[settings.task.adapter.name], AGGREGATIONS[settings.aggregation]
    cuts = settings.target_sparsity > 0 and settings.task.pruning.fit_memory
    if forecast is None or not cuts or aggregation.needs_equal_structures or not adapter.prunes(fleet.adapter):
        return [0.0 for _ in devices]
    rank = max(settings.bandit.ranks)
    return [forecast.sparsity_to_fit(device, rank) for device in devices]


def memory_event(fleet: Fleet, settings: StrategySettings, number: int, forecast: Forecast | None) -> Event | None:
    """What is said of small devices before the first round; None if all devices hold the dense model."""
    needs = np.array(needed(fleet, settings, forecast, range(len(fleet.devices))))
    small = needs[needs > 0]
    if not small.size:
        return None
    cause = (
        f"{small.size} of {needs.size} devices cannot hold training of the dense model; they train structures of "
        f"{small.min():.0%} to {small.max():.0%} sparsity from the first round on"
    )
    remedy = "none needed; pruning.fit_memory = false leaves them out until they fit"
    return Event(number, "small-memory", cause, remedy)
