"""Allocations by name: how sparse each block of a shared structure becomes. None imports torch before it measures."""

from slimfed.clients.allocation.base import ALLOCATIONS, Allocation, Probe

__all__ = ["ALLOCATIONS", "Allocation", "Probe"]
