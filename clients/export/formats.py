"""The formats a model leaves in. A new one is one file with one function, and one line here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slimfed.clients.export.card import card
from slimfed.clients.export.manifest import Manifest
from slimfed.clients.export.slim import save_slim
from slimfed.clients.export.source import Source


@dataclass(frozen=True)
class Format:
    """``write(source, folder)`` makes the folder, complete or not at all; it raises ``InputError`` if it cannot."""

    summary: str
    write: Callable[[Source, Path], Manifest]


def _safetensors(source: Source, folder: Path) -> Manifest:
    opening = 'from slimfed.clients.export import load_slim\n\nslim = load_slim("FOLDER")\nslim.model, slim.tokenizer'
    return save_slim(source.slim(), folder, card(source.manifest, source.figures, opening))


FORMATS: dict[str, Format] = {
    "safetensors": Format("the smaller weights, adapter folded in; opened by load_slim", _safetensors),
}
