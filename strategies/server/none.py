"""No server optimiser: the aggregate is the next adapter."""

from slimfed.strategies.server.base import Arrays, Memory, ServerOptimizer


class NoStep(ServerOptimizer):
    """Takes the aggregate as it is."""

    def step(self, before: Arrays, after: Arrays, memory: Memory, number: int) -> tuple[Arrays, Memory]:
        """The aggregate itself."""
        return after, {}
