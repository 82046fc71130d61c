"""Peak memory of training, as counted by the allocator."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch._C._profiler import _ExtraFields_Allocation
from torch.profiler import ProfilerActivity, profile


@dataclass
class MemoryReading:
    """``peak``: bytes allocated at the highest point; 0 on a CPU, which does not count."""

    peak: int = 0


@contextmanager
def peak_memory(device: torch.device) -> Iterator[MemoryReading]:
    """Measure the peak of allocated bytes on ``device`` inside the block."""
    reading = MemoryReading()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield reading
    if device.type == "cuda":
        reading.peak = int(torch.cuda.max_memory_allocated(device))


@contextmanager
def counted_memory() -> Iterator[MemoryReading]:
    """Count the peak of bytes that PyTorch allocates on the CPU inside the block, beyond those before it.

    Unlike the resident set of a process, the count does not depend on other programs. For benchmarks and tests: every
    allocation is recorded by the profiler. NumPy's arrays are not counted.
    """
    reading = MemoryReading()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        yield reading
    reading.peak = _highest(recorded)


def _highest(recorded: profile) -> int:
    """Peak of the bytes allocated while ``recorded`` ran."""
    assert recorded.profiler is not None
    assert recorded.profiler.kineto_results is not None
    waiting, changes = list(recorded.profiler.kineto_results.experimental_event_tree()), []
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if isinstance(block := event.typed[1], _ExtraFields_Allocation):
            changes.append((event.start_time_ns, block.ptr, block.alloc_size))
    held: dict[int, int] = {}
    total = most = 0
    for _, address, size in sorted(changes, key=lambda change: change[0]):
        if size < 0:
            size = -held.pop(address, 0)
        else:
            held[address] = size
        total += size
        most = max(most, total)
    return most
