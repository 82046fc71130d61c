"""FedAdam: Adam over the rounds (Reddi et al., arXiv 2003.00295), by Flower."""

from slimfed.strategies.server.base import SERVER_OPTIMIZERS, Arrays, Memory, ServerOptimizer, out_of, under


@SERVER_OPTIMIZERS.register("fedadam")
class AdamStep(ServerOptimizer):
    """Adam over the rounds, with the aggregate's change as the gradient.

    before + rate * m / (sqrt(v) + tau) is next, with the moments m and v of after - before. As Flower has it, the
    rate's bias correction counts round t as step t + 1.
    """

    def step(self, before: Arrays, after: Arrays, memory: Memory, number: int) -> tuple[Arrays, Memory]:
        """One step; both moments are kept."""
        from slimfed.strategies.server.flower import AveragedFedAdam, record  # importing Flower takes a second

        spec = self.spec
        rate = 0.01 if spec.learning_rate is None else spec.learning_rate
        strategy = AveragedFedAdam(eta=rate, beta_1=spec.beta_1, beta_2=spec.beta_2, tau=spec.tau)
        strategy.current_arrays = dict(before)
        strategy.averaged = record(after)
        strategy.m_t, strategy.v_t = out_of("first", memory), out_of("second", memory)
        result, _ = strategy.aggregate_train(number, ())
        assert result is not None
        kept = under("first", strategy.m_t or {}) | under("second", strategy.v_t or {})
        return {name: array.numpy() for name, array in result.items()}, kept
