"""Distillation: the loss keeps a device's hidden states, or its predictions, near those of a teacher."""

from collections.abc import Sequence

import torch
from torch.nn.functional import kl_div
from transformers import PreTrainedModel

from slimfed.clients.models.families import without_cache
from slimfed.clients.training.losses import IGNORED

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


def divergence(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean of KL(teacher || student) over the positions with a target, in nats, a scalar; temperature 1.

    ``student``, ``teacher``: logits as in :func:`device_losses`, whose ``labels`` these are.
    """
    if student.dim() == 3:
        student, teacher, labels = student[:, :-1], teacher[:, :-1], labels[:, 1:]
    counts = labels != IGNORED
    own, wanted = (logits[counts].to(torch.promote_types(logits.dtype, torch.float32)) for logits in (student, teacher))
    if not len(own):
        return student.sum() * 0.0
    return kl_div(own.log_softmax(-1), wanted.log_softmax(-1), reduction="batchmean", log_target=True)


def taught(
    teacher: PreTrainedModel, input_ids: torch.Tensor, mask: torch.Tensor
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """The teacher's states after every layer, and its logits; no gradient, no dropout."""
    trained = teacher.training
    teacher.eval()
    try:
        with torch.no_grad():
            said = teacher(
                input_ids=input_ids, attention_mask=mask, output_hidden_states=True, **without_cache(teacher)
            )
            return tuple(said.hidden_states[1:]), said.logits
    finally:
        teacher.train(trained)
