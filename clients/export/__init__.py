"""Models that leave the platform: folders that anyone can open. ``load_slim`` opens one of safetensors."""

from slimfed.clients.export.formats.safetensors import load_slim, save_slim
from slimfed.clients.export.slim_model import SlimModel

__all__ = ["SlimModel", "load_slim", "save_slim"]
