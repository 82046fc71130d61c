"""How a job is spread over this machine: nodes, worker processes, GPUs."""

import os
from dataclasses import dataclass

# On a GPU a cohort fills the card. On a CPU a few devices hide the cost of a step's many small operations; larger
# cohorts would leave workers without work.
_GPU_COHORT = 80
_CPU_COHORT = 10
_COHORTS_AT_LEAST = 8


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


def size_up(devices: int, cohort: int, workers: int | str, *, processors: int, gpus: int) -> Sizing:
    """Fill in what the job leaves to the machine (``workers`` = "auto"): one node a worker, each with whole cohorts."""
    automatic = gpus if gpus else processors
    count = automatic if workers == "auto" else int(workers)
    nodes = min(count, -(-devices // cohort))
    return Sizing(nodes, nodes, gpus)


def cohort_size(asked: int | str, devices: int) -> int:
    """Devices in one pass, where the job leaves it open (``asked`` = "auto").

    Never a matter of the number of workers: who is computed together decides the last bits of a result.
    """
    if asked != "auto":
        return int(asked)
    return _GPU_COHORT if gpu_count() else max(1, min(_CPU_COHORT, devices // _COHORTS_AT_LEAST))


def gpu_count() -> int:
    """GPUs that this process may use."""
    import torch  # here, because commands that never compute should not wait seconds for it

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def processor_count() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
