"""One adapter sent to many devices; each device's part is sliced on demand."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import overload

import torch

from slimfed.clients.adapter import Adapter
from slimfed.clients.pruning.adapter_slicing import narrow, widen
from slimfed.clients.pruning.device_masks import Masks, side_masks
from slimfed.clients.structure import Structure


@dataclass(frozen=True)
class Broadcast(Sequence[Adapter]):
    """Item n is ``whole``, in the shape of ``has``, narrowed to ``structures[n]`` and ``ranks[n]``.

    A cohort on a GPU uses the whole adapter with masks and does not slice it.
    """

    whole: Adapter
    has: Structure
    structures: Sequence[Structure]
    ranks: Sequence[int]
    _parts: dict[int, Adapter] = field(default_factory=dict, repr=False)
    _masks: dict[torch.device, Masks] = field(default_factory=dict, repr=False)

    @cached_property
    def widened(self) -> Adapter:
        """The whole in the coordinates of the base."""
        return widen(self.whole, self.has)

    def masks(self, device: torch.device) -> Masks:
        """Masks of the rows and columns that each device has (:func:`side_masks`)."""
        if device not in self._masks:
            self._masks[device] = side_masks(self.structures, device)
        return self._masks[device]

    def __len__(self) -> int:
        return len(self.structures)

    @overload
    def __getitem__(self, place: int) -> Adapter: ...

    @overload
    def __getitem__(self, place: slice) -> "Broadcast": ...

    def __getitem__(self, place: int | slice) -> "Adapter | Broadcast":
        if isinstance(place, slice):
            return Broadcast(self.whole, self.has, self.structures[place], self.ranks[place])
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        if place not in self._parts:
            self._parts[place] = narrow(self.whole, self.has, self.structures[place], self.ranks[place])
        return self._parts[place]

    def with_whole(self, whole: Adapter) -> "Broadcast":
        """A broadcast of another adapter of the same shape."""
        return replace(self, whole=whole, _parts={})
