"""ONNX: a graph for any runtime."""

from pathlib import Path
from typing import TYPE_CHECKING

from slimfed.clients.export.formats.registry import FORMATS, WholeModel

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from slimfed.clients.export.manifest import Manifest
    from slimfed.clients.export.slim_model import SlimModel


@FORMATS.register("onnx")
class Onnx(WholeModel):
    """A graph for ONNX Runtime; decoders with their cache."""

    kind = "onnx"
    library = "onnx"
    runtime = "slimfed.clients.export.files.onnx_session"
    opening = """
import onnxruntime

session = onnxruntime.InferenceSession("FOLDER/model.onnx")
"""

    def save(self, slim: "SlimModel", folder: Path, card: str) -> "Manifest":
        """The graph, configuration and tokenizer."""
        from slimfed.clients.export.files.onnx import save_onnx  # imports torch and ONNX

        return save_onnx(slim, folder, card)

    def open(
        self, folder: Path, manifest: "Manifest", *, base: Path | str | None = None, threads: int = 0
    ) -> "tuple[nn.Module, PreTrainedTokenizerBase]":
        """The graph as a module, computed by ONNX Runtime."""
        from slimfed.clients.export.files.onnx_session import OnnxModel  # imports torch and ONNX Runtime
        from slimfed.clients.export.files.safetensors import load_tokenizer

        return OnnxModel(folder, manifest, threads), load_tokenizer(folder, manifest)
