"""Agreement: how far a device's update moves the adapter to where the rest of the fleet moves it.

A device's own loss says how well it has learnt its own text, also where that takes it away from the others. What its
update is worth for the global adapter is its part along the mean of the others' updates: what they share adds up in the
aggregate, what is only its own is averaged away. Our definition; FedSpine has none.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import torch

from slimfed.clients.seeds import derive
from slimfed.clients.update import Update
from slimfed.strategies.coordinates.global_vector import GlobalVector
from slimfed.strategies.settings import StrategySettings

# Numbers of the adapter that are looked at. The error of an inner product of two updates is about 1 / sqrt(2048), two
# hundredths, of the product of their lengths.
_SAMPLE = 2048


def update_samples(settings: StrategySettings, space: GlobalVector, number: int) -> "UpdateSamples | None":
    """The empty samples of round ``number``; None if the agent does not learn from agreements."""
    return UpdateSamples(space, derive(settings.task.seed, "agreement", number)) if settings.compares else None


@dataclass
class UpdateSamples:
    """The same seeded sample of numbers from the updates of a round: how each has moved, and which it owns.

    ``space``: the global adapter that was sent.
    """

    space: GlobalVector
    seed: int
    _rows: dict[int, tuple[np.ndarray, np.ndarray, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        draw = np.random.default_rng(self.seed)
        count = min(_SAMPLE, len(self.space))
        chosen = np.sort(draw.choice(len(self.space), count, replace=False)).astype(np.int64)
        self._places = torch.from_numpy(chosen).to(self.space.device)
        self._before = self.space.values.index_select(0, self._places)

    def add(self, update: Update) -> None:
        """Look at one accepted update."""
        placed = self.space.place(update)
        owned = placed.owned.index_select(0, self._places)
        moved = (placed.values.index_select(0, self._places) - self._before).masked_fill_(~owned, 0.0)
        self._rows[update.device] = moved.cpu().numpy(), owned.cpu().numpy(), update.report.examples

    def agreements(self, devices: Collection[int]) -> dict[int, float]:
        """The agreement of each of ``devices`` whose update was added.

        With d the move of a device, w its examples, and M the mean move over the owners of each number (M' without the
        device itself), it is the inner product of d and M', divided by that of M with itself: 1 on average if all
        devices move alike, 0 for a move that no other device shares. NaN if nothing moved, or if there is one device.
        """
        order = sorted(set(devices) & self._rows.keys())
        if not order:
            return {}
        moves, owners = (np.stack([self._rows[d][part] for d in order]).astype(np.float64) for part in (0, 1))
        weights = np.array([[self._rows[device][2]] for device in order], dtype=np.float64)
        total, owning = (weights * moves).sum(0), (weights * owners).sum(0)
        mean = total / np.maximum(owning, 1.0)
        others = (total - weights * moves) / np.maximum(owning - weights * owners, 1.0)
        size = float(mean @ mean)
        shared = (moves * others).sum(1) / size if size > 0 and len(order) > 1 else np.full(len(order), np.nan)
        return dict(zip(order, shared.tolist(), strict=True))
