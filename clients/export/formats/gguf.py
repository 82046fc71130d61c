"""GGUF: one file for llama.cpp and what reads its format."""

from pathlib import Path
from typing import TYPE_CHECKING

from slimfed.clients.export.formats.registry import FORMATS, WholeModel

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from slimfed.clients.export.manifest import Manifest
    from slimfed.clients.export.slim_model import SlimModel


@FORMATS.register("gguf")
class Gguf(WholeModel):
    """One file for llama.cpp; uniform Llama-like decoders only."""

    kind = "gguf"
    weights = ("fp32", "bf16", "fp16", "q8_0", "q4_0", "q4_k_m")
    library = "gguf"
    opening = """
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("FOLDER", gguf_file="model.gguf")  # or llama.cpp
"""

    def save(self, slim: "SlimModel", folder: Path, card: str) -> "Manifest":
        """The file, and the tokenizer. Raises ``InputError`` if the model is no uniform Llama-like decoder."""
        from slimfed.clients.export.files.gguf import save_gguf  # imports torch and gguf

        return save_gguf(slim, folder, card)

    def row_bytes(self, weights: str, width: int, output: bool) -> int:
        """As llama.cpp stores it."""
        from slimfed.clients.export.files.gguf_weights import row_bytes  # imports gguf

        return row_bytes("output.weight" if output else "token_embd.weight", width, weights)

    def open(
        self, folder: Path, manifest: "Manifest", *, base: Path | str | None = None, threads: int = 0
    ) -> "tuple[nn.Module, PreTrainedTokenizerBase]":
        """The file's weights in a transformers model."""
        from slimfed.clients.export.files.gguf import load_gguf  # imports torch and gguf
        from slimfed.clients.export.label_only_encoder import lean

        slim = load_gguf(folder, manifest)
        return lean(slim.model, manifest.lean), slim.tokenizer
