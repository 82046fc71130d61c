"""The structure that a run starts from, where its base is the finished model of another run.

Such a base is a plain folder of a whole model with one file more, which says what that run had removed.
"""

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from slimfed.clients.errors import InputError
from slimfed.clients.models.gguf_cache import Precision
from slimfed.clients.structure import Blueprint, Structure

FILE = "slimfed-start.json"
"""Beside config.json."""


class Start(BaseModel):
    """What a finished model was: of ``run`` after ``round``, of ``labels``, with the units ``kept`` by block.

    ``precision``, ``base_bytes``: type and size of the weights of the base that it was tuned from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    round: int
    labels: tuple[str, ...] | None
    precision: Precision
    base_bytes: int | None
    kept: dict[str, tuple[int, ...]]

    def __str__(self) -> str:
        """Where the weights came from, in words."""
        return f"run {self.run}, its global model after round {self.round}"

    def structure(self, blueprint: Blueprint) -> Structure:
        """The structure in the units of ``blueprint``. Raises :class:`InputError` if it is of another model."""
        keep = np.zeros(blueprint.units, dtype=bool)
        names = [block.name for block in blueprint.blocks]
        fits = names == list(self.kept)
        for index, block in enumerate(blueprint.blocks if fits else ()):
            kept = self.kept[block.name]
            fits = fits and bool(kept) and min(kept) >= 0 and max(kept) < block.units
            if fits:
                keep[blueprint.offsets[index] + np.array(kept)] = True
        if not fits:
            raise InputError(f"model.path: {FILE} is of another model than the weights beside it; start from the run")
        return Structure(blueprint, keep)


def write_start(folder: Path, start: Start) -> None:
    """Put ``start`` beside the weights of ``folder``."""
    (folder / FILE).write_text(start.model_dump_json() + "\n", encoding="utf-8")


def read_start(folder: Path) -> Start | None:
    """What the model of ``folder`` was; None for a model that is no run's. Raises :class:`InputError`."""
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        return Start.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        cause = str(error).splitlines()[0]
        raise InputError(f"model.path: {str(file)!r} cannot be read: {cause:.200}; start from the run again") from None


def kept_units(structure: Structure) -> dict[str, tuple[int, ...]]:
    """The kept units of every block, as :class:`Start` holds them."""
    blocks = structure.blueprint.blocks
    return {block.name: tuple(structure.kept(index).tolist()) for index, block in enumerate(blocks)}
