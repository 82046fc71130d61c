"""SoRA: LoRA with a gate that switches ranks off."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.adapters.base import ADAPTERS, AdapterMethod
from slimfed.clients.seeds import derive
from slimfed.clients.structure import Blueprint
from slimfed.clients.update import Update

if TYPE_CHECKING:
    from slimfed.clients.adapters.training.sora import SoraTraining
    from slimfed.clients.spec import TaskSpec


@ADAPTERS.register("sora")
class Sora(AdapterMethod):
    """y = W x + scaling * B (g * (A x)), with a gate g [r] for every module (Ding et al., arXiv 2311.11696).

    After every optimiser step the gate passes the proximal operator of its L1 norm, soft(g, xi): an entry whose
    gradient does not oppose this reaches 0, and its rank is off. Paper: equations 6 to 8 and algorithm 1, the schedule
    of xi. ``adapter.threshold_follows``: xi is that many current learning rates, as in the paper's equation, or that
    many of ``training.learning_rate``, which does not fall with the schedule, as in the authors' experiments.

    Messages contain B diag(g), since only this product is determined (signs and sizes of g and B are not), and |g|. A
    device starts a round from g = |g| and B diag(1 / |g|), the fleet's gate-weighted mean of B. A rank that is off on
    every device stays off. After every round the server sorts the ranks of a module by |g|, so that devices of small
    rank train those that matter most. The averaged tensors are those of LoRA.
    """

    low_rank_options = True

    @property
    def training(self) -> "SoraTraining":
        """Through PEFT's layers, with the gate between A and B."""
        from slimfed.clients.adapters.training.sora import SoraTraining  # imports torch and PEFT

        return SoraTraining()

    def begin(self, adapter: Adapter, blueprint: Blueprint, seed: int) -> Adapter:
        """Gates of size |N(0, 1)| (the paper's N(0, 1); B is 0, so signs do not matter)."""
        factors = {}
        for name, f in adapter.factors.items():
            draw = np.random.default_rng(derive(seed, "gate", name))
            factors[name] = Factors(f.a, f.b, np.abs(draw.standard_normal(len(f.a))).astype(np.float32))
        return replace(adapter, factors=factors)

    def opened(self, adapter: Adapter) -> Adapter:
        """B without the gate, as it is trained."""
        factors = {name: Factors(f.a, _without(f.b, f.gate), f.gate) for name, f in adapter.factors.items()}
        return replace(adapter, factors=factors)

    def closed(self, adapter: Adapter, rank: int) -> Adapter:
        """B with the gate, and |g|, as sent in messages."""
        factors = {}
        for name, f in adapter.factors.items():
            if f.gate is None:
                raise ValueError(f"{name}: a sora adapter needs a gate")
            factors[name] = Factors(f.a, f.b * f.gate, np.abs(f.gate))
        return replace(adapter, factors=factors)

    def decide(
        self, before: Adapter, after: Adapter, updates: Sequence[Update], task: "TaskSpec", rank: int, round: int
    ) -> Adapter:
        """The same function, with the ranks of every module in descending order of |g|."""
        return replace(after, factors={name: _sorted(f) for name, f in after.factors.items()})

    def finished(self, adapter: Adapter) -> Adapter:
        """Plain factors of the ranks J that are on, per module: B diag(g) [out, J] and A [J, in]; scaling as it was."""
        factors = {}
        for name, f in adapter.factors.items():
            on = slice(None) if f.gate is None else np.flatnonzero(f.gate)
            factors[name] = Factors(np.array(f.a[on], order="C"), np.array(f.b[:, on], order="C"))
        return replace(adapter, factors=factors)


def _sorted(f: Factors) -> Factors:
    if f.gate is None:
        raise ValueError("a sora adapter needs a gate")
    order = np.argsort(-np.abs(f.gate), kind="stable")
    return Factors(np.array(f.a[order], order="C"), np.array(f.b[:, order], order="C"), f.gate[order])


def _without(b: np.ndarray, gate: np.ndarray | None) -> np.ndarray:
    """B diag(1 / g); 0 where the gate is shut."""
    if gate is None:
        raise ValueError("a sora adapter needs a gate")
    return np.divide(b, gate, out=np.zeros_like(b), where=gate != 0)
