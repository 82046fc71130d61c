"""Out of memory: detecting it, and freeing caches before a second attempt."""

import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from slimfed.clients.training.cohort.cuda_graph import forget_recordings

Result = TypeVar("Result")
_log = logging.getLogger(__name__)


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


def with_smaller(work: Callable[[int], Result], size: int, least: int = 1) -> Result:
    """The result of ``work(size)``, repeated with half the size as long as memory does not suffice.

    Raises the error of the last attempt, with a size of at most ``least``.
    """
    while True:
        try:
            return work(size)
        except Exception as error:
            if size <= least or not is_out_of_memory(error):
                raise
            _log.warning("a batch of %d does not fit into memory, half of it is tried: %s", size, error)
        make_room()
        size //= 2
