"""Running the dense model as if units were gone: the reference that slicing is held against."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from slimfed.clients.structure import Structure


@contextmanager
def masked(model: PreTrainedModel, structure: Structure) -> Iterator[None]:
    """Zero what the removed units put out, for as long as the block lasts.

    A unit speaks to the rest of the model only through the inputs of the module it is a column of (attention output,
    FFN down projection), so masking those inputs is removing the unit. Works with an adapter attached too, whose factor
    A then sees the masked input as well.
    """
    handles = []
    for (name, side), kept in structure.indices().items():
        if side == "in":
            module = model.get_submodule(name)
            mask = torch.zeros(_inputs(module), device=model.device)
            mask[torch.from_numpy(kept)] = 1.0
            handles.append(module.register_forward_pre_hook(_multiply(mask)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _multiply(mask: torch.Tensor):  # type: ignore[no-untyped-def]  # torch's hook type
    def hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0] * mask.to(inputs[0].dtype), *inputs[1:])

    return hook


def _inputs(module: nn.Module) -> int:
    """Input width of a linear module, adapted or not."""
    return int(getattr(module, "in_features", None) or module.nx)  # type: ignore[arg-type]
