"""Updates of unequal devices over a toy model, for tests of aggregation."""

import numpy as np
from hypothesis import strategies as st

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.structure import Block, Blueprint, Cut, Structure
from slimfed.clients.update import Report, Update, Workload
from slimfed.strategies.coordinates.places import device_shapes

RANK = 4
# Two heads of width 2 (a fused projection with two parts, and a plain output), three channels; residual width 5.
BLUEPRINT = Blueprint(
    "toy",
    (
        Block("attention", 0, "attention", 2, 40, (Cut("qk", "out", 2, (0, 4)), Cut("o", "in", 2))),
        Block("ffn", 0, "ffn", 3, 10, (Cut("up", "out", 1), Cut("down", "in", 1))),
    ),
)
SHAPES = {"qk": (8, 5), "o": (5, 4), "up": (3, 5), "down": (5, 3)}


def random_adapter(rng: np.random.Generator, shapes, scale: float = 1.0) -> Adapter:
    def tensor(shape):
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    return Adapter({m: Factors(tensor(a), tensor(b)) for m, (a, b) in shapes.items()}, {"head.weight": tensor((2, 5))})


def global_adapter(seed: int = 0) -> Adapter:
    return random_adapter(np.random.default_rng(seed), {m: ((RANK, i), (o, RANK)) for m, (o, i) in SHAPES.items()})


def make_update(device: int, keep, rank: int, examples: int, scale: float = 1.0) -> Update:
    structure = Structure(BLUEPRINT, np.array(keep, dtype=bool))
    shapes = device_shapes(global_adapter(), structure, rank)
    report = Report(
        device=device,
        round=1,
        rank=rank,
        effective_rank=float(rank),
        structure=structure,
        loss_before=1.0,
        loss_after=0.5,
        importance=1.0,
        examples=examples,
        seconds=1.0,
        measured_memory_bytes=1,
        workload=Workload(1.0, 1.0, 1.0),
        evaluation=None,
    )
    adapter = random_adapter(np.random.default_rng(device), shapes, scale)
    return Update(report, adapter, np.zeros(BLUEPRINT.units, dtype=np.float32))


keeps = st.tuples(
    st.sampled_from([(1, 0), (0, 1), (1, 1)]),
    st.sampled_from([(1, 0, 0), (0, 1, 0), (0, 1, 1), (1, 0, 1), (1, 1, 1)]),
).map(lambda parts: [*parts[0], *parts[1]])
members = st.tuples(keeps, st.integers(1, RANK), st.integers(1, 5000), st.sampled_from([1e-6, 1.0, 1e3]))
fleets = st.lists(members, min_size=1, max_size=6).map(
    lambda rows: [make_update(device, *row) for device, row in enumerate(rows)]
)


def tensors(adapter: Adapter) -> dict[str, np.ndarray]:
    named = {f"{m}.{side}": getattr(f, side) for m, f in adapter.factors.items() for side in "ab"}
    return named | adapter.head
