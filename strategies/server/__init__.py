"""What the server makes of a round's aggregate, by name. A new optimiser is one file here, which registers itself."""

from slimfed.strategies.server.base import SERVER_OPTIMIZERS, Memory, ServerOptimizer, moved

__all__ = ["SERVER_OPTIMIZERS", "Memory", "ServerOptimizer", "moved"]
