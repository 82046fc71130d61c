"""FedAvgM: momentum over the rounds (Hsu et al., arXiv 1909.06335), by Flower."""

from slimfed.strategies.server.base import SERVER_OPTIMIZERS, Arrays, Memory, ServerOptimizer, out_of, under


@SERVER_OPTIMIZERS.register("fedavgm")
class MomentumStep(ServerOptimizer):
    """Momentum over the rounds, with the aggregate's change as the gradient.

    v <- momentum * v + (before - after); before - learning_rate * v is next.
    """

    def step(self, before: Arrays, after: Arrays, memory: Memory, number: int) -> tuple[Arrays, Memory]:
        """One step; the velocity is kept."""
        from slimfed.strategies.server.flower import AveragedFedAvgM, record  # importing Flower takes a second

        rate = 1.0 if self.spec.learning_rate is None else self.spec.learning_rate
        strategy = AveragedFedAvgM(server_learning_rate=rate, server_momentum=self.spec.momentum)
        velocity = out_of("velocity", memory)
        strategy.current_arrays = record(before)
        strategy.averaged = record(after)
        strategy.momentum_vector = [velocity[name] for name in after] if velocity else None
        result, _ = strategy.aggregate_train(number, ())
        assert result is not None
        kept = dict(zip(after, strategy.momentum_vector or (), strict=bool(strategy.momentum_vector)))
        return {name: array.numpy() for name, array in result.items()}, under("velocity", kept)
