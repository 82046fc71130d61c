"""One batch for a cohort from one batch of each of its devices."""

from collections.abc import Sequence

import numpy as np
import torch

from slimfed.clients.training.losses import IGNORED

Batch = dict[str, torch.Tensor]


def join(batches: Sequence[Batch], pad_id: int) -> Batch:
    """Join the devices' batches, padded to the most rows and the longest text among them: [devices * rows, ...].

    A device with fewer rows repeats its first one with ignored targets, since attention is undefined on a row of
    padding alone.
    """
    return {name: tensor[0] for name, tensor in stack([batches], pad_id).items()}


def stack(steps: Sequence[Sequence[Batch]], pad_id: int, multiple: int = 1) -> Batch:
    """The batches of several steps, one a device and step, joined as :func:`join` does: [steps, devices * rows, ...].

    All steps are padded to one length, a multiple of ``multiple`` tokens. Without any padding there is no attention
    mask.
    """
    every = [batch for batches in steps for batch in batches]
    rows = max(len(batch["input_ids"]) for batch in every)
    length = max(batch["input_ids"].shape[1] for batch in every)
    length = -(-length // multiple) * multiple
    fill = {"input_ids": pad_id, "labels": IGNORED}
    stacked = {}
    for name, first in every[0].items():
        shape = (len(every), rows, length)[: first.dim() + 1]
        whole = np.full(shape, fill.get(name, 0), dtype=np.int64)
        for place, batch in zip(whole, every, strict=True):
            part = batch[name].numpy()
            place[tuple(slice(size) for size in part.shape)] = part
            if len(part) < rows and name != "labels":
                place[len(part) :] = place[:1]
        if name == "attention_mask" and whole.all():
            continue
        stacked[name] = torch.from_numpy(whole.reshape(len(steps), -1, *shape[2:]))
    return stacked
