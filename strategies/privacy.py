"""Central differential privacy: the server clips every update and adds noise to their mean."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flwr.supercore.differential_privacy import compute_adaptive_noise_params, compute_stdv

from slimfed.clients.adapter import Adapter
from slimfed.clients.privacy import clipped, epsilon_of, mean_shift
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.spec import PrivacySpec
from slimfed.clients.update import Update
from slimfed.strategies.aggregation.tensor_terms import Terms, rebuilt


@dataclass(frozen=True)
class Clipped:
    """Updates of norm at most ``norm``, with equal weights, and the norm for the next round."""

    updates: list[Update]
    norm: float
    next_norm: float


def clip(
    updates: Sequence[Update], before: Adapter, spec: PrivacySpec, norm: float, draw: np.random.Generator
) -> Clipped:
    """Clip the updates of a round to ``norm``.

    With adaptive clipping the next norm follows a noisy share of the updates that were clipped: the norm moves towards
    the quantile ``target_quantile`` of the updates' own norms (Andrew et al., arXiv 1905.03871).
    """
    dense = updates[0].report.structure.blueprint.dense()
    pairs = [clipped(u, narrow(before, dense, u.report.structure, u.report.rank), norm) for u in updates]
    kept = [update.with_report(examples=1) for update, _ in pairs]
    if spec.clipping == "fixed":
        return Clipped(kept, norm, norm)
    count_deviation, _ = compute_adaptive_noise_params(spec.noise_multiplier, len(updates), None)
    within = (sum(not cut for _, cut in pairs) + count_deviation * draw.standard_normal()) / len(updates)
    return Clipped(kept, norm, norm * math.exp(-spec.clip_learning_rate * (within - spec.target_quantile)))


def add_noise(
    mean: Adapter, updates: Sequence[Update], spec: PrivacySpec, norm: float, draw: np.random.Generator
) -> Adapter:
    """``mean`` of clipped ``updates`` with Gaussian noise: of every coordinate's sum, ``noise_multiplier * norm``.

    The mean of a coordinate with n owners gets an n-th of it. The number of owners is not secret, since structures and
    ranks do not depend on the text (``platform/job/compatibility.py`` refuses other jobs). Coordinates without owner
    get no noise.
    """
    multiplier = spec.noise_multiplier
    if spec.clipping == "adaptive":
        _, multiplier = compute_adaptive_noise_params(spec.noise_multiplier, len(updates), None)

    def noisy(terms: Terms) -> np.ndarray:
        owners = np.zeros(terms.before.shape)
        for _, where in terms.parts:
            owners[where] += 1
        deviation = np.divide(compute_stdv(multiplier, norm, 1), owners, out=np.zeros_like(owners), where=owners > 0)
        return (terms.before + deviation * draw.standard_normal(owners.shape)).astype(np.float32)

    return rebuilt(mean, updates, noisy)


def spent(spec: PrivacySpec, times: int) -> float | None:
    """Epsilon at ``privacy.delta`` after ``times`` disclosures about every device; None without privacy.

    Central: a disclosure is a global model that leaves the server, one a finished round; it hides whether a device took
    part at all. Local: a disclosure is an update that a device has sent, one a round and one for each repetition, since
    each has its own noise. There is no amplification by sampling, since all devices take part in all rounds.
    """
    if spec.kind == "central":
        return epsilon_of(math.sqrt(times) / spec.noise_multiplier, spec.delta)
    if spec.kind == "local":
        return epsilon_of(math.sqrt(times) * mean_shift(spec.epsilon, spec.delta), spec.delta)
    return None
