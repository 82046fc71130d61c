"""Peak memory of a stretch of training, as the allocator saw it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass
class MemoryReading:
    """``peak``: bytes allocated at the highest point; 0 where the processor keeps no count (plain CPU)."""

    peak: int = 0


@contextmanager
def peak_memory(device: torch.device) -> Iterator[MemoryReading]:
    """Measure the peak of what is allocated on ``device`` inside the block."""
    reading = MemoryReading()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield reading
    if device.type == "cuda":
        reading.peak = int(torch.cuda.max_memory_allocated(device))
