"""The interface of an export format, and the formats by name."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from slimfed.clients.errors import InputError
from slimfed.clients.export.model_card import card
from slimfed.clients.export.weights import BYTES
from slimfed.clients.registry import Registry

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from slimfed.clients.export.manifest import Manifest
    from slimfed.clients.export.slim_model import SlimModel
    from slimfed.clients.export.source import Source


class Format(ABC):
    """An export format: one kind of folder. It keeps no state between calls.

    A new format is one file here, whose class is registered with :data:`FORMATS`, or an entry point
    ``slimfed.export_formats`` of another package. The class is called once, without arguments. Its file is imported
    whenever formats are listed: torch and other slow packages are imported inside the methods.
    """

    kind: ClassVar[str]
    """What ``slimfed.json`` says of the folder; the format of this name opens it."""

    quantised: ClassVar[str] = ""
    """How the weights are narrowed, such as "int8", as ``slimfed.json`` says it; empty if they are not."""

    weights: ClassVar[tuple[str, ...]] = ("fp32",)
    """The types that weights can be written in (``weights.py``); the first is used where the base's own is not one."""

    library: ClassVar[str]
    """The library that opens the folder, as model hubs name it on the model card."""

    needs_base: ClassVar[bool] = False
    """True if the folder holds changes of the unpruned base alone, which is needed to open it."""

    runtime: ClassVar[str] = ""
    """The module that runs the folder, if not torch: it is imported before memory is measured, so as not to count."""

    @abstractmethod
    def write(self, source: "Source", folder: Path) -> "Manifest":
        """Make ``folder``, complete or not at all (``whole_folder``), and return the manifest that was written there.

        Raises ``InputError``, with cause and cure, if the folder exists or the model cannot be written.
        """

    def open(
        self, folder: Path, manifest: "Manifest", *, base: Path | str | None = None, threads: int = 0
    ) -> "tuple[nn.Module, PreTrainedTokenizerBase]":
        """The model, called as ``model(input_ids=..., attention_mask=...).logits`` on the CPU, and its tokenizer.

        ``base``: where the unpruned base is, if not where the run had it. ``threads``: for a runtime of its own; 0
        leaves it to the runtime. Raises ``InputError`` if the folder cannot be opened, as here by default.
        """
        raise InputError(f"{str(folder)!r} holds a model as {manifest.kind}, which slimfed writes but does not open")


class WholeModel(Format):
    """A format of the whole model, with the adapter merged into the weights."""

    opening: ClassVar[str]
    """Python for the model card that opens the folder, which it calls FOLDER."""

    @abstractmethod
    def save(self, slim: "SlimModel", folder: Path, card: str) -> "Manifest":
        """Make ``folder``, complete or not at all, of a model that has been put together; ``card``: the model card."""

    def row_bytes(self, weights: str, width: int, output: bool) -> int:
        """Bytes of a row of ``width`` of an embedding in the type ``weights``; ``output``: it writes tokens."""
        return width * (1 if self.quantised else BYTES[weights])

    def write(self, source: "Source", folder: Path) -> "Manifest":
        """Build the model and save it."""
        from slimfed.clients.export.prompt_format import prompt_example  # imports transformers
        from slimfed.clients.export.vocabulary.trimming import with_saved  # imports torch

        slim = with_saved(source.slim(), self.row_bytes)
        manifest = slim.manifest.model_copy(update={"kind": self.kind})
        example = prompt_example(manifest, slim.tokenizer)
        text = card(manifest, source.figures, self.opening, self.library, example=example)
        return self.save(slim, folder, text)


FORMATS = Registry[Format]("--format", "slimfed.export_formats", Format, package="slimfed.clients.export.formats")
"""Export formats by name, one object each."""


def format_of(manifest: "Manifest") -> Format:
    """The format that a folder was written in. Raises ``InputError`` if it is not installed."""
    for each in FORMATS.values():
        if (each.kind, each.quantised) == (manifest.kind, manifest.quantised):
            return each
    raise InputError(
        f"the folder holds a model as {manifest.kind!r}, which no installed package knows; install the one that "
        "brings this format"
    )
