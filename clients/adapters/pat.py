"""Pruning-aware tuning: modules learn a mask of the hidden width, which is then pruned."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters.base import ADAPTERS, AdapterMethod
from slimfed.clients.adapters.width_decision import EMBEDDING, is_decided, kept_width
from slimfed.clients.errors import InputError
from slimfed.clients.models.cost import AdapterLoad, Dimensions, low_rank_load
from slimfed.clients.seeds import derive
from slimfed.clients.structure import Blueprint
from slimfed.clients.update import Update

if TYPE_CHECKING:
    from slimfed.clients.adapters.training.pat import PatTraining
    from slimfed.clients.spec import TaskSpec

_BOTTLENECK = 1 / 20  # the paper's 200 of 4096


@ADAPTERS.register("pat")
class Pat(AdapterMethod):
    """LoRA, and hybrid sparsification modules on the residual stream (Liu et al., arXiv 2408.14721).

    Behind the embedding and every module that writes into the stream, with the stream's width d and a bottleneck e::

        HSM(x) = v * m * (x + W2 W1 x)        W1 [e, d], W2 [d, e], v [d]
        m = sigmoid(tau z) + bias             z [d], shared by all of them
        tau = 1 / (1 - ln t / ln T)           of step t; T: the steps up to ``adapter.milestone`` of the run
        bias = max(1/2 - t / T, 0)

    Norms that take a mean over the width (LayerNorm) weigh it by m, so that they become those of the narrow model;
    RMSNorm is corrected when it is cut. At the milestone, a third of the run as in the paper, the server decides once:
    the k largest of the fleet's mean z are kept, and m is 0 or 1 from then on, while the rest of the run recovers.
    ``width_slicing.cut`` removes the other d - k dimensions of every weight, exactly.

    Ours: the paper's loss on the number of z >= 0 moves all entries of z equally, and under Adam this movement
    dominates their differences. Here the k largest are drawn to 1/2 and the others to -1/2, with a weight that grows
    over the run. So the number is right by construction, and the task loss selects the entries. The identity loss, mean
    (W1 W1^T - I)^2, is summed over all modules.
    """

    supports_shared_structure = False
    supports_squarehead = False
    cuts_width = True
    supports_quantised_base = False
    min_rounds = 2

    @property
    def training(self) -> "PatTraining":
        """LoRA through PEFT's layers, with the modules hooked behind them."""
        from slimfed.clients.adapters.training.pat import PatTraining  # imports torch and PEFT

        return PatTraining()

    def begin(self, adapter: Adapter, blueprint: Blueprint, seed: int) -> Adapter:
        """W1 as PEFT draws A, W2 zero, v one, z zero: the function of the model is unchanged."""
        writers = [block.cuts[-1].module for block in blueprint.blocks]
        width = len(adapter.factors[writers[0]].b)
        inner, bound = max(4, round(width * _BOTTLENECK)), 1 / math.sqrt(width)
        extra = {"z": np.zeros(width, np.float32), "progress": np.zeros(1, np.float32)}
        for place in (EMBEDDING, *writers):
            draw = np.random.default_rng(derive(seed, "pat", place))
            extra[f"{place}/down"] = draw.uniform(-bound, bound, (inner, width)).astype(np.float32)
            extra[f"{place}/up"] = np.zeros((width, inner), np.float32)
            extra[f"{place}/scale"] = np.ones(width, np.float32)
        return replace(adapter, extra=extra)

    def decide(
        self, before: Adapter, after: Adapter, updates: Sequence[Update], task: "TaskSpec", rank: int, round: int
    ) -> Adapter:
        """The progress up to the milestone, and there the k kept dimensions: z is 1 there, else -1.

        A short run decides before its last round, so that devices evaluate the pruned width.
        """
        rounds = task.training.rounds
        last = round >= rounds - 1
        progress = 1.0 if last else min(round / (rounds * task.adapter.milestone), 1.0)
        z = after.extra["z"]
        if is_decided(before):
            z = before.extra["z"]
        elif np.float32(progress) >= 1:
            kept = np.argsort(-z, kind="stable")[: kept_width(len(z), task.adapter.target_sparsity)]
            z = np.full(len(z), -1.0, np.float32)
            z[kept] = 1.0
        return replace(after, extra=after.extra | {"z": z, "progress": np.array([progress], np.float32)})

    def prunes(self, adapter: Adapter) -> bool:
        """False: the target sparsity is reached by pruning the width."""
        return False

    def removed(self, adapter: Adapter, blueprint: Blueprint) -> float:
        """The share of the prunable parameters removed with the width; 0 before the decision."""
        if not is_decided(adapter):
            return 0.0
        weights = sum(len(f.b) * f.a.shape[1] for f in adapter.factors.values())
        return float((adapter.extra["z"] <= 0).mean()) * weights / float(blueprint.parameters.sum())

    def width(self, adapter: Adapter) -> list[int] | None:
        """The dimensions with z > 0 after the decision; None before."""
        return np.flatnonzero(adapter.extra["z"] > 0).tolist() if is_decided(adapter) else None

    def check_finished(self, adapter: Adapter) -> None:
        """Raise ``InputError`` while the mask is soft, as no plain model has the same function."""
        if self.width(adapter) is None:
            raise InputError(
                'method.adapter = "pat": the width is decided at adapter.milestone of the rounds, not yet; '
                "let the run go on, then export"
            )

    def load(self, size: Dimensions, rank: int, sent: Adapter) -> AdapterLoad:
        """LoRA's, and two products with W1 and W2 at every place, forward and twice backward."""
        plain = low_rank_load(size, rank)
        numbers = sum(tensor.size for name, tensor in sent.extra.items() if name.endswith(("/down", "/up")))
        downs = [tensor for name, tensor in sent.extra.items() if name.endswith("/down")]
        trained = sum(tensor.size for tensor in sent.extra.values())
        kept = sum(inner + 2 * width for inner, width in (tensor.shape for tensor in downs))
        return AdapterLoad(plain.trained + trained, plain.token_flops + 3 * 2 * numbers, plain.activations + kept)
