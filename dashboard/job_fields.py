"""The fields of a job file, read from its JSON schema for the form. No Streamlit here.

No field is named here, so new sections of the job file appear in the form.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from slimfed.platform.job.overrides import parse_value

Kind = Literal["choice", "switch", "whole", "number", "text"]

JOB = "job"
"""Name of the section of fields outside all sections."""


WORDS = {
    "name": "Name of the run",
    "seed": "Seed",
    "method.name": "Method",
    "method.target_sparsity": "Target sparsity",
    "model.path": "Model",
    "model.task": "Task",
    "data.path": "Text",
    "data.max_length": "Longest text (tokens)",
    "data.partition.kind": "Division among devices",
    "data.partition.alpha": "Likeness of the devices' labels",
    "fleet.profile": "Fleet",
    "fleet.devices": "Devices",
    "training.rounds": "Rounds",
    "training.local_steps": "Local steps",
    "training.batch_size": "Texts in a batch",
    "training.learning_rate": "Learning rate",
}
"""Words for the fields of a first look; the others are called by their names."""


@dataclass(frozen=True)
class Field:
    """One field. ``kind`` "text" also covers other TOML values: lists, and optional numbers."""

    path: str
    kind: Kind
    default: Any
    help: str
    choices: tuple[Any, ...] = ()
    least: float | None = None
    most: float | None = None
    optional: bool = False
    words_only: bool = False

    @property
    def label(self) -> str:
        """The field in words."""
        name = (self.path.partition(".")[2] or self.path).replace(".", ": ").replace("_", " ")
        return WORDS.get(self.path) or name[:1].upper() + name[1:]

    @property
    def hint(self) -> str:
        """Its path in the job file, and what it means."""
        return f"`{self.path}`" + (f"  \n{self.help}" if self.help else "")


@dataclass(frozen=True)
class Section:
    """The fields of one section, including nested sections."""

    name: str
    help: str
    fields: tuple[Field, ...] = field(default_factory=tuple)


def sections(schema: Mapping[str, Any], choices: Mapping[str, Sequence[Any]] | None = None) -> tuple[Section, ...]:
    """The sections of a job in the schema's order; ``choices``: valid names of fields with a registry, by path."""
    known, defs = choices or {}, schema.get("$defs", {})
    scalars, found = [], []
    for name, entry in schema["properties"].items():
        inner = _section(entry, defs)
        if inner is None:
            scalars.append(_field(name, entry, known))
        else:
            found.append(Section(name, _line(inner.get("description", "")), tuple(_fields(name, inner, defs, known))))
    return (Section(JOB, "Name of the run, and the seed of its random draws.", tuple(scalars)), *found)


def leaves(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value except tables, with its dotted path."""
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def tables(values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of :func:`leaves`, without None, which TOML cannot express."""
    document: dict[str, Any] = {}
    for path, value in values.items():
        if value is None:
            continue
        *above, name = path.split(".")
        table = document
        for part in above:
            table = table.setdefault(part, {})
        table[name] = value
    return document


def written(value: Any) -> str:
    """A value as text for a text field; empty for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(written(each) if not isinstance(each, str) else repr(each) for each in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def read(wanted: Field, text: str) -> Any:
    """The value of a text field's text: None if empty, text as it is, otherwise TOML."""
    if wanted.words_only:
        return text if text or not wanted.optional else None
    return parse_value(text.strip()) if text.strip() else None


def _fields(
    prefix: str, table: Mapping[str, Any], defs: Mapping[str, Any], known: Mapping[str, Sequence[Any]]
) -> Iterator[Field]:
    for name, entry in table["properties"].items():
        inner = _section(entry, defs)
        if inner is None:
            yield _field(f"{prefix}.{name}", entry, known)
        else:
            yield from _fields(f"{prefix}.{name}", inner, defs, known)


def _section(entry: Mapping[str, Any], defs: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The table that an entry refers to, if it is one."""
    inner: Mapping[str, Any] = defs.get(str(entry.get("$ref", "")).rpartition("/")[2], {})
    return inner if "properties" in inner else None


def _field(path: str, entry: Mapping[str, Any], known: Mapping[str, Sequence[Any]]) -> Field:
    variants = [each for each in entry.get("anyOf", ()) if each.get("type") != "null"]
    optional = len(variants) < len(entry.get("anyOf", ()))
    shape = variants[0] if len(variants) == 1 else entry
    choices = tuple(known.get(path, ())) or tuple(shape.get("enum", ()))
    return Field(
        path,
        "choice" if choices else "text" if optional else _kind(shape),
        entry.get("default"),
        _help(entry, shape),
        choices,
        shape.get("minimum", shape.get("exclusiveMinimum")),
        shape.get("maximum", shape.get("exclusiveMaximum")),
        optional,
        shape.get("type") == "string",
    )


def _kind(shape: Mapping[str, Any]) -> Kind:
    kinds: dict[str, Kind] = {"boolean": "switch", "integer": "whole", "number": "number"}
    return kinds.get(str(shape.get("type")), "text")


def _help(entry: Mapping[str, Any], shape: Mapping[str, Any]) -> str:
    limits = {
        "minimum": "at least",
        "exclusiveMinimum": "more than",
        "maximum": "at most",
        "exclusiveMaximum": "less than",
    }
    bounds = [f"{word} {shape[name]:g}" for name, word in limits.items() if name in shape]
    said = str(entry.get("description", ""))
    return "; ".join(part for part in (said[:1].upper() + said[1:], ", ".join(bounds)) if part)


def _line(text: str) -> str:
    """The first sentence of a docstring."""
    return " ".join(text.split("\n\n")[0].split())
