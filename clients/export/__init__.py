"""Exported models: self-contained folders. ``load_slim`` opens one in safetensors."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slimfed.clients.export.files.safetensors import load_slim, save_slim
    from slimfed.clients.export.slim_model import SlimModel

__all__ = ["SlimModel", "load_slim", "save_slim"]


def __getattr__(name: str) -> Any:
    """Import a name on demand, as it needs torch, which listing formats does not."""
    if name == "SlimModel":
        from slimfed.clients.export.slim_model import SlimModel

        return SlimModel
    if name in ("load_slim", "save_slim"):
        from slimfed.clients.export.files import safetensors

        return getattr(safetensors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
