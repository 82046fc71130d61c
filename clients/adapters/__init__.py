"""Adapters by name: what a device trains beside the frozen base. None imports torch before it is to be trained."""

from slimfed.clients.adapters.base import ADAPTERS, AdapterMethod

__all__ = ["ADAPTERS", "AdapterMethod"]
