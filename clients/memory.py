"""Peak memory of a stretch of training, as the allocator saw it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

_EVENT = "[memory]"


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


@contextmanager
def counted_memory() -> Iterator[MemoryReading]:
    """Count what the block has PyTorch allocate on the CPU, beyond what was there before it, at its highest point.

    The same work gives the same bytes, on a busy machine too, unlike the resident set of a process. For benchmarks and
    tests: every allocation is recorded by the profiler. Arrays of NumPy are not seen.
    """
    reading = MemoryReading()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        yield reading
    assert recorded.profiler is not None
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == _EVENT]
    held = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        reading.peak = max(reading.peak, held)
