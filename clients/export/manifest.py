"""The manifest of an exported folder: ``slimfed.json``."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from slimfed.clients.errors import InputError
from slimfed.clients.spec import DataSpec, Section
from slimfed.clients.structure import Blueprint, Structure

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "slimfed.json"
CARD = "README.md"


class Base(Section):
    """The pre-trained model that was tuned. ``sha256``: over its weights (see :func:`weights_digest`).

    ``origin``: the GGUF file or the adapter that they came from; empty if they were read as they are. ``precision``:
    the type that they were stored in. ``quantization``: how the run held them; ``sha256`` is then of the dequantised
    ones, which the adapter was trained on.
    """

    path: str
    revision: str | None
    model_type: str
    sha256: str
    config: dict[str, Any]
    origin: str = ""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    quantization: Literal["none", "int8", "nf4"] = "none"


class Provenance(Section):
    """The origin of the model: a run of slimfed, and its subject ("global", "device 17")."""

    run: str
    name: str
    method: str
    subject: str
    round: int
    seed: int
    sparsity: float
    created: str
    versions: dict[str, str]


class FileEntry(Section):
    """One file of the folder as it was written."""

    bytes: int
    sha256: str


class VocabularyLosses(Section):
    """What a text costs with fewer tokens, measured on ``texts`` texts that had no part in choosing them.

    ``changed``: the share of them that are divided into other tokens. ``tokens_before``, ``tokens_after``: of a text,
    mean. Of a language model, bits a byte; of a classifier, accuracy.
    """

    texts: int
    changed: float
    tokens_before: float
    tokens_after: float
    bits_per_byte_before: float | None = None
    bits_per_byte_after: float | None = None
    accuracy_before: float | None = None
    accuracy_after: float | None = None


class Vocabulary(Section):
    """The tokens of a model whose vocabulary was trimmed.

    ``kept``: their ids in the base, ascending; their place is their id here. ``before``: tokens of the base.
    ``chosen_by``: the text that had to be divided as before, in words. ``saved``: bytes, rounded, that the embeddings
    are smaller by.
    """

    kept: list[int]
    before: int
    chosen_by: str
    saved: int = 0
    losses: VocabularyLosses | None = None


class Manifest(Section):
    """The data needed to open the folder without the run.

    ``kind``: the format that opens it (``formats/registry.py``). ``data``: the text it was trained on, its columns
    and longest length. ``prompted``: it completes prompts. ``positions``: the longest text in tokens that the model
    can take; None: any. ``kept``: module -> side ("out": rows, "in": columns) -> kept indices, in the coordinates
    of the unpruned module. ``width``: kept dimensions of the residual stream, ascending; None: all. ``head``:
    parameters beside the adapter that were trained in full. ``vocabulary``: the tokens that are left; None: all.
    ``stock``: plain ``from_pretrained`` opens it.
    ``quantised``: how the weights were narrowed, such as "int8"; empty if they were not. ``weights``: the type that
    they are written in (``weights.py``). ``lean``: it runs without
    what its label does not need (see :mod:`slimfed.clients.export.label_only_encoder`). ``files``: every file that
    must be as it was written (the model card may be edited).
    """

    format: Literal[1] = 1
    kind: str
    task: Literal["classification", "causal-lm"]
    labels: tuple[str, ...] | None
    data: DataSpec
    prompted: bool
    positions: int | None
    base: Base
    kept: dict[str, dict[str, list[int]]]
    width: list[int] | None = None
    head: tuple[str, ...] = ()
    vocabulary: Vocabulary | None = None
    stock: bool = False
    quantised: str = ""
    weights: str = "fp32"
    lean: bool = False
    provenance: Provenance
    files: dict[str, FileEntry] = Field(default_factory=dict)

    def structure(self, blueprint: Blueprint) -> Structure:
        """The kept units of ``blueprint``. Raises ``InputError`` naming a module whose indices are no whole units."""
        keep = np.zeros(blueprint.units, dtype=bool)
        for index, block in enumerate(blueprint.blocks):
            cut = block.cuts[0]
            rows = np.asarray(self.kept.get(cut.module, {}).get(cut.side, ()), dtype=np.int64)
            units = np.unique(rows[: len(rows) // len(cut.starts)] // cut.width)
            if not len(units) or units[-1] >= block.units:
                raise InputError(f"{NAME}: kept rows of {cut.module} do not fit its block of {block.units} units")
            keep[blueprint.span(index)][units] = True
        structure = Structure(blueprint, keep)
        expected = kept_indices(structure)
        wrong = next((name for name in {**expected, **self.kept} if expected.get(name) != self.kept.get(name)), None)
        if wrong is not None:
            raise InputError(f"{NAME}: kept indices of {wrong} are not whole units of its block")
        return structure


def kept_indices(structure: Structure) -> dict[str, dict[str, list[int]]]:
    """Module -> side -> kept indices, as a manifest holds them."""
    kept: dict[str, dict[str, list[int]]] = {}
    for (module, side), indices in structure.indices().items():
        kept.setdefault(module, {})[side] = indices.tolist()
    return kept


def weights_digest(model: "PreTrainedModel", without: tuple[str, ...] = ()) -> str:
    """SHA-256 over names, shapes and float32 values of a model's parameters but those in ``without`` (its new head).

    Of a quantised model those of its dequantised weights.
    """
    from slimfed.clients.models.quantised_base import named_weights  # imports torch

    digest = hashlib.sha256()
    for name, parameter in named_weights(model):
        if name not in without:
            digest.update(f"{name} {list(parameter.shape)}\n".encode())
            digest.update(parameter.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def write(folder: Path, manifest: Manifest) -> Manifest:
    """Enter every file of ``folder`` into the manifest and write it there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (NAME, CARD))
    files = {path.relative_to(folder).as_posix(): _entry(path) for path in paths}
    complete = manifest.model_copy(update={"files": files})
    text = json.dumps(complete.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))
    (folder / NAME).write_text(text + "\n", encoding="utf-8")
    return complete


def read(folder: Path) -> Manifest:
    """The manifest of an exported folder, after checking that every file is unchanged.

    Raises ``InputError`` that names a missing, changed or invalid file.
    """
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r}: there is no such folder; `slimfed export` writes one")
    try:
        document = json.loads((folder / NAME).read_bytes())
    except OSError:
        raise InputError(f"{str(folder)!r} has no {NAME}: it was not written by `slimfed export`") from None
    except ValueError:
        raise InputError(f"{str(folder / NAME)!r} is no JSON: export the model again") from None
    if isinstance(document, Mapping) and document.get("format") != 1:
        raise InputError(f"{str(folder / NAME)!r} has format {document.get('format')!r}; valid: 1; upgrade slimfed")
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{str(folder / NAME)!r}: {where}: {first['msg']}; export the model again") from None
    for name, entry in manifest.files.items():
        _check(folder, name, entry)
    return manifest


def _check(folder: Path, name: str, entry: FileEntry) -> None:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{str(folder / NAME)!r} names {name!r}, which is outside the folder")
    if not path.is_file():
        raise InputError(f"{str(folder)!r}: {name} is missing; export the model again")
    if _entry(path) != entry:
        raise InputError(f"{str(folder)!r}: {name} is not what was exported (SHA-256 differs); export the model again")


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(bytes=path.stat().st_size, sha256=digest)
