"""How a cohort's steps are launched: operation after operation, or on a GPU as one recorded graph."""

import gc
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch

from slimfed.clients.training.cohort.collate import Batch, join, stack

_log = logging.getLogger(__name__)
# What kernels for half precision and for attention masks want lengths to be a multiple of.
_LENGTH_MULTIPLE = 8


class Launcher(ABC):
    """Takes a round's steps in order; ``work`` is one step with its joined batch."""

    @abstractmethod
    def take(self) -> None:
        """The next step."""


def launcher(
    work: Callable[[Batch], None],
    batches: Sequence[Sequence[Batch]],
    pad_id: int,
    rates: Sequence[float],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> Launcher:
    """For ``batches`` [steps][devices] and the steps' learning rates, which ``optimizer`` is given one by one."""
    kind = Recorded if device.type == "cuda" else Plain
    return kind(work, batches, pad_id, rates, optimizer, device)


class Plain(Launcher):
    """Operation after operation, every step padded for itself."""

    def __init__(
        self,
        work: Callable[[Batch], None],
        batches: Sequence[Sequence[Batch]],
        pad_id: int,
        rates: Sequence[float],
        optimizer: torch.optim.Optimizer,
        device: torch.device,
    ) -> None:
        self._work = work
        self._steps = iter(zip(batches, rates, strict=True))
        self._pad_id = pad_id
        self._optimizer = optimizer
        self._device = device

    def take(self) -> None:
        """The next step."""
        batches, rate = next(self._steps)
        self._optimizer.param_groups[0]["lr"] = rate
        self._work({name: tensor.to(self._device) for name, tensor in join(batches, self._pad_id).items()})


class Recorded(Launcher):
    """On a GPU a step is some thousand small operations, which take longer to launch than to compute.

    So it is recorded once a round (a CUDA graph) and then played, one launch a step; the batches of all steps go to the
    GPU beforehand. What changes between steps (masks, scores, what is trained) must change in place. Nothing here waits
    for the GPU.
    """

    def __init__(
        self,
        work: Callable[[Batch], None],
        batches: Sequence[Sequence[Batch]],
        pad_id: int,
        rates: Sequence[float],
        optimizer: torch.optim.Optimizer,
        device: torch.device,
    ) -> None:
        self._work = work
        stacked = stack(batches, pad_id, _LENGTH_MULTIPLE)
        self._batches = {name: t.pin_memory().to(device, non_blocking=True) for name, t in stacked.items()}
        self._rates = torch.tensor(rates, dtype=torch.float32).pin_memory().to(device, non_blocking=True)
        self._rate: torch.Tensor = optimizer.param_groups[0]["lr"]
        self._at = torch.zeros(1, dtype=torch.int64, device=device)
        self._studio = _studio(device.index or 0)
        self._graph: torch.cuda.CUDAGraph | None = None

    def take(self) -> None:
        """The next step."""
        if self._graph is None and self._studio.ready:
            self._graph = self._studio.record(self._step)
        if self._graph is None:
            self._studio.rehearse(self._step)
        else:
            self._graph.replay()

    def _step(self) -> None:
        self._rate.copy_(self._rates[self._at].squeeze(0))
        self._work({name: tensor[self._at].squeeze(0) for name, tensor in self._batches.items()})
        self._at += 1


class _Studio:
    """Where a process records on one GPU: a stream, and a stock of memory that every recording uses anew.

    The first step is not recorded: in it, libraries set themselves up, which no recording can hold.
    """

    def __init__(self) -> None:
        self.ready = False
        self._possible = True
        self._stream = torch.cuda.Stream()
        self._pool = torch.cuda.MemPool()
        self._last: torch.cuda.CUDAGraph | None = None

    def give_up(self) -> None:
        """Let the stock of memory go; the next recording begins another one."""
        self._last = None
        self._pool = torch.cuda.MemPool()

    def rehearse(self, work: Callable[[], None]) -> None:
        """Do ``work`` without recording it."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            work()
        torch.cuda.current_stream().wait_stream(self._stream)
        if self._possible and not self.ready:
            torch.cuda.empty_cache()  # the recording has memory of its own
            self.ready = True

    def record(self, work: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
        """``work`` as a graph, not yet done; ``None`` if it does something that cannot be recorded.

        While a recording is made, nothing that is held for later can be given back. ``torch.cuda.graph`` would give all
        of it back first, every time; here only a recording that finds no memory is made again with all there is.
        """
        try:
            graph = self._recorded(work)
        except torch.OutOfMemoryError:
            graph = None
        except RuntimeError as error:
            _log.warning("steps of this model cannot be recorded, each is launched: %s", str(error).splitlines()[0])
            self._possible = self.ready = False
            return None
        if graph is None:
            self.give_up()
            torch.cuda.empty_cache()
            graph = self._recorded(work)
        self._last = graph  # keeps the stock in use until there is another recording, as PyTorch wants it
        return graph

    def _recorded(self, work: Callable[[], None]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        pool: Any = self._pool.id  # torch's annotation knows only handles of graphs
        with torch.cuda.stream(self._stream), _no_collection():
            graph.capture_begin(pool, capture_error_mode="thread_local")
            try:
                work()
            finally:
                graph.capture_end()
        return graph


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python from searching for garbage: tensors and graphs must not be freed while a recording is made."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@lru_cache
def _studio(_gpu: int) -> _Studio:
    return _Studio()


def forget_recordings(gpu: int) -> None:
    """Give up the memory that recordings have used on a GPU, where none is being played; the next one takes anew."""
    _studio(gpu).give_up()
