"""Adapters in fewer bits: bf16, or int8 with a power of two as scale; and the memory of rounding errors.

Error feedback (Seide et al. 2014, 1-bit SGD; Karimireddy et al., arXiv 1901.09847): the message is Q(x + e), and e <- x
+ e - Q(x + e) is added to the next message. So the sum of all messages differs from the sum of all x by the last e
only. An exact 0 is sent as 0 and keeps its e, since zeros mark missing parts.

Scales are powers of two, one for every rank of a factor and one for every head tensor. A part of a rounded tensor,
sliced along any structure and rank, is therefore already rounded, and packing it is exact.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.pruning.adapter_slicing import narrow, widen
from slimfed.clients.spec import Precision
from slimfed.clients.structure import Structure

_LARGEST = 127
_ODD = -128
"""Value of an exponent if the numbers are not all finite, which the receiver must detect."""
_BYTES = {"fp32": 4, "bf16": 2, "int8": 1}


def value_bytes(numbers: int, scales: int, precision: Precision) -> int:
    """Bytes of this many numbers; ``scales``: number of int8 scales, a byte each."""
    return numbers * _BYTES[precision] + (scales if precision == "int8" else 0)


def adapter_bytes(adapter: Adapter, precision: Precision) -> int:
    """Bytes of an adapter in a message."""
    if precision == "fp32":
        return adapter.nbytes
    parts = list(_parts(adapter))
    return value_bytes(sum(part.size for part, _ in parts), sum(_groups(*part) for part in parts), precision)


def pack(adapter: Adapter, precision: Precision) -> tuple[np.ndarray, np.ndarray | None]:
    """All numbers in the order of ``Adapter.tensors``: float32, uint16 (the bits of bf16) or int8; and int8 exponents.

    Exact for the result of :func:`rounded`, or a part of it.
    """
    if precision == "bf16":
        return np.concatenate([_to_bits(part).ravel() for part, _ in _parts(adapter)]), None
    if precision == "int8":
        pairs = [_to_int8(part, axis) for part, axis in _parts(adapter)]
        return np.concatenate([k.ravel() for k, _ in pairs]), np.concatenate([e.ravel() for _, e in pairs])
    return adapter.vector.astype(np.float32, copy=False), None


def unpack(
    vector: np.ndarray, exponents: np.ndarray | None, shapes: list[tuple[tuple[int, ...], int | None]], kind: Precision
) -> np.ndarray:
    """Inverse of :func:`pack`, float32; ``shapes``: of every tensor, and its axis of scales (:data:`FACTOR_AXES`).

    Raises ``ValueError`` if the arrays do not fit ``kind``.
    """
    wanted = {"fp32": np.float32, "bf16": np.uint16, "int8": np.int8}[kind]
    if vector.dtype != wanted or vector.ndim != 1:
        raise ValueError(f"adapter must be a {np.dtype(wanted)} vector, got {vector.dtype} {list(vector.shape)}")
    if kind == "fp32":
        return vector
    if kind == "bf16":
        return (vector.astype(np.uint32) << 16).view(np.float32)
    count = sum(_groups(np.empty(shape, np.int8), axis) for shape, axis in shapes)
    if exponents is None or exponents.dtype != np.int8 or exponents.shape != (count,):
        raise ValueError(f"exponents must be int8 [{count}]")
    scales = np.where(exponents == _ODD, np.float32(np.nan), _power(exponents))
    whole, at, group = np.empty(vector.size, np.float32), 0, 0
    for shape, axis in shapes:
        size, groups = int(np.prod(shape)), 1 if axis is None else shape[axis]
        own = scales[group : group + groups]
        own = own if axis is None else own.reshape([-1 if d == axis else 1 for d in range(len(shape))])
        np.multiply(vector[at : at + size].reshape(shape), own, out=whole[at : at + size].reshape(shape))
        at, group = at + size, group + groups
    return whole


FACTOR_AXES = (0, 1)
"""The axis with one scale for each entry: for a and b that of the rank. Other tensors have one scale, axis ``None``."""


def rounded(adapter: Adapter, precision: Precision) -> Adapter:
    """The adapter rounded to ``precision``."""
    vector, exponents = pack(adapter, precision)
    parts = [(part.shape, axis) for part, axis in _parts(adapter)]
    return adapter.with_vector(unpack(vector, exponents, parts, precision))


def compensated(adapter: Adapter, memory: Adapter | None, precision: Precision) -> tuple[Adapter, Adapter]:
    """The rounded ``adapter`` to send, and the next memory; ``memory`` of the same shapes is the last one."""
    true = adapter.vector
    before = np.zeros_like(true) if memory is None else memory.vector
    there = true != 0
    meant = np.where(there, true + before, np.float32(0.0))
    sent = np.where(there, rounded(adapter.with_vector(meant), precision).vector, np.float32(0.0))
    with np.errstate(invalid="ignore"):  # infinity minus infinity is not stored
        left = np.where(there & np.isfinite(sent), meant - sent, before)
    return adapter.with_vector(sent), adapter.with_vector(left)


def kept(memory: Adapter, had: Structure, has: Structure, rank: int) -> Adapter:
    """A memory in the shape of ``had``, for a device that now has ``has`` and trains ``rank``.

    Errors of parts that it no longer has or trains are dropped; new units and ranks start at 0.
    """
    if not has.within(had):  # a device of small memory that now trains what the others train
        memory, had = widen(memory, had), had.blueprint.dense()
    cut = narrow(memory, had, has, rank)
    factors = {
        name: Factors(np.pad(f.a, ((0, rank - len(f.a)), (0, 0))), np.pad(f.b, ((0, 0), (0, rank - f.b.shape[1]))))
        for name, f in cut.factors.items()
    }
    return replace(cut, factors=factors)


def _parts(adapter: Adapter) -> Iterator[tuple[np.ndarray, int | None]]:
    """Every tensor in the order of ``Adapter.tensors``, and its axis of scales."""
    for factors in adapter.factors.values():
        yield from zip((factors.a, factors.b), FACTOR_AXES, strict=True)
    for tensor in adapter.head.values():
        yield tensor, None


def _groups(tensor: np.ndarray, axis: int | None) -> int:
    return 1 if axis is None else tensor.shape[axis]


def _to_bits(tensor: np.ndarray) -> np.ndarray:
    """The upper half of each float32, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(tensor, dtype=np.float32).view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(tensor), np.uint32(0x7FC0), nearest).astype(np.uint16)


def _to_int8(tensor: np.ndarray, axis: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Multiples of the smallest power of two that covers all numbers, and its exponents."""
    others = tuple(d for d in range(tensor.ndim) if d != axis)
    largest = np.abs(tensor).max(axis=others, keepdims=True, initial=0.0).astype(np.float64)
    finite = np.isfinite(largest)
    exponent = np.frexp(np.where(finite, largest, 0.0) / _LARGEST)[1]
    # frexp rounds up to the next power; the quotient itself is rounded, so the bound is checked where nothing is.
    exponent = np.where(np.ldexp(float(_LARGEST), exponent - 1) >= largest, exponent - 1, exponent)
    exponent = np.clip(np.where(largest == 0, 0, exponent), _ODD + 1, 127)
    known = tensor if finite.all() else np.where(finite, tensor, np.float32(0.0))
    steps = np.rint(known * _power(-exponent))
    return steps.astype(np.int8), np.where(finite, exponent, _ODD).astype(np.int8)


def _power(exponents: np.ndarray) -> np.ndarray:
    """2 ** exponents, float32. A product with it is exact, and many times as fast as ``np.ldexp``."""
    return np.ldexp(np.float32(1.0), exponents.astype(np.int32))
