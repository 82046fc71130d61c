"""Models that leave the platform: folders that anyone can open. ``load_slim`` opens one of safetensors."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slimfed.clients.export.files.safetensors import load_slim, save_slim
    from slimfed.clients.export.slim_model import SlimModel

__all__ = ["SlimModel", "load_slim", "save_slim"]


def __getattr__(name: str) -> Any:
    """Import what is asked for: it needs torch, which listing the formats must not wait for."""
    if name == "SlimModel":
        from slimfed.clients.export.slim_model import SlimModel

        return SlimModel
    if name in ("load_slim", "save_slim"):
        from slimfed.clients.export.files import safetensors

        return getattr(safetensors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
