"""The lab's method, as defaults for a job file."""

from slimfed.platform.job.presets import Preset

LAB = Preset(
    summary="LoRA from an orthonormal start; greedy ranks, L1 magnitude, the mean by log examples, half steps",
    source="the example of docs/extend.md",
    fields={
        "method": {"adapter": "orthogonal-lora", "importance": "l1-magnitude", "aggregation": "log-examples"},
        "bandit": {"name": "greedy-rank"},
        "server": {"optimizer": "half-step"},
        "fleet": {"profile": "lab-bench", "selection": "neighbours"},
    },
)
