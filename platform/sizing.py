"""How a job is spread over this machine: nodes, worker processes, GPUs."""

import os
from dataclasses import dataclass

# One device after another: enough nodes a worker that one slow node does not hold up a round for long, few enough that
# messages cost nothing.
_NODES_PER_WORKER = 4
# A single device's model does not fill a GPU, several workers share one; a cohort does.
_WORKERS_PER_GPU = 4


@dataclass(frozen=True)
class Sizing:
    """``nodes`` simulated Flower nodes, served by ``workers`` processes, each with ``gpu_share`` of a GPU."""

    nodes: int
    workers: int
    gpus: int

    @property
    def gpu_share(self) -> float:
        """GPUs a worker gets: a whole number, or one n-th so that n workers fit one GPU."""
        if self.gpus == 0:
            return 0.0
        if self.workers <= self.gpus:
            return float(self.gpus // self.workers)
        return 1.0 / -(-self.workers // self.gpus)


def size_up(devices: int, cohort_size: int, workers: int | str, *, processors: int, gpus: int) -> Sizing:
    """Fill in what the job leaves to the machine (``workers`` = "auto").

    ``cohort_size`` is 1 if devices are computed one after another. Larger cohorts get a node each, whatever the number
    of workers: who is computed together decides the last bits of a result.
    """
    per_gpu = _WORKERS_PER_GPU if cohort_size == 1 else 1
    count = (min(processors, gpus * per_gpu) if gpus else processors) if workers == "auto" else int(workers)
    nodes = -(-devices // cohort_size) if cohort_size > 1 else min(devices, count * _NODES_PER_WORKER)
    return Sizing(nodes, min(count, nodes), gpus)


def processor_count() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
