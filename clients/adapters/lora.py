"""LoRA with a rank for each device, and a fully trained task head."""

from typing import TYPE_CHECKING

from slimfed.clients.adapters.base import ADAPTERS, AdapterMethod

if TYPE_CHECKING:
    from slimfed.clients.adapters.training.lora import LoraTraining


@ADAPTERS.register("lora")
class Lora(AdapterMethod):
    """y = W x + scaling * B (A x) (Hu et al., arXiv 2106.09685)."""

    plain_factors = True
    low_rank_options = True
    supports_server_optimizer = True
    supports_rounding = True

    @property
    def training(self) -> "LoraTraining":
        """Through PEFT's layers."""
        from slimfed.clients.adapters.training.lora import LoraTraining  # imports torch and PEFT

        return LoraTraining()
