"""Multiple choice by likelihood: which of the choices a language model finds likeliest as the answer to a question."""

import numpy as np
import torch
from transformers import PreTrainedModel

from slimfed.clients.data.batching import Choices
from slimfed.clients.evaluation.next_token import predictions, targets


def choose(
    model: PreTrainedModel, choices: Choices, questions: np.ndarray, tokens: int, devices: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Share of ``questions`` whose right choice is likeliest, float64 [devices]: as it is, and for each byte.

    The likelihood of a choice is the sum of the log-probabilities of its tokens; the second measure divides it by the
    bytes of the choice, so that long choices are not at a disadvantage (``acc`` and ``acc_norm`` of lm-eval). ``model``
    may be a cohort's. ``tokens``: in a pass of all devices. Without gradients; the caller sets mode and autocast.
    """
    there, split = model.device, choices.split
    rows = np.concatenate([np.arange(*choices.span(question)) for question in questions])
    order = rows[np.argsort(-split.lengths[rows], kind="stable")]
    scores = torch.zeros(devices, len(split), dtype=torch.float64, device=there)
    start = 0
    while start < len(order):
        stop = start + max(1, tokens // devices // max(1, int(split.lengths[order[start]])))
        batch = split.collate(order[start:stop])
        labels = batch.pop("labels")
        inputs = {name: tensor.to(there).repeat(devices, 1) for name, tensor in batch.items()}
        losses, _ = predictions(model, inputs, labels, devices)
        places = torch.from_numpy(order[start:stop])[targets(labels)[0] // labels.shape[1]].to(there)
        scores.index_add_(1, places, -losses.double())
        start = stop
    found = scores.cpu().numpy()
    return _right(found, choices, questions), _right(found / choices.bytes, choices, questions)


def _right(scores: np.ndarray, choices: Choices, questions: np.ndarray) -> np.ndarray:
    """Share of questions with the highest of ``scores`` [devices, choices] at the right choice; of equals the first."""
    hits = [scores[:, slice(*choices.span(q))].argmax(1) == choices.right[q] for q in questions]
    return np.stack(hits).mean(axis=0, dtype=np.float64)
