"""PyTorch's attention kernels for short texts on a GPU, to choose the limit in clients/models/attention.py.

    python benchmarks/attention_kernels.py

bf16, with the mask that padding needs, forward and backward. Prints a Markdown table.
"""

import argparse

import torch
from gpu_cohort import need_gpu
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.benchmark import Timer

_KERNELS = (SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)
_HEADS, _ROWS, _SECONDS = 12, 640, 0.5


def milliseconds(kernel: SDPBackend, length: int, size: int, device: str = "cuda") -> float:
    """Median of forward and backward of 640 texts of ``length`` tokens, 12 heads of ``size``."""
    shape = _ROWS, length, _HEADS, size
    parts = [torch.randn(shape, device=device, dtype=torch.bfloat16).transpose(1, 2) for _ in range(4)]
    query, key, value = (part.requires_grad_() for part in parts[:3])
    mask = torch.ones(_ROWS, 1, 1, length, device=device, dtype=torch.bool).expand(_ROWS, 1, length, length)

    def step() -> None:
        with sdpa_kernel(kernel):
            found = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        torch.autograd.grad(found, (query, key, value), parts[3])

    step()
    return 1e3 * Timer("step()", globals={"step": step}).blocked_autorange(min_run_time=_SECONDS).median


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    need_gpu(parser)
    print("| tokens | head size | cuDNN, ms | memory-efficient, ms | ratio |")
    print("|---|---|---|---|---|")
    for size in (32, 64):
        for length in (32, 64, 80, 96, 128):
            first, second = (milliseconds(kernel, length, size) for kernel in _KERNELS)
            print(f"| {length} | {size} | {first:.3f} | {second:.3f} | {first / second:.2f} |", flush=True)
    print(f"\n{torch.cuda.get_device_name()}; torch {torch.__version__}")


if __name__ == "__main__":
    main()
