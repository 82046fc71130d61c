"""All registries of names in job files and on the command line, in the order of display."""

from typing import Any

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.allocation import ALLOCATIONS
from slimfed.clients.export.formats.registry import FORMATS
from slimfed.clients.importance import IMPORTANCE
from slimfed.clients.registry import Registry
from slimfed.platform.fleet.profiles import PROFILES
from slimfed.platform.job.presets import PRESETS
from slimfed.platform.trackers import TRACKERS
from slimfed.strategies.aggregation import AGGREGATIONS
from slimfed.strategies.bandits import BANDITS
from slimfed.strategies.selection import SELECTORS
from slimfed.strategies.server import SERVER_OPTIMIZERS

REGISTRIES: tuple[Registry[Any], ...] = (
    PRESETS,
    ADAPTERS,
    BANDITS,
    AGGREGATIONS,
    SERVER_OPTIMIZERS,
    SELECTORS,
    IMPORTANCE,
    ALLOCATIONS,
    PROFILES,
    FORMATS,
    TRACKERS,
)
