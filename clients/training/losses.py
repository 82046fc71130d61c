"""The loss of every device in a batch, from one forward pass."""

import torch
from torch.nn.functional import cross_entropy

IGNORED = -100


def device_losses(logits: torch.Tensor, labels: torch.Tensor, devices: int) -> torch.Tensor:
    """Mean cross-entropy (nats) of each device's own targets, float32 [devices].

    The rows of ``logits`` belong to the devices in equal parts, in order. Classification: logits [rows, classes],
    labels [rows]. Causal-lm: logits [rows, length, vocabulary], labels [rows, length]; each position predicts the next.
    Targets ``IGNORED`` are left out; a device without any target has loss 0.
    """
    if logits.dim() == 3:
        logits, labels = logits[:, :-1], labels[:, 1:]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    values = cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="none")
    counts = (labels != IGNORED).reshape(devices, -1).sum(1)
    return values.reshape(devices, -1).sum(1) / counts.clamp_min(1)


def counted(attention_mask: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mask of tokens in rows with a target, 0/1 [rows, length]: without padding and filler rows of a cohort."""
    return attention_mask * (labels.reshape(len(labels), -1) != IGNORED).any(1, keepdim=True)
