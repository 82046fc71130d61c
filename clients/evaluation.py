"""How good a model is on labelled text."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from slimfed.clients.batches import TokenisedSplit
from slimfed.clients.update import Evaluation

_IGNORED = -100


def evaluate(
    model: nn.Module,
    split: TokenisedSplit,
    batch_size: int = 128,
    dtype: torch.dtype = torch.float32,
    rows: np.ndarray | None = None,
) -> Evaluation:
    """Mean loss and accuracy of ``model`` on ``rows`` of ``split`` (default: all), without gradients.

    Classification counts labels; causal-lm counts target tokens (those after a prompt), each equally. Examples are
    taken in order of length, so that padding is short; the result does not depend on ``batch_size`` but for rounding.
    ``dtype`` other than float32 computes under autocast. The model's mode is put back.
    """
    device = next(model.parameters()).device
    rows = np.arange(len(split)) if rows is None else rows
    order = rows[np.argsort(split.lengths[rows], kind="stable")]
    loss = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    targets = 0
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            for start in range(0, len(order), batch_size):
                batch = split.collate(order[start : start + batch_size])
                labels = batch.pop("labels").to(device)
                logits = model(**{name: tensor.to(device) for name, tensor in batch.items()}).logits
                batch_loss, batch_correct, batch_targets = _score(logits, labels)
                loss, correct, targets = loss + batch_loss, correct + batch_correct, targets + batch_targets
    finally:
        model.train(was_training)
    return Evaluation(float(loss) / targets, int(correct) / targets, len(rows))


def _score(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Summed loss, correct answers and answers of a batch; tokens are predicted from the position before.

    Sums stay on the model's processor: fetching them would make every batch wait for the one before.
    """
    if labels.dim() == 2:
        logits, labels = logits[:, :-1], labels[:, 1:]
        learnt = labels != _IGNORED
        logits, labels = logits[learnt], labels[learnt]
    logits = logits.float()
    loss = functional.cross_entropy(logits, labels, reduction="none").double().sum()
    return loss, (logits.argmax(-1) == labels).sum(), labels.numel()
