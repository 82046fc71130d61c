"""Adapter methods by name. A method imports torch only when it is trained."""

from slimfed.clients.adapters.base import ADAPTERS, AdapterMethod

__all__ = ["ADAPTERS", "AdapterMethod"]
