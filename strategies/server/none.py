"""No server optimiser: the aggregate is the next adapter."""

from slimfed.strategies.server.base import SERVER_OPTIMIZERS, Arrays, Memory, ServerOptimizer


@SERVER_OPTIMIZERS.register("none")
class NoStep(ServerOptimizer):
    """The aggregate, unchanged."""

    moves = False

    def step(self, before: Arrays, after: Arrays, memory: Memory, number: int) -> tuple[Arrays, Memory]:
        """The aggregate itself."""
        return after, {}
