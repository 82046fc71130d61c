"""Out of memory: detecting it, and freeing caches before a second attempt."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from slimfed.clients.training.cohort.cuda_graph import forget_recordings

Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """True if ``error`` means out of memory, on a CPU or GPU. PyTorch has no type for it on a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def make_room() -> None:
    """Free cached memory: garbage, the memory pools of recordings, and PyTorch's cache."""
    gc.collect()
    if torch.cuda.is_available():
        forget_recordings(torch.cuda.current_device())
        torch.cuda.empty_cache()


def with_room(work: Callable[[], Result]) -> Result:
    """The result of ``work``, which is repeated once after :func:`make_room` if memory does not suffice."""
    try:
        return work()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    make_room()
    return work()
