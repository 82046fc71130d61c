"""Safetensors: the physically smaller model, as transformers writes it."""

from pathlib import Path
from typing import TYPE_CHECKING

from slimfed.clients.export.formats.registry import FORMATS, WholeModel

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from slimfed.clients.export.manifest import Manifest
    from slimfed.clients.export.slim_model import SlimModel

LOAD_SLIM = """
from slimfed.clients.export import load_slim

slim = load_slim("FOLDER")
slim.model, slim.tokenizer
"""


@FORMATS.register("safetensors")
class Safetensors(WholeModel):
    """The smaller weights, opened by load_slim."""

    kind = "safetensors"
    weights = ("fp32", "bf16", "fp16")
    library = "transformers"
    opening = LOAD_SLIM

    def save(self, slim: "SlimModel", folder: Path, card: str) -> "Manifest":
        """Weights, configuration and tokenizer."""
        from slimfed.clients.export.files.safetensors import save_slim  # imports torch

        return save_slim(slim, folder, card)

    def open(
        self, folder: Path, manifest: "Manifest", *, base: Path | str | None = None, threads: int = 0
    ) -> "tuple[nn.Module, PreTrainedTokenizerBase]":
        """The sliced transformers model."""
        from slimfed.clients.export.files.safetensors import load_slim  # imports torch
        from slimfed.clients.export.label_only_encoder import lean

        slim = load_slim(folder)
        return lean(slim.model, manifest.lean), slim.tokenizer
