"""FedAvgM: momentum over the rounds (Hsu et al., arXiv 1909.06335), by Flower."""

from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import FedAvgM

from slimfed.strategies.server.base import Arrays, Averaged, Memory, ServerOptimizer, out_of, under


class MomentumStep(ServerOptimizer):
    """v <- momentum * v + (before - after); before - learning_rate * v is next."""

    def step(self, before: Arrays, after: Arrays, memory: Memory, number: int) -> tuple[Arrays, Memory]:
        """One step; the velocity is kept."""
        rate = 1.0 if self.spec.learning_rate is None else self.spec.learning_rate
        strategy = _FedAvgM(server_learning_rate=rate, server_momentum=self.spec.momentum)
        velocity = out_of("velocity", memory)
        strategy.current_arrays = _record(before)
        strategy.averaged = _record(after)
        strategy.momentum_vector = [velocity[name] for name in after] if velocity else None
        result, _ = strategy.aggregate_train(number, ())
        assert result is not None
        kept = dict(zip(after, strategy.momentum_vector or (), strict=bool(strategy.momentum_vector)))
        return {name: array.numpy() for name, array in result.items()}, under("velocity", kept)


class _FedAvgM(FedAvgM, Averaged):
    """Flower's step on an average that is there."""


def _record(arrays: Arrays) -> ArrayRecord:
    return ArrayRecord({name: Array(value) for name, value in arrays.items()})
