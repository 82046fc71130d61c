"""SquareHead: the loss keeps a pruned model's hidden states near those of the unpruned one."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

# As released: the resolution of bfloat16 at 1, for layers with very small states.
_EPSILON = torch.finfo(torch.bfloat16).eps


def square_head(student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
    """sum over the layers of mean((S - T)^2) / (mean(T^2) + eps), a scalar (Kurtic et al., arXiv 2310.06927, eq. 3).

    ``student`` and ``teacher``: states after every layer, [rows, length, width], the last as input of the head.
    ``mask``, 0/1 [rows, length]: tokens other than padding, over which the means are taken.
    """
    tokens = mask.bool()
    losses = []
    for own, wanted in zip(student, teacher, strict=True):
        own, wanted = (states[tokens].to(torch.promote_types(states.dtype, torch.float32)) for states in (own, wanted))
        losses.append((own - wanted).square().mean() / (wanted.square().mean() + _EPSILON))
    return torch.stack(losses).sum()


def teacher_states(teacher: PreTrainedModel, input_ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """States after every layer of the unpruned model without any adapter; no gradient, no dropout."""
    trained = teacher.training
    teacher.eval()
    try:
        with torch.no_grad():
            return tuple(teacher(input_ids=input_ids, attention_mask=mask, output_hidden_states=True).hidden_states[1:])
    finally:
        teacher.train(trained)
