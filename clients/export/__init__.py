"""Models that leave the platform: folders that anyone can open. ``load_slim`` opens one of safetensors."""

from slimfed.clients.export.formats.safetensors import SlimModel, load_slim, save_slim

__all__ = ["SlimModel", "load_slim", "save_slim"]
