"""What a run reads beside its job file, pinned when the run is created, so that it does not go on with something else.

Pinned are the files of text, tokenizer, configuration, weights and fleet profile by their SHA-256, the fields of the
model's configuration files, the names of the labels, and, where splits have no files, their rows.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from slimfed.clients.errors import InputError
from slimfed.clients.inputs import Digests, data_digests, file_digest, files_digest, model_digests, of_hub
from slimfed.clients.models.location import model_folder
from slimfed.clients.spec import ModelSpec
from slimfed.platform.home import RunFolder
from slimfed.platform.job.job import Job

if TYPE_CHECKING:
    from slimfed.clients.data.split import TextSplit
    from slimfed.clients.data.text import TextData  # imports numpy
    from slimfed.clients.structure import Blueprint

_LARGEST_FIELDS_BYTES = 2**20
_BY_FIELD = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
_WITHOUT_EFFECT = ("transformers_version", "_name_or_path", "chat_template")
_SHOWN = 60


class Inputs(BaseModel):
    """``files``: digests by field of the job. ``fields``: of configuration files, by file and field.

    ``labels``: names of the classes in order. ``rows``: digests of the splits of a text that has no files of its own
    for them: a hub's, the built-in one, and one file that is divided. ``units``: of every block that can be pruned, the
    number of its heads or channels.
    """

    model_config = ConfigDict(frozen=True)

    files: dict[str, Digests] = {}
    fields: dict[str, dict[str, Any]] = {}
    labels: tuple[str, ...] | None = None
    rows: dict[str, str] = {}
    units: tuple[int, ...] | None = None

    def of_devices(self, model: ModelSpec) -> str:
        """One digest of the files of text and ``model`` (``TaskSpec.inputs``)."""
        return files_digest(model, self.files.get("data.path", {}), self.files.get("model.path", {}))


def read_inputs(job: Job, text: "TextData | None" = None, blueprint: "Blueprint | None" = None) -> Inputs:
    """What the job's fields name, as it is now; labels and rows if ``text`` is given, units with ``blueprint``."""
    profile, teacher = Path(job.fleet.profile), job.training.teacher
    files = {"data.path": data_digests(job.data), "model.path": model_digests(job.model)}
    if profile.suffix == ".toml" and profile.is_file():
        files["fleet.profile"] = {profile.name: file_digest(profile)}
    if teacher != "base":
        files["training.teacher"] = model_digests(job.model.model_copy(update={"path": teacher, "base": None}))
    trace = Path(job.fleet.availability)
    if trace.suffix == ".csv" and trace.is_file():
        files["fleet.availability"] = {trace.name: file_digest(trace)}
    rows = {}
    if text is not None and (text.division is not None or not files["data.path"]):
        rows = {"train": _digest(text.train), "test": _digest(text.test)}
    units = None if blueprint is None else tuple(block.units for block in blueprint.blocks)
    return Inputs(files=files, fields=_fields(job), labels=text.labels if text else None, rows=rows, units=units)


def pin_inputs(folder: RunFolder, inputs: Inputs) -> None:
    """Write what a run begins, or goes on with; complete or not at all."""
    aside = folder.inputs.with_suffix(f".{os.getpid()}")
    aside.write_text(inputs.model_dump_json(indent=1) + "\n", encoding="utf-8")
    aside.rename(folder.inputs)


def pinned_inputs(folder: RunFolder) -> Inputs | None:
    """What a run began with; None for a run of an older version. Raises ``InputError`` if that cannot be read."""
    if not folder.inputs.exists():
        return None
    try:
        return Inputs.model_validate_json(folder.inputs.read_bytes())
    except (OSError, ValidationError):
        raise InputError(
            f"{str(folder.inputs)!r} cannot be read: what the run began with is not known; delete the file if text and "
            "model are unchanged"
        ) from None


def check_unchanged(folder: RunFolder, job: Job, inputs: Inputs, *, export: bool = False) -> None:
    """Raise ``InputError`` with a line for each thing that is not as the run began with it.

    ``export``: only what decides how a trained model computes and names its labels; its weights are checked elsewhere.
    """
    changes = changes_of(folder, job, inputs, export=export)
    if changes:
        run = folder.path.name
        cure = f"put back what run {run} began with"
        cure += "" if export else f", or go on with the changes: slimfed resume {run} --accept-changes"
        raise InputError("\n".join([*changes, cure]))


