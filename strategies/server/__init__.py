"""What the server makes of a round's aggregate, by name. A new optimiser is one file here and one line below."""

from slimfed.strategies.server.base import Memory, ServerOptimizer, moved
from slimfed.strategies.server.fedadam import AdamStep
from slimfed.strategies.server.fedavgm import MomentumStep
from slimfed.strategies.server.none import NoStep

SERVER_OPTIMIZERS: dict[str, type[ServerOptimizer]] = {
    "none": NoStep,
    "fedavgm": MomentumStep,
    "fedadam": AdamStep,
}

__all__ = ["SERVER_OPTIMIZERS", "Memory", "ServerOptimizer", "moved"]
