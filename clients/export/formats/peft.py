"""PEFT: the adapter alone, without its base."""

from pathlib import Path
from typing import TYPE_CHECKING

from slimfed.clients.export.formats.registry import FORMATS, Format
from slimfed.clients.export.model_card import card

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from slimfed.clients.export.manifest import Manifest
    from slimfed.clients.export.source import Source

_OPENING = """
from peft import PeftModel
from transformers import AutoModelFor{auto}

base = AutoModelFor{auto}.from_pretrained("{base}"{labels})
model = PeftModel.from_pretrained(base, "FOLDER")  # the tuned model, nothing cut
"""


@FORMATS.register("peft")
class Peft(Format):
    """The adapter alone, for the unpruned base."""

    kind = "peft"
    library = "peft"
    needs_base = True

    def write(self, source: "Source", folder: Path) -> "Manifest":
        """The factors, in the coordinates of the base. Raises ``InputError`` if the run changed more than that."""
        from slimfed.clients.export.files.peft import save_peft  # imports torch and PEFT

        classifies = source.spec.task == "classification"
        opening = _OPENING.format(
            auto="SequenceClassification" if classifies else "CausalLM",
            base=source.spec.path,
            labels=f", num_labels={len(source.base.labels or ())}" if classifies else "",
        )
        manifest = source.manifest.model_copy(update={"kind": self.kind})
        from slimfed.clients.export.prompt_format import prompt_example  # imports transformers

        example = prompt_example(manifest, source.base.tokenizer)
        text = card(manifest, source.figures, opening, self.library, whole=False, example=example)
        return save_peft(source, folder, text)

    def open(
        self, folder: Path, manifest: "Manifest", *, base: Path | str | None = None, threads: int = 0
    ) -> "tuple[nn.Module, PreTrainedTokenizerBase]":
        """The sliced base with the adapter in it."""
        from slimfed.clients.export.files.peft import load_peft  # imports torch and PEFT
        from slimfed.clients.export.label_only_encoder import lean

        slim = load_peft(folder, manifest, base)
        return lean(slim.model, manifest.lean), slim.tokenizer
