"""LoRA from an orthonormal start."""

from dataclasses import replace

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters.lora import Lora
from slimfed.clients.structure import Blueprint


class OrthogonalLora(Lora):
    """LoRA whose factor A begins with orthonormal rows.

    Training, messages and everything else are LoRA's, and so is what the class says of itself (``plain_factors``, ...).
    """

    def begin(self, adapter: Adapter, blueprint: Blueprint, seed: int) -> Adapter:
        """The factors that a run starts from: A [r, in] is made orthonormal, B [out, r] stays zero."""
        factors = {
            module: replace(each, a=np.ascontiguousarray(np.linalg.qr(each.a.T)[0].T))
            for module, each in adapter.factors.items()
        }
        return replace(adapter, factors=factors)
