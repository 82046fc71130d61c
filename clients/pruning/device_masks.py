"""Masks of the rows, columns and ranks of the unpruned modules that each device of a cohort has."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from slimfed.clients.structure import Structure

Masks = Mapping[tuple[str, str], torch.Tensor]


def side_masks(structures: Sequence[Structure], device: torch.device) -> dict[tuple[str, str], torch.Tensor]:
    """``(module, side)`` -> bool [devices, rows or columns]; sides without units are left out."""
    keep = torch.from_numpy(np.stack([structure.keep for structure in structures])).to(device)
    blueprint = structures[0].blueprint
    masks: dict[tuple[str, str], torch.Tensor] = {}
    for index, block in enumerate(blueprint.blocks):
        units = keep[:, blueprint.span(index)]
        alike: dict[tuple[int, int], torch.Tensor] = {}
        for cut in block.cuts:
            place = cut.width, len(cut.starts)
            if place not in alike:
                alike[place] = units.repeat_interleave(cut.width, dim=1).repeat(1, len(cut.starts))
            masks[cut.module, cut.side] = alike[place]
    return masks


def rank_mask(ranks: Sequence[int], device: torch.device) -> torch.Tensor:
    """Bool [devices, largest rank]."""
    return torch.arange(max(ranks), device=device) < torch.tensor(ranks, device=device)[:, None]


def factor_masks(module: str, masks: Masks, ranks: torch.Tensor, rows: int, columns: int) -> dict[str, torch.Tensor]:
    """Masks of the devices' parts of factors: bool a [devices, r, in], b [devices, out, r], gate [devices, r]."""
    into, out = masks.get((module, "in")), masks.get((module, "out"))
    every = len(ranks)
    into = into if into is not None else ranks.new_ones(every, columns)
    out = out if out is not None else ranks.new_ones(every, rows)
    return {"a": ranks[:, :, None] & into[:, None, :], "b": out[:, :, None] & ranks[:, None, :], "gate": ranks}
