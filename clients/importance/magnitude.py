"""Importance as the size of the adapted weights."""

import torch

from slimfed.clients.importance.base import Importance
from slimfed.clients.structure import Cut


class Magnitude(Importance):
    """Squared L2 norm of the rows or columns of W + s B A that go with a unit."""

    def score(self) -> torch.Tensor:
        """Scores of the weights as they stand."""
        with torch.no_grad():
            return self.by_block(self._along)

    def _along(self, cut: Cut) -> torch.Tensor:
        layer = self.model.layer(cut.module)
        merged = layer.weight + layer.scaling * layer.b @ layer.a
        return merged.square().sum(-1 if cut.side == "out" else -2)
