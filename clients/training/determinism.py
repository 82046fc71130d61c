"""The same sum to the bit, run after run, on a GPU too; on a CPU it is so anyway, since a worker has one thread."""

import os

import torch


def insist_on_determinism() -> None:
    """From here on this process takes, on a GPU, only kernels that add up in one order.

    Backward passes of attention and sums by index have a quicker way that does not. cuBLAS needs buffers of fixed size,
    and reads their size when it is first used: call this before the model is on the GPU. An operation that has no such
    kernel raises ``RuntimeError``.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
