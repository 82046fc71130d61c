"""Random importance: the control that any criterion must beat."""

import torch

from slimfed.clients.importance.base import Importance


class Random(Importance):
    """Uniform noise, drawn once per device and round, so that smoothing does not level it."""

    def score(self) -> torch.Tensor:
        """The same draw at every step, whatever has been removed meanwhile."""
        noise = torch.rand(self.blueprint.units, generator=torch.Generator().manual_seed(self.seed))
        return noise.to(self.model.device)[self.kept]
