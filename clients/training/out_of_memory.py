"""Memory that ran out, and what can be given back before the same is tried again."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from slimfed.clients.training.cohort.cuda_graph import forget_recordings

Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """True if ``error`` says that memory ran out, on whichever processor. PyTorch has no type for that on a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def make_room() -> None:
    """Give back what is held for later: garbage, the recordings' stock of memory, and PyTorch's."""
    gc.collect()
    if torch.cuda.is_available():
        forget_recordings(torch.cuda.current_device())
        torch.cuda.empty_cache()


def with_room(work: Callable[[], Result]) -> Result:
    """The result of ``work``, which is tried once more with all room there is if memory did not suffice."""
    try:
        return work()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    make_room()
    return work()
