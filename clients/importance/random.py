"""Random importance: the control that any criterion must beat."""

import torch

from slimfed.clients.importance.base import Importance


class Random(Importance):
    """Uniform noise, drawn once per device and round, so that smoothing does not level it."""

    def score(self) -> torch.Tensor:
        """The same draw at every step, whatever has been removed meanwhile."""
        units = self.blueprint.units
        noise = torch.stack([torch.rand(units, generator=torch.Generator().manual_seed(s)) for s in self.seeds])
        return noise.reshape(*self.model.lead, units).to(self.model.device)[..., self.units]
