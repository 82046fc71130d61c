"""The adapter that a run starts from."""

import math
from collections.abc import Mapping

import numpy as np

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.errors import InputError
from slimfed.clients.seeds import derive


def initial_adapter(
    shapes: Mapping[str, tuple[int, int]], rank: int, head: Mapping[str, np.ndarray], seed: int
) -> Adapter:
    """A global adapter of the largest ``rank`` that changes nothing yet, the same for the same ``seed``.

    ``shapes`` gives (out, in) of every adapted module. As in PEFT, a is Kaiming-uniform with slope sqrt(5), which is
    uniform in [-1/sqrt(in), 1/sqrt(in)], and b is zero. Every module draws from a seed of its own, so that the order of
    ``shapes`` does not matter. ``head`` is copied. Raises ``InputError`` if the rank is larger than a module.
    """
    for module, shape in shapes.items():
        if rank > min(shape):
            raise InputError(
                f"bandit.ranks: rank {rank} is larger than {module} ({shape[0]} x {shape[1]}); "
                f"valid: at most {min(shape)}"
            )
    factors = {module: initial_factors(*shape, rank, seed, module) for module, shape in shapes.items()}
    return Adapter(factors, {name: np.array(tensor, dtype=np.float32) for name, tensor in head.items()})


def initial_factors(rows: int, columns: int, rank: int, seed: int, module: str) -> Factors:
    """Fresh factors of one module: a drawn, b zero."""
    bound = 1.0 / math.sqrt(columns)
    draw = np.random.default_rng(derive(seed, "adapter", module))
    a = draw.uniform(-bound, bound, (rank, columns)).astype(np.float32)
    return Factors(a, np.zeros((rows, rank), dtype=np.float32))
