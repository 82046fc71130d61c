"""Distribution of a job on this machine: nodes, worker processes, GPUs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizing:
    """``nodes`` simulated Flower nodes, served by ``workers`` processes, each with ``gpu_share`` of a GPU.

    ``cluster``: address of the Ray cluster that has the processes; empty: a local Ray on this machine.
    """

    nodes: int
    workers: int
    gpus: int
    cluster: str = ""

    @property
    def gpu_share(self) -> float:
        """GPUs a worker gets: a whole number, or one n-th so that n workers fit one GPU."""
        if self.gpus == 0:
            return 0.0
        if self.cluster:  # the number of the other machines is unknown
            return 1.0
        if self.workers <= self.gpus:
            return float(self.gpus // self.workers)
        return 1.0 / -(-self.workers // self.gpus)


def size_up(devices: int, cohort: int, workers: int | str, *, processors: int, gpus: int) -> Sizing:
    """Resolve ``workers`` = "auto": one node for each worker, each with whole cohorts."""
    automatic = gpus if gpus else processors
    count = automatic if workers == "auto" else int(workers)
    nodes = min(count, -(-devices // cohort))
    return Sizing(nodes, nodes, gpus)


def gpu_count() -> int:
    """GPUs that this process may use."""
    import torch  # here, because commands that never compute should not wait seconds for it

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
