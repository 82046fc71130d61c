"""Presets: the fields of the job file that a named method sets. A job can override each of them.

A new method is one entry here, or an entry point ``slimfed.presets`` of another package. Methods without pruning are
pruned by one structure for all devices, by magnitude, along the cubic schedule, which costs the devices nothing
(docs/methods.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slimfed.clients.registry import Registry


@dataclass(frozen=True)
class Preset:
    """A method as defaults for the job file.

    ``summary``: one line on the method. ``source``: its publication, and differences from it. ``fields``: nested tables
    as in a job file. Fields that are not set keep the job file's defaults. ``yielding``: further such tables, each of
    which the method is better with, and which is left out as a whole where a job's own choices exclude it.
    """

    summary: str
    source: str
    fields: Mapping[str, Any]
    yielding: tuple[Mapping[str, Any], ...] = ()


PRESETS = Registry[Preset]("method.name", "slimfed.presets", Preset)
"""Presets by name."""

_UNIFORM = {"structure": "shared", "schedule": "cubic"}

PRESETS.register("slimfed")(
    Preset(
        summary="one agent fills each round with local steps; one structure, by Fisher information; int8 messages",
        source="ours; what each part is worth is in benchmarks/README.md (the agent and its controls, criteria)",
        fields={
            "method": {"adapter": "lora", "importance": "fisher", "aggregation": "coverage"},
            "bandit": {"name": "pooled", "local_steps": "auto"},
        },
        yielding=(
            {"pruning": {"scope": "balanced"}},
            {"messages": {"precision": "int8"}},
            {"pruning": {"structure": "shared", "schedule": "one-shot"}},
        ),
    )
)
PRESETS.register("fedspine")(
    Preset(
        summary="a bandit per device chooses pruning step and LoRA rank; structures scored from activations",
        source="arXiv 2501.02438, reconstructed: reward, pacing, aggregation weights and constants are ours; units are "
        "scored as Wanda does (arXiv 2306.11695), not by lora-gradient, which did worse in our table",
        fields={
            "method": {"adapter": "lora", "importance": "activation", "aggregation": "coverage"},
            "bandit": {"name": "s-ucb"},
        },
    )
)
PRESETS.register("sora")(
    Preset(
        summary="FedSpine's pruning with gated ranks: a proximal step switches off the ones that the loss can spare",
        source="SoRA, arXiv 2311.11696 (gate, threshold ladder, weight decay, clipping); its federation is ours",
        fields={
            "method": {"adapter": "sora", "importance": "activation", "aggregation": "coverage"},
            "bandit": {"name": "s-ucb"},
            "training": {"weight_decay": 0.1, "max_grad_norm": 0.1},
        },
    )
)
PRESETS.register("sparse")(
    Preset(
        summary="FedSpine's pruning with sparse deltas: the first round finds one lottery ticket for the whole fleet",
        source="LT-SFT, arXiv 2110.07560 (two phases, one mask, reset); its federation, budget and ranks are ours",
        fields={
            "method": {"adapter": "sparse", "importance": "activation", "aggregation": "coverage"},
            "bandit": {"name": "s-ucb"},
        },
    )
)
PRESETS.register("fedit")(
    Preset(
        summary="LoRA of one rank for all, factors averaged; one structure for all, pruned by magnitude",
        source="Zhang et al., arXiv 2305.05644; the pruning is ours",
        fields={
            "method": {"adapter": "lora", "importance": "magnitude", "aggregation": "fedavg"},
            "bandit": {"name": "fixed"},
            "pruning": _UNIFORM,
        },
    )
)
PRESETS.register("hetlora")(
    Preset(
        summary="a rank for each device, which falls by itself; zero-padded factors weighted by norm; pruned as fedit",
        source="Cho et al., arXiv 2401.06432 (gamma 0.99, mu 0.01); the pruning of structure is ours",
        fields={
            "method": {"adapter": "lora", "importance": "magnitude", "aggregation": "hetlora"},
            "adapter": {"keep_ranks": 0.99, "tail_penalty": 0.01},
            "bandit": {"name": "fixed", "spread_ranks": True},
            "pruning": _UNIFORM,
        },
    )
)
PRESETS.register("flexlora")(
    Preset(
        summary="a rank for each device; the mean product is factored again by its singular values; pruned as fedit",
        source="Bai et al., arXiv 2402.11505; the pruning is ours",
        fields={
            "method": {"adapter": "lora", "importance": "magnitude", "aggregation": "flexlora"},
            "bandit": {"name": "fixed", "spread_ranks": True},
            "pruning": _UNIFORM,
        },
    )
)
PRESETS.register("flora")(
    Preset(
        summary="a rank for each device; stacked products are merged into the base every round; pruned as fedit",
        source="Wang et al., arXiv 2409.05976; the pruning is ours",
        fields={
            "method": {"adapter": "lora", "importance": "magnitude", "aggregation": "flora"},
            "bandit": {"name": "fixed", "spread_ranks": True},
            "pruning": _UNIFORM,
        },
    )
)
PRESETS.register("fedmp")(
    Preset(
        summary="E-UCB chooses each device's pruning ratio; magnitude; missing parts recovered from the global model",
        source="Jiang et al., FedMP, ICDE 2022; pruned structure stays pruned here, at one LoRA rank",
        fields={
            "method": {"adapter": "lora", "importance": "magnitude", "aggregation": "r2sp"},
            "bandit": {"name": "e-ucb"},
        },
    )
)
PRESETS.register("oneshot")(
    Preset(
        summary="the server prunes its base once, by magnitude, before the first round; then plain federated LoRA",
        source="the usual order, prune then tune; FedSpine's baseline",
        fields={
            "method": {"adapter": "lora", "importance": "magnitude", "aggregation": "fedavg"},
            "bandit": {"name": "fixed"},
            "pruning": {"structure": "shared", "schedule": "one-shot"},
        },
    )
)
PRESETS.register("pat")(
    Preset(
        summary="LoRA with modules that learn to do without a part of the hidden width, which is then cut away",
        source="PAT, arXiv 2408.14721 (modules, mask, identity loss, merge); LayerNorm, mask loss, federation: ours",
        fields={
            "method": {"adapter": "pat", "aggregation": "coverage"},
            "bandit": {"name": "s-ucb"},
        },
    )
)
