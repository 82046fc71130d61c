"""RMSNorm as one operation, for a GPU.

transformers uses seven operations, each a pass over memory. With PyTorch's RMSNorm a round of a Llama of 1.2 billion
takes 0.97 s instead of 1.14 on an H100 (benchmarks/gpu_cohort.py). On a CPU it is no faster.
"""

from torch import nn
from transformers import PreTrainedModel

_PLAIN = frozenset({"LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm"})
"""Classes that equal PyTorch's RMSNorm; Gemma's adds 1 to its weights."""


def fuse_norms(model: PreTrainedModel) -> None:
    """Replace transformers' RMSNorm by PyTorch's, with the same weights."""
    for name, module in list(model.named_modules()):
        if type(module).__name__ in _PLAIN:
            fused = nn.RMSNorm(module.weight.shape, eps=module.variance_epsilon, device="meta")
            fused.weight = module.weight
            model.set_submodule(name, fused)
