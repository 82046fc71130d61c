"""FedAdam: Adam over the rounds (Reddi et al., arXiv 2003.00295), by Flower."""

from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import FedAdam

from slimfed.strategies.server.base import Arrays, Averaged, Memory, ServerOptimizer, out_of, under


class AdamStep(ServerOptimizer):
    """before + rate * m / (sqrt(v) + tau) is next, with the moments m and v of after - before.

    As Flower has it, the rate's bias correction counts round t as step t + 1.
    """

    def step(self, before: Arrays, after: Arrays, memory: Memory, number: int) -> tuple[Arrays, Memory]:
        """One step; both moments are kept."""
        spec = self.spec
        rate = 0.01 if spec.learning_rate is None else spec.learning_rate
        strategy = _FedAdam(eta=rate, beta_1=spec.beta_1, beta_2=spec.beta_2, tau=spec.tau)
        strategy.current_arrays = dict(before)
        strategy.averaged = ArrayRecord({name: Array(value) for name, value in after.items()})
        strategy.m_t, strategy.v_t = out_of("first", memory), out_of("second", memory)
        result, _ = strategy.aggregate_train(number, ())
        assert result is not None
        kept = under("first", strategy.m_t or {}) | under("second", strategy.v_t or {})
        return {name: array.numpy() for name, array in result.items()}, kept


class _FedAdam(FedAdam, Averaged):
    """Flower's step on an average that is there."""
