"""Random importance, a control for other criteria."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from slimfed.clients.importance.base import IMPORTANCE, Importance
from slimfed.clients.structure import Structure

if TYPE_CHECKING:
    import torch

    from slimfed.clients.adapters.training.protocols import Adapted


@IMPORTANCE.register("random")
class Random(Importance):
    """Uniform noise, drawn once per device and round, so that smoothing does not average it out."""

    needs_data = False
    independent_of_text = True

    def watch(self, model: "Adapted", structures: Sequence[Structure], holds: Structure) -> None:
        """Draw scores for all units of the model, including removed ones."""
        import torch  # not above: see base.py

        super().watch(model, structures, holds)
        units = self.blueprint.units
        noise = torch.stack([torch.rand(units, generator=torch.Generator().manual_seed(s)) for s in self.seeds])
        self._noise = noise.reshape(*model.lead, units).to(model.device)[..., self.units]

    def score(self) -> "torch.Tensor":
        """The same draw at every step."""
        return self._noise
