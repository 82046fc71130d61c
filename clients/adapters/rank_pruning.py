"""HetLoRA's rank self-pruning: a device prunes its last ranks if training has made them smaller."""

import math
from dataclasses import replace

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.spec import AdapterSpec
from slimfed.clients.update import Update


def kept_ranks(rank: int, spec: AdapterSpec) -> int:
    """Ranks that a device of ``rank`` keeps if it prunes: floor(gamma r), but no fewer than the job's smallest rank."""
    return max(min(rank, spec.least_rank), math.floor(spec.keep_ranks * rank))


def self_pruned(update: Update, sent: Adapter, spec: AdapterSpec) -> Update:
    """The update, cut to :func:`kept_ranks` if the tail beyond them is smaller than in what was ``sent``.

    ``sent`` has the update's rank and structure. A tail that was sent as 0 does not count as smaller.
    """
    kept = kept_ranks(update.report.rank, spec)
    if not tail_product(update.adapter, kept) < tail_product(sent, kept):
        return update
    structure = update.report.structure
    adapter = narrow(update.adapter, structure, structure, kept)
    return replace(update.with_report(rank=kept, effective_rank=adapter.effective_rank), adapter=adapter)


def tail_product(adapter: Adapter, kept: int) -> float:
    """sum over the modules of ||B[:, kept:]||_F ||A[kept:]||_F."""
    return math.fsum(
        float(np.linalg.norm(f.b[:, kept:].astype(np.float64)) * np.linalg.norm(f.a[kept:].astype(np.float64)))
        for f in adapter.factors.values()
    )
