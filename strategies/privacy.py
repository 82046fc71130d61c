"""Central differential privacy: the server clips every update, adds noise to their sum, and divides it.

One device's message changes the un-noised sum by at most the clipping norm, whatever the message is:

- Before clipping an update meets only checks that depend on no other device's (``reply_validation.py``).
- All weights are 1, and what a sum is divided by follows from the plan, which was fixed before any device answered: a
  device whose update is missing or refused counts as one that did not move.
- The devices' structures are drawn by the server (:func:`drawn_structure`), and scores of devices are not used.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from flwr.supercore.differential_privacy import compute_adaptive_noise_params, compute_stdv

from slimfed.clients.adapter import Adapter
from slimfed.clients.privacy import epsilon_of, mean_shift
from slimfed.clients.pruning.selection import select
from slimfed.clients.seeds import derive
from slimfed.clients.spec import PrivacySpec, TaskSpec
from slimfed.clients.structure import Structure
from slimfed.clients.update import Assignment, Update
from slimfed.strategies.coordinates.global_vector import GlobalVector
from slimfed.strategies.coordinates.weights import Weights
from slimfed.strategies.server_state import Fleet


@dataclass(frozen=True)
class ClippedSum:
    """What is released of a round's updates, before the noise.

    ``moves``: float64 [n], the sum of the clipped changes in the coordinates of the global adapter. ``within``: the sum
    of one half for each update that was not clipped, and minus one half for each that was (Andrew et al., arXiv
    1905.03871, section 2.1); one device changes it by at most one half.
    """

    moves: torch.Tensor
    within: float


@dataclass(frozen=True)
class Release:
    """The noisy mean of a round, and the clipping norm for the next one."""

    adapter: Adapter
    next_norm: float


def release(
    space: GlobalVector,
    updates: Iterable[Update],
    assignments: Collection[Assignment],
    spec: PrivacySpec,
    norm: float,
    draw: np.random.Generator,
) -> Release:
    """The global adapter after a round, with Gaussian noise on the sum of the clipped ``updates``.

    ``assignments``: of all devices that were asked, whether they answered or not; a coordinate's sum is divided by the
    number of those that own it. A coordinate without owner keeps its value, and gets no noise. With adaptive clipping
    the next norm moves towards the quantile ``target_quantile`` of the updates' norms, by a noisy count.
    """
    total, owners = clipped_sum(space, updates, norm), planned_owners(space, assignments)
    multiplier, next_norm = spec.noise_multiplier, norm
    if spec.clipping == "adaptive":
        devices = len(assignments)
        count_deviation, multiplier = compute_adaptive_noise_params(spec.noise_multiplier, devices, None)
        share = (total.within + count_deviation * draw.standard_normal()) / devices + 0.5
        next_norm = norm * math.exp(-spec.clip_learning_rate * (share - spec.target_quantile))
    deviation = compute_stdv(multiplier, norm, 1)
    noise = torch.from_numpy(deviation * draw.standard_normal(len(space))).to(space.device)
    mean = torch.where(owners > 0, (total.moves + noise) / owners.clamp(min=1.0), 0.0)
    return Release(space.adapter((space.values.double() + mean).float()), next_norm)


def clipped_sum(space: GlobalVector, updates: Iterable[Update], norm: float) -> ClippedSum:
    """The sum of the changes of ``updates``, each scaled down to an L2 ``norm``.

    FlatClip, McMahan et al., arXiv 1710.06963.
    """
    moves, within = torch.zeros(len(space), dtype=torch.float64, device=space.device), 0.0
    for update in sorted(updates, key=lambda each: each.device):
        placed = space.place(update)
        move = (placed.values.double() - space.values.double()) * placed.owned
        size = float(torch.linalg.vector_norm(move))
        moves += move * min(1.0, norm / size) if size > 0 else 0.0
        within += 0.5 if size <= norm else -0.5
    return ClippedSum(moves, within)


def planned_owners(space: GlobalVector, assignments: Iterable[Assignment]) -> torch.Tensor:
    """Number of planned devices that own each coordinate, float64 [n]."""
    weights, devices = Weights(space), 0
    for each in assignments:
        weights.add(1, each.structure.keep, each.rank)
        devices += 1
    owners = weights.total()
    owners[space.shared :] = devices
    return owners


def drawn_structure(
    structure: Structure, sparsity: float, task: TaskSpec, target: float, number: int, device: int
) -> Structure:
    """A device's ``structure``, cut to ``sparsity`` by scores that are drawn from the run's seed.

    So it depends on no device's text, nor on whether a device answered.
    """
    draw = np.random.default_rng(derive(task.seed, "structure", number, device))
    return select(structure, draw.random(structure.blueprint.units), sparsity, task.pruning.scope, target)


def shares_kept(structures: Sequence[Structure]) -> np.ndarray:
    """The share of ``structures`` that has each unit, float32 [units]: public scores, in place of the devices'."""
    kept = np.stack([structure.keep for structure in structures])
    return (kept.sum(axis=0) / len(kept)).astype(np.float32)


def spent(spec: PrivacySpec, times: int) -> float | None:
    """Epsilon at ``privacy.delta`` after ``times`` disclosures about a device; None without privacy.

    Central: a disclosure is a global model that leaves the server, one a finished round; it hides whether a device sent
    its update or one that counts for nothing. Local: a disclosure is an update that a device has sent, one a round and
    one for each repetition, since each has its own noise.
    """
    if spec.kind == "central":
        return epsilon_of(math.sqrt(times) / spec.noise_multiplier, spec.delta)
    if spec.kind == "local":
        return epsilon_of(math.sqrt(times) * mean_shift(spec.epsilon, spec.delta), spec.delta)
    return None


def most_disclosed(fleet: Fleet, disclosures: int) -> int:
    """Disclosures about the device that was asked most often, after the fleet's last round.

    ``disclosures``: all of the run. Who is asked depends on no device's text (``Selector.independent_of_text``), so a
    round tells nothing of a device that it did not ask. Disclosures of abandoned and repeated rounds count for every
    device. No amplification by sampling is claimed: a fixed number of devices is drawn by the run's seed, which is no
    secret, and not each device by itself (Poisson sampling), which the theorems on the sampled Gaussian mechanism ask
    for.
    """
    return fleet.most_asked + max(0, disclosures - fleet.round)
