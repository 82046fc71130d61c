"""Server optimisers by name. A new optimiser is one file here, whose class is registered."""

from slimfed.strategies.server.base import SERVER_OPTIMIZERS, Memory, ServerOptimizer, moved

__all__ = ["SERVER_OPTIMIZERS", "Memory", "ServerOptimizer", "moved"]
