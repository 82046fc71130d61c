"""Importance as the size of the adapted weights."""

from typing import TYPE_CHECKING

from slimfed.clients.importance.base import IMPORTANCE, Importance
from slimfed.clients.structure import Cut

if TYPE_CHECKING:
    import torch


@IMPORTANCE.register("magnitude")
class Magnitude(Importance):
    """Squared L2 norm of the rows or columns of the adapted weight of a unit."""

    needs_data = False

    def score(self) -> "torch.Tensor":
        """Scores of the current weights."""
        return self.by_block(self._along)

    def _along(self, cut: Cut) -> "torch.Tensor":
        return self.model.layer(cut.module).merged().square().sum(-1 if cut.side == "out" else -2)
