"""Launching a cohort's steps: each operation separately, or on a GPU as one recorded graph."""

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
# Lengths are padded to a multiple of this, for kernels of half precision and attention masks.
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
    """For ``batches`` [steps][devices] and the steps' learning rates, set in ``optimizer`` one by one."""
    kind = Recorded if device.type == "cuda" else Plain
    return kind(work, batches, pad_id, rates, optimizer, device)


class Plain(Launcher):
    """Launches each operation separately, with every step padded separately."""

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

    Therefore a step is recorded once a round (a CUDA graph) and replayed with one launch. The batches of all steps are
    copied to the GPU beforehand. Tensors that change between steps (masks, scores, trained parameters) must change in
    place. Nothing here waits for the GPU.
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
    """The recorder of a process for one GPU: a stream, and a memory pool that every recording reuses.

    The first step is not recorded, since libraries initialise in it, which cannot be recorded.
    """

    def __init__(self) -> None:
        self.ready = False
        self._possible = True
        self._stream = torch.cuda.Stream()
        self._pool = torch.cuda.MemPool()
        self._last: torch.cuda.CUDAGraph | None = None

    def give_up(self) -> None:
        """Free the memory pool; the next recording creates a new one."""
        self._last = None
        self._pool = torch.cuda.MemPool()

    def rehearse(self, work: Callable[[], None]) -> None:
        """Run ``work`` without recording it."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            work()
        torch.cuda.current_stream().wait_stream(self._stream)
        if self._possible and not self.ready:
            torch.cuda.empty_cache()  # the recording has its own memory
            self.ready = True

    def record(self, work: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
        """``work`` as a graph, not yet run; ``None`` if it cannot be recorded.

        While recording, cached memory cannot be freed. ``torch.cuda.graph`` therefore frees it first, every time. Here
        it is freed, and the recording repeated, only if memory does not suffice.
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
        self._last = graph  # PyTorch requires the pool to stay in use until the next recording
        return graph

    def _recorded(self, work: Callable[[], None]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        pool: Any = self._pool.id  # torch's annotation has only handles of graphs
        with torch.cuda.stream(self._stream), _no_collection():
            graph.capture_begin(pool, capture_error_mode="thread_local")
            try:
                work()
            finally:
                graph.capture_end()
        return graph


@contextmanager
def _no_collection() -> Iterator[None]:
    """Disable the garbage collector, since tensors and graphs must not be freed while recording."""
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
    """Free the memory pools of recordings on GPUs, unless one is being replayed."""
    _studio(gpu).give_up()
