"""Layer shares by the shapes of the matrices."""

import numpy as np

from slimfed.clients.allocation.base import ALLOCATIONS, Allocation
from slimfed.clients.structure import Block, Blueprint


@ALLOCATIONS.register("erk")
class Erk(Allocation):
    """A block keeps the more, the more rows and columns its matrices have for their weights (Erdos-Renyi-Kernel).

    q_b = sum of (o + i) / sum of o i over the block's matrices [o, i] (RigL, arXiv 1911.11134, for networks of unlike
    layers; [code VITA-Group/Random_Pruning]). All layers of a transformer have equal shapes, so that there are two
    densities alone, one of attention and one of FFNs.
    """

    def weights(self, blueprint: Blueprint, measured: np.ndarray | None, kept: float) -> np.ndarray:
        """The quotients."""
        shapes = [_matrices(block) for block in blueprint.blocks]
        return np.array([sum(o + i for o, i in each) / sum(o * i for o, i in each) for each in shapes])


def _matrices(block: Block) -> list[tuple[int, int]]:
    """(out, in) of the block's matrices in the unpruned model; parts of a fused one are counted each."""
    cuts = [(cut, block.units * cut.width) for cut in block.cuts for _ in cut.starts]
    # A unit has the model's width for each of its rows and columns, and at most one bias for each.
    width = block.unit_parameters // sum(cut.width for cut, _ in cuts)
    return [(size, width) if cut.side == "out" else (width, size) for cut, size in cuts]
