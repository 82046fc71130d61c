"""One batch for a cohort from one batch of each of its devices."""

from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from slimfed.clients.losses import IGNORED

Batch = dict[str, torch.Tensor]


def join(batches: Sequence[Batch], pad_id: int) -> Batch:
    """Stack the devices' batches, padded to the most rows and the longest text among them: [devices * rows, ...].

    A device with fewer rows repeats its first one with targets that do not count: a row of nothing but padding would
    leave attention nothing to attend to.
    """
    rows = max(len(batch["input_ids"]) for batch in batches)
    length = max(batch["input_ids"].shape[1] for batch in batches)
    fill = {"input_ids": pad_id, "labels": IGNORED}
    joined = {}
    for name in batches[0]:
        parts = [_shape(batch[name], rows, length, fill.get(name, 0), name == "labels") for batch in batches]
        joined[name] = torch.cat(parts)
    return joined


def _shape(tensor: torch.Tensor, rows: int, length: int, fill: int, ignore: bool) -> torch.Tensor:
    if tensor.dim() == 2:
        tensor = pad(tensor, (0, length - tensor.shape[1]), value=fill)
    missing = rows - len(tensor)
    if missing == 0:
        return tensor
    extra = tensor[:1].expand(missing, *tensor.shape[1:])
    return torch.cat([tensor, torch.full_like(extra, IGNORED) if ignore else extra])
