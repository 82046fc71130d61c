"""Adapters by name: what a device trains beside the frozen base. A new one is one file here and one line below."""

from slimfed.clients.adapters.base import AdapterMethod
from slimfed.clients.adapters.lora import Lora
from slimfed.clients.adapters.pat import Pat
from slimfed.clients.adapters.sora import Sora
from slimfed.clients.adapters.sparse import Sparse

ADAPTERS: dict[str, AdapterMethod] = {
    "lora": Lora(),
    "sora": Sora(),
    "sparse": Sparse(),
    "pat": Pat(),
}

__all__ = ["ADAPTERS", "AdapterMethod"]
