"""Determinism on a GPU. On a CPU training is deterministic in any case, since a worker has one thread."""

import os

import torch


def insist_on_determinism() -> None:
    """Use only deterministic GPU kernels in this process from now on.

    The default kernels of attention's gradient and of sums by index are not deterministic. cuBLAS needs buffers of
    fixed size, and reads their size when it is first used: call this before the model is on the GPU. An operation that
    has no such kernel raises ``RuntimeError``.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
