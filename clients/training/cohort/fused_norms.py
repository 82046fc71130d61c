"""RMSNorm as one operation, for a GPU.

transformers writes it as seven, each a pass over memory; with PyTorch's own, a round of a Llama of 1.2 billion
went from 1.14 to 0.97 s on an H100 (benchmarks/gpu_cohort.py). On a CPU it is no faster.
"""

from torch import nn
from transformers import PreTrainedModel

_PLAIN = frozenset({"LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm"})
"""Those that do what PyTorch's does; Gemma's adds 1 to its weights."""


def fuse_norms(model: PreTrainedModel) -> None:
    """Put PyTorch's RMSNorm in the place of transformers', around the same weights."""
    for name, module in list(model.named_modules()):
        if type(module).__name__ in _PLAIN:
            fused = nn.RMSNorm(module.weight.shape, eps=module.variance_epsilon, device="meta")
            fused.weight = module.weight
            model.set_submodule(name, fused)
