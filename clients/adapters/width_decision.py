"""PAT's decision on the dimensions of the residual stream to keep, for server and devices."""

import numpy as np

from slimfed.clients.adapter import Adapter

DECIDED = float(np.float32(0.8))
"""Share of the run from which on the mask is hard, as in the paper; exact as a float32, which carries it."""

EMBEDDING = "embedding"
"""The place of the module behind the embedding; the others are called by the module that writes into the stream."""


def is_decided(adapter: Adapter) -> bool:
    """True once the server has chosen the kept dimensions."""
    return bool(adapter.extra["progress"][0] >= DECIDED)


def kept_width(width: int, sparsity: float) -> int:
    """k: the dimensions that are kept of ``width``; all weights of the blocks have the width on one side."""
    return max(1, round(width * (1 - sparsity)))
