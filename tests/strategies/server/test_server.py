"""Server optimisers do what Flower's strategies do, over rounds, on factors and head, from what a checkpoint holds."""

from dataclasses import replace

import numpy as np
import pytest
from aggregating import global_adapter, tensors
from hypothesis import given
from hypothesis import strategies as st

from slimfed.clients.adapter import Adapter, Delta, Factors
from slimfed.strategies.server import SERVER_OPTIMIZERS, moved
from slimfed.strategies.server.spec import ServerSpec

seeds = st.lists(st.integers(0, 2**31), min_size=1, max_size=4)


def course(spec: ServerSpec, rounds: list[int]) -> list[Adapter]:
    """The adapters after each round whose aggregates are random; only memory and adapter pass from one to the next."""
    adapter, memory, passed = global_adapter(1), {}, []
    for number, seed in enumerate(rounds, 1):
        optimizer = SERVER_OPTIMIZERS[spec.optimizer](spec)
        adapter, memory = moved(optimizer, adapter, global_adapter(seed), memory, number)
        assert all(value.dtype == np.float32 for value in (*memory.values(), *adapter.tensors()))
        passed.append(adapter)
    return passed


@given(rounds=seeds, rate=st.sampled_from([0.3, 1.0]), momentum=st.sampled_from([0.0, 0.5, 0.9]))
def test_fedavgm_is_torch_s_momentum_on_the_change(rounds: list[int], rate: float, momentum: float) -> None:
    """arXiv 1909.06335: v <- momentum v + (w - aggregate), w <- w - rate v."""
    w = {name: value.astype(np.float64) for name, value in tensors(global_adapter(1)).items()}
    v = {name: np.zeros_like(value) for name, value in w.items()}
    spec = ServerSpec(optimizer="fedavgm", learning_rate=rate, momentum=momentum)
    for seed, adapter in zip(rounds, course(spec, rounds), strict=True):
        for name, aggregate in tensors(global_adapter(seed)).items():
            v[name] = momentum * v[name] + w[name] - aggregate
            w[name] = w[name] - rate * v[name]
            np.testing.assert_allclose(tensors(adapter)[name], w[name], rtol=1e-4, atol=1e-4)


@given(rounds=seeds, tau=st.sampled_from([1e-3, 0.1]))
def test_fedadam_is_adam_on_the_change(rounds: list[int], tau: float) -> None:
    """arXiv 2003.00295, algorithm 2, with Adam's bias correction of the rate, in which round t is step t + 1."""
    w = {name: value.astype(np.float64) for name, value in tensors(global_adapter(1)).items()}
    m, u = ({name: np.zeros_like(value) for name, value in w.items()} for _ in range(2))
    passed = course(ServerSpec(optimizer="fedadam", learning_rate=0.02, tau=tau), rounds)
    for number, (seed, adapter) in enumerate(zip(rounds, passed, strict=True), 1):
        rate = 0.02 * np.sqrt(1 - 0.99 ** (number + 1)) / (1 - 0.9 ** (number + 1))
        for name, aggregate in tensors(global_adapter(seed)).items():
            change = aggregate - w[name]
            m[name] = 0.9 * m[name] + 0.1 * change
            u[name] = 0.99 * u[name] + 0.01 * change**2
            w[name] = w[name] + rate * m[name] / (np.sqrt(u[name]) + tau)
            np.testing.assert_allclose(tensors(adapter)[name], w[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spec", [ServerSpec(), ServerSpec(optimizer="fedavgm", momentum=0.0)])
def test_without_momentum_the_aggregate_is_taken_as_it_is(spec: ServerSpec) -> None:
    for seed, adapter in zip((3, 4), course(spec, [3, 4]), strict=True):
        for name, value in tensors(adapter).items():
            np.testing.assert_array_equal(value, tensors(global_adapter(seed))[name])


def test_no_optimiser_leaves_every_part_of_an_adapter_alone() -> None:
    plain = global_adapter(3)
    gated = {name: Factors(f.a, f.b, np.ones(len(f.a), np.float32)) for name, f in plain.factors.items()}
    delta = Delta((2, 2), np.ones(1, np.float32), np.zeros(1, np.int32), np.ones(1, np.uint16))
    full = replace(plain, factors=gated, deltas={"m": delta}, extra={"z": np.ones(2, np.float32)})
    after, memory = moved(SERVER_OPTIMIZERS["none"](ServerSpec()), full, full, {}, 1)
    assert not memory
    assert [f.parts().keys() for f in after.factors.values()] == [f.parts().keys() for f in gated.values()]
    for one, other in zip(after.tensors(), full.tensors(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("optimizer", ["fedavgm", "fedadam"])
def test_a_round_that_changed_nothing_is_no_gradient(optimizer: str) -> None:
    for value in zip(
        course(ServerSpec(optimizer=optimizer), [1, 1])[-1].tensors(), global_adapter(1).tensors(), strict=True
    ):
        np.testing.assert_array_equal(*value)
