"""PAT's decision on the dimensions of the residual stream to keep, for server and devices."""

from slimfed.clients.adapter import Adapter

EMBEDDING = "embedding"
"""The place of the module behind the embedding; the others are called by the module that writes into the stream."""


def is_decided(adapter: Adapter) -> bool:
    """True once the server has chosen the kept dimensions, at the milestone: ``progress``, its share, is 1 then."""
    return bool(adapter.extra["progress"][0] >= 1)


def kept_width(width: int, sparsity: float) -> int:
    """k: the dimensions that are kept of ``width``; all weights of the blocks have the width on one side."""
    return max(1, round(width * (1 - sparsity)))
