"""Methods by name. A preset is what a method sets in the job file; the user may overrule every field of it.

A new method is one entry of :data:`PRESETS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A published method as defaults for the job file. ``fields`` is shaped like the job file itself."""

    name: str
    summary: str
    source: str
    fields: Mapping[str, Any]


_ALL = (
    Preset(
        name="fedspine",
        summary="a bandit per device chooses pruning step and LoRA rank; structures scored from LoRA gradients",
        source="arXiv 2501.02438, reconstructed: reward, aggregation weights and constants are ours",
        fields={
            "method": {"adapter": "lora", "importance": "lora-gradient", "aggregation": "coverage"},
            "bandit": {"name": "s-ucb"},
        },
    ),
    Preset(
        name="sora",
        summary="FedSpine's pruning with gated ranks: a proximal step switches off the ones that the loss can spare",
        source="SoRA, arXiv 2311.11696 (gate, threshold ladder, weight decay, clipping); its federation is ours",
        fields={
            "method": {"adapter": "sora", "importance": "lora-gradient", "aggregation": "coverage"},
            "bandit": {"name": "s-ucb"},
            "training": {"weight_decay": 0.1, "max_grad_norm": 0.1},
        },
    ),
    Preset(
        name="sparse",
        summary="FedSpine's pruning with sparse deltas: the first round finds one lottery ticket for the whole fleet",
        source="LT-SFT, arXiv 2110.07560 (two phases, one mask, reset); its federation, budget and ranks are ours",
        fields={
            "method": {"adapter": "sparse", "importance": "lora-gradient", "aggregation": "coverage"},
            "bandit": {"name": "s-ucb"},
        },
    ),
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ALL}
