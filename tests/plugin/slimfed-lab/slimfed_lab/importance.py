"""Importance by absolute values."""

from typing import TYPE_CHECKING

from slimfed.clients.importance import Importance
from slimfed.clients.structure import Cut

if TYPE_CHECKING:
    import torch  # for the types alone: `slimfed methods` imports this file, and must not wait for torch


class L1Magnitude(Importance):
    """L1 norm of the rows or columns of the adapted weight that go with a unit."""

    needs_data = False

    def score(self) -> "torch.Tensor":
        """Scores of the weights as they stand, larger means keep; each module's are normalised and summed by unit."""
        return self.by_block(self._along)

    def _along(self, cut: Cut) -> "torch.Tensor":
        return self.model.layer(cut.module).merged().abs().sum(-1 if cut.side == "out" else -2)