def changes_of(folder: RunFolder, job: Job, inputs: Inputs, *, export: bool = False) -> list[str]:
    """A line for each thing that is not as the run began with it; none if that was not pinned."""
    began = pinned_inputs(folder)
    if began is None:
        return []
    if export:
        began, inputs = _trained(began), _trained(inputs)
    named = {"data.path": job.data.path, "model.path": job.model.path, "fleet.profile": job.fleet.profile}
    named["training.teacher"] = job.training.teacher
    named["fleet.availability"] = job.fleet.availability
    lines = []
    for field, digests in inputs.files.items():
        before = began.files.get(field, digests)
        if field == "model.path" and of_hub(job.model):  # a file that is not in the cache yet is loaded when needed
            both = set(before) & set(digests)
            before, digests = ({name: each[name] for name in both} for each in (before, digests))
        for what in _file_changes(began, inputs, before, digests):
            lines.append(f"{field} = {named[field]!r}: {what}")
    for split in sorted(set(began.rows) & set(inputs.rows)):
        if began.rows[split] != inputs.rows[split]:
            lines.append(f"data.path = {job.data.path!r}: the {split} split has other rows")
    if inputs.labels is not None and began.labels is not None and inputs.labels != began.labels:
        lines.append(f"data.label = {job.data.label!r}: {_difference(list(began.labels), list(inputs.labels))}")
    return lines


def _trained(inputs: Inputs) -> Inputs:
    """What a trained model is made of, beside weights: tokenizer, configuration and labels."""
    model = {name: d for name, d in inputs.files.get("model.path", {}).items() if "safetensors" not in name}
    return Inputs(files={"model.path": model}, fields=inputs.fields, labels=inputs.labels)


def check_acceptable(folder: RunFolder, job: Job, inputs: Inputs) -> None:
    """Raise ``InputError`` if what was trained does not fit: another number of classes, of heads or of channels."""
    began = pinned_inputs(folder)
    if began is None:
        return
    if began.units is not None and inputs.units is not None and began.units != inputs.units:
        raise InputError(
            f"model.path = {job.model.path!r}: its layers have other numbers of heads or channels than the run "
            "began with, so this change cannot be accepted; put the old config.json back, or start a new run"
        )
    before, now = (None if each.labels is None else len(each.labels) for each in (began, inputs))
    if before is not None and now is not None and before != now:
        raise InputError(
            f"data.label = {job.data.label!r}: the run began with {before} labels, the text has {now}: its classifier "
            "does not fit, so this change cannot be accepted; start a new run"
        )


def _file_changes(began: Inputs, inputs: Inputs, before: Digests, now: Digests) -> Iterator[str]:
    for name in sorted(set(before) | set(now)):
        if before.get(name) == now.get(name):
            continue
        if name not in now:
            yield f"{name} is gone"
        elif name not in before:
            yield f"{name} was not there"
        elif name in began.fields and name in inputs.fields:
            yield from _field_changes(name, began.fields[name], inputs.fields[name])
        else:
            yield f"{name} has other content (SHA-256 was {before[name][:12]}, is {now[name][:12]})"


def _field_changes(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """None if the fields are the same, in another order or layout."""
    for field in sorted((set(before) | set(now)) - set(_WITHOUT_EFFECT)):
        if before.get(field) != now.get(field):
            yield f"{name}: {field} {_difference(before.get(field), now.get(field))}"


def _difference(before: Any, now: Any) -> str:
    texts = [json.dumps(value, ensure_ascii=False) for value in (before, now)]
    return f"was {texts[0]}, is {texts[1]}" if max(map(len, texts)) <= _SHOWN else "has another value"


def _fields(job: Job) -> dict[str, dict[str, Any]]:
    """The fields of the model's configuration files."""
    folder = model_folder(job.model)
    found = {}
    for name in _BY_FIELD if folder is not None else ():
        file = Path(str(folder)) / name
        if file.is_file() and file.stat().st_size <= _LARGEST_FIELDS_BYTES:
            try:
                document = json.loads(file.read_bytes())
            except (ValueError, RecursionError):
                continue  # such a file is compared as a whole
            if isinstance(document, dict):
                found[name] = document
    return found


def _digest(split: "TextSplit") -> str:
    """Of all rows of a split."""
    label = None if split.label is None else split.label.tolist()
    chats = None if split.chats is None else [[[turn.role, turn.content] for turn in chat] for chat in split.chats]
    columns = [column for column in (split.text, split.prompt, label, split.owner, chats) if column is not None]
    total = hashlib.sha256()
    for row in zip(*columns, strict=True):
        total.update(json.dumps(row).encode())
    return total.hexdigest()
