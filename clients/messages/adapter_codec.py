"""An adapter as one vector with its names and shapes beside it, and back.

Every array is one object of Flower's object store, so a device's tensors are sent as one vector.
"""

import json
import math
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from flwr.app import Array

from slimfed.clients.adapter import Adapter, Delta, Factors
from slimfed.clients.messages.quantization import FACTOR_AXES, pack, unpack
from slimfed.clients.spec import Precision


def encode_adapter(adapter: Adapter, precision: Precision) -> tuple[dict[str, Array], str]:
    """All tensors as one vector, its exponents (int8 only), and their names and shapes as JSON."""
    layout = {
        "factors": {name: [*f.a.shape, f.b.shape[0]] for name, f in adapter.factors.items()},
        "gated": any(f.gate is not None for f in adapter.factors.values()),
        "deltas": {name: [*d.shape, d.values.size] for name, d in adapter.deltas.items()},
        "extra": {name: list(t.shape) for name, t in adapter.extra.items()},
        "head": {name: list(t.shape) for name, t in adapter.head.items()},
        "residual": {name: list(t.shape) for name, t in adapter.residual.items()},
    }
    vector, exponents = pack(adapter, precision)
    arrays = {"adapter": Array(vector)} | ({} if exponents is None else {"exponents": Array(exponents)})
    return arrays, json.dumps(layout)


def encode_entries(adapter: Adapter) -> dict[str, Array]:
    """Indices (int32) and levels (uint16) of the deltas' values, [values], if the receiver does not know them."""
    arrays = {}
    for name in ("indices", "levels"):
        parts = [getattr(delta, name) for delta in adapter.deltas.values()]
        if parts and all(part is not None for part in parts):
            arrays[name] = Array(np.concatenate(parts))
    return arrays


def decode_adapter(arrays: Any, text: str, precision: Precision) -> Adapter:
    """Inverse of :func:`encode_adapter` and :func:`encode_entries`.

    Raises ``ValueError`` if the layout does not fit the arrays.
    """
    layout, vector = json.loads(text), arrays["adapter"].numpy()
    gated = layout["gated"] is True
    shapes = [
        shape
        for rank, i, o in layout["factors"].values()
        for shape in (((rank, i), (o, rank), (rank,)) if gated else ((rank, i), (o, rank)))
    ]
    shapes += [(size,) for _, _, size in layout["deltas"].values()]
    shapes += [tuple(shape) for part in ("extra", "head", "residual") for shape in layout[part].values()]
    told = [*shapes, *((o, i) for o, i, _ in layout["deltas"].values())]
    if any(not isinstance(n, int) or n < 0 for shape in told for n in shape):
        raise ValueError("adapter layout has a size that is not a natural number")
    sizes = [math.prod(shape) for shape in shapes]
    if sum(sizes) != vector.size:
        raise ValueError(f"adapter layout promises {sum(sizes)} values, the vector has {vector.size}")
    axes = [*FACTOR_AXES * len(layout["factors"]), *[None] * len(layout["head"])] if precision != "fp32" else []
    exponents = arrays["exponents"].numpy() if "exponents" in arrays else None
    vector = unpack(vector, exponents, list(zip(shapes, axes, strict=bool(axes))), precision)
    ends = list(accumulate(sizes, initial=0))
    tensors = iter([vector[a:b].reshape(s) for a, b, s in zip(ends[:-1], ends[1:], shapes, strict=True)])
    factors = {
        name: Factors(next(tensors), next(tensors), next(tensors) if gated else None) for name in layout["factors"]
    }
    deltas = {
        name: Delta((o, i), next(tensors), *where)
        for (name, (o, i, _)), where in zip(layout["deltas"].items(), _decode_entries(arrays, layout), strict=True)
    }
    extra, head, residual = ({name: next(tensors) for name in layout[part]} for part in ("extra", "head", "residual"))
    return Adapter(factors, head, residual, deltas, extra).viewing(vector)


def _decode_entries(arrays: Any, layout: Any) -> list[tuple[np.ndarray | None, np.ndarray | None]]:
    """Indices and levels of every delta; None where they were not sent."""
    ends = np.cumsum([0, *(size for _, _, size in layout["deltas"].values())])
    columns = []
    for name, kind in (("indices", np.int32), ("levels", np.uint16)):
        if name not in arrays:
            columns.append([None] * (len(ends) - 1))
            continue
        whole = arrays[name].numpy()
        if whole.dtype != kind or whole.shape != (ends[-1],):
            raise ValueError(f"{name} of deltas must be {kind.__name__} [{ends[-1]}]")
        columns.append([whole[a:b] for a, b in pairwise(ends)])
    return list(zip(*columns, strict=True))
