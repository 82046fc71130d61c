"""The processors of this machine: how many this process may use, and how many threads compute."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


def processor_count() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def compute_threads(count: int) -> Iterator[None]:
    """Compute with ``count`` threads on a CPU; the caller's number is restored afterwards.

    Nodes compute with one: a machine has several, and the last bits of a sum depend on the number of threads.
    """
    import torch  # here, because commands that never compute should not wait seconds for it

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
