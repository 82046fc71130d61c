"""Differential privacy of updates: clipping, noise, and the epsilon spent."""

import math
from dataclasses import replace

import numpy as np
from flwr.supercore.differential_privacy import get_norm

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.spec import PrivacySpec
from slimfed.clients.update import Update


def clipped(update: Update, sent: Adapter, norm: float) -> tuple[Update, bool]:
    """The update with its difference from what was ``sent`` (in its own shape) scaled down to an L2 ``norm``.

    Also returns whether it was scaled (FlatClip, McMahan et al., arXiv 1710.06963).
    """
    pairs = list(zip(update.adapter.tensors(), sent.tensors(), strict=True))
    size = get_norm([now.astype(np.float64) - then for now, then in pairs])
    if size <= norm:
        return update, False
    return _with(update, [then + (now.astype(np.float64) - then) * (norm / size) for now, then in pairs]), True


def localised(update: Update, sent: Adapter, spec: PrivacySpec, draw: np.random.Generator) -> Update:
    """The update under local privacy: a clipped and noisy adapter, and no other value that depends on the text.

    The sensitivity is twice the clipping norm, the largest distance of two clipped adapters. An adapter with a value
    that is not finite counts as one that did not move, since noise does not hide such a value. Losses, times, memory,
    examples and scores are blank; the work was counted for the largest batches (``training/work.py``).
    """
    if not all(np.isfinite(tensor).all() for tensor in update.adapter.tensors()):
        update = replace(update, adapter=sent)
    safe, _ = clipped(update, sent, spec.clipping_norm)
    deviation = 2 * spec.clipping_norm / mean_shift(spec.epsilon, spec.delta)
    noisy = [tensor + deviation * draw.standard_normal(tensor.shape) for tensor in safe.adapter.tensors()]
    blank = replace(_with(safe, noisy), scores=np.zeros_like(update.scores))
    return blank.with_report(
        loss_before=0.0,
        loss_after=0.0,
        importance=0.0,
        examples=1,
        seconds=0.0,
        measured_memory_bytes=0,
        evaluation=None,
        effective_rank=sent.effective_rank,
    )


def _with(update: Update, tensors: list[np.ndarray]) -> Update:
    """The update with other values, in the order of ``Adapter.tensors``; it is of a plain LoRA adapter."""
    values = iter([tensor.astype(np.float32) for tensor in tensors])
    factors = {name: Factors(next(values), next(values)) for name in update.adapter.factors}
    head = {name: next(values) for name in update.adapter.head}
    return replace(update, adapter=Adapter(factors, head))


def delta_of(epsilon: float, shift: float) -> float:
    """The delta at which a Gaussian mechanism of mean ``shift`` (sensitivity / deviation) is ``epsilon``-private.

    Exact (Balle and Wang, arXiv 1805.06530, theorem 8). T such mechanisms in a row are one of sqrt(T) times the shift
    (Dong et al., arXiv 1905.02383, corollary 3.3).
    """
    second = _normal(-epsilon / shift - shift / 2)
    return _normal(-epsilon / shift + shift / 2) - (math.exp(epsilon) * second if second > 0 else 0.0)


def epsilon_of(shift: float, delta: float) -> float:
    """The epsilon that a Gaussian mechanism of mean ``shift`` spends at ``delta``; rounded up in the sixth digit."""
    if shift == 0:
        return 0.0
    low, high = 0.0, 1.0
    while delta_of(high, shift) > delta:
        if high > 600:  # beyond this exp overflows, and there is no privacy
            return math.inf
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_of(middle, shift) > delta else (low, middle)
    return math.ceil(high * 1e6) / 1e6


def mean_shift(epsilon: float, delta: float) -> float:
    """Inverse of :func:`epsilon_of`: the largest shift that is (epsilon, delta)-private."""
    low, high = 0.0, 1.0
    while delta_of(epsilon, high) < delta and high < 1e6:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_of(epsilon, middle) < delta else (low, middle)
    return low


def _normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))
