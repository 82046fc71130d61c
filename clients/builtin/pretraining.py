"""What the two pre-training scripts share: batches of tokenised lines, one optimisation loop, and a tidy folder."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

Batch = dict[str, torch.Tensor]
_PROGRESS_EVERY = 200


def arguments(description: str, steps: int) -> argparse.Namespace:
    """The command line of a pre-training script."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--steps", type=int, default=steps, help="optimiser steps")
    parser.add_argument("--lines", type=int, default=100_000, help="lines of generated text")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def line_batches(lines: list[list[int]], batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Endless batches of lines of like length, as line numbers [batch]."""
    rng = np.random.default_rng(seed)
    lengths = np.array([len(line) for line in lines])
    while True:
        # Lines are sorted within chunks of 50 batches only, so that batches differ from epoch to epoch.
        shuffled = rng.permutation(len(lines))
        chunks = np.array_split(shuffled, max(1, len(lines) // (50 * batch_size)))
        for chunk in chunks:
            ordered = chunk[np.argsort(lengths[chunk], kind="stable")]
            starts = np.arange(0, len(ordered) - batch_size + 1, batch_size)
            for start in rng.permutation(starts):
                yield ordered[start : start + batch_size]


def pad(lines: list[list[int]], pad_id: int) -> Batch:
    """Lines of token ids as one rectangle, filled up on the right."""
    ids = torch.full((len(lines), max(map(len, lines))), pad_id)
    mask = torch.zeros_like(ids)
    for row, line in enumerate(lines):
        ids[row, : len(line)] = torch.tensor(line)
        mask[row, : len(line)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def optimise(model: PreTrainedModel, loss_of_step: Callable[[], torch.Tensor], steps: int, rate: float) -> float:
    """AdamW with a one-cycle rate, on one thread; returns the mean loss of the last hundred steps."""
    torch.set_num_threads(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.08)
    model.train()
    losses: list[float] = []
    started = time.perf_counter()
    for step in range(1, steps + 1):
        loss = loss_of_step()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(float(loss.detach()))
        if step % _PROGRESS_EVERY == 0:
            seconds = time.perf_counter() - started
            print(f"step {step}/{steps} loss {np.mean(losses[-100:]):.4f} {seconds:.0f} s", file=sys.stderr)
    return float(np.mean(losses[-100:]))


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write config, half-precision safetensors and tokenizer: a folder like any that ``save_pretrained`` writes."""
    model.eval().half().save_pretrained(out)
    tokenizer.save_pretrained(out)
