"""The adapter that the devices of a run are sent first."""

from collections.abc import Sequence

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.adapters.targets import ALL, targeted
from slimfed.clients.adapters.training.adapted import head_state
from slimfed.clients.models.linear import shape_of
from slimfed.clients.models.loading import LoadedModel
from slimfed.clients.structure import Blueprint
from slimfed.strategies.aggregation import initial_adapter


def first_adapter(
    base: LoadedModel, blueprint: Blueprint, adapter: str, rank: int, seed: int, targets: str | Sequence[str] = ALL
) -> Adapter:
    """The global adapter of round 1: factors of ``rank`` on ``targets``, as the method called ``adapter`` begins."""
    shapes = {name: shape_of(base.model.get_submodule(name)) for name in targeted(blueprint, targets)}
    head = head_state(base.model, base.head)
    plain = initial_adapter(shapes, rank, head, seed)
    return ADAPTERS[adapter].begin(plain, blueprint, seed)
