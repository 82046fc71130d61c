"""What the criteria share that score units by what flows into the module on which they are columns."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from slimfed.clients.importance.base import Importance
from slimfed.clients.structure import Blueprint, Cut, Structure

if TYPE_CHECKING:
    import torch

    from slimfed.clients.adapters.training.protocols import Adapted


class OfInputs(Importance):
    """Scores of the inputs x of the modules whose inputs are cut (attention output, FFN down projection).

    x is that of the last forward pass, over the tokens that count. A criterion says what is kept of it
    (:attr:`reduction`), and how a module's inputs score by it (:meth:`_along`).
    """

    needs_inputs: ClassVar[bool] = True
    reduction: ClassVar[Literal["norm", "variance"]]
    """What is kept of each input over the tokens."""

    def __init__(self, blueprint: Blueprint, seeds: Sequence[int]) -> None:
        from slimfed.clients.importance.seen_inputs import REDUCTIONS, SeenInputs  # not above: see base.py

        super().__init__(blueprint, seeds)
        self._seen = SeenInputs(REDUCTIONS[self.reduction])

    def watch(self, model: "Adapted", structures: Sequence[Structure], holds: Structure) -> None:
        """Hook the block outputs of the (re)built model."""
        super().watch(model, structures, holds)
        self._seen.watch(model, self.blueprint)

    def see(self, tokens: "torch.Tensor") -> None:
        """Store the mask of counted tokens."""
        self._seen.tokens = tokens

    def score(self) -> "torch.Tensor":
        """Scores of the last forward pass."""
        return self.by_block(self._along, counts=lambda cut: cut.side == "in")

    @abstractmethod
    def _along(self, cut: Cut) -> "torch.Tensor":
        """Scores of the inputs of a cut's module, [*lead, in], before they are summed by unit."""
