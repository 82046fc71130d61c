"""ONNX with int8 weights."""

from pathlib import Path
from typing import TYPE_CHECKING

from slimfed.clients.export.formats.onnx import Onnx
from slimfed.clients.export.formats.registry import FORMATS

if TYPE_CHECKING:
    from slimfed.clients.export.manifest import Manifest
    from slimfed.clients.export.slim_model import SlimModel


@FORMATS.register("onnx-int8")
class OnnxInt8(Onnx):
    """A graph for ONNX Runtime with int8 weights."""

    quantised = "int8"

    def save(self, slim: "SlimModel", folder: Path, card: str) -> "Manifest":
        """The graph, its weights quantised, configuration and tokenizer."""
        from slimfed.clients.export.files.onnx_int8 import save_int8  # imports torch and ONNX Runtime

        return save_int8(slim, folder, card)
