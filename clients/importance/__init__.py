"""Importance criteria by name. None imports torch before it scores."""

from slimfed.clients.importance.base import IMPORTANCE, Importance

__all__ = ["IMPORTANCE", "Importance"]
