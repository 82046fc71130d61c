"""The columns that a task reads of a file, by the fields of the job that name them."""

from dataclasses import dataclass
from typing import Literal

from slimfed.clients.data.conversations import uses_template
from slimfed.clients.errors import InputError
from slimfed.clients.spec import DataSpec

Task = Literal["classification", "causal-lm"]
BUILTIN = ("builtin:commands",)


@dataclass(frozen=True)
class Columns:
    """Names of the columns to read; ``None`` where the task has none."""

    text: str
    prompt: str | None
    label: str | None
    owner: str | None
    messages: bool = False
    choices: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All required columns."""
        return tuple(dict.fromkeys(column for _, column in self.fields()))

    def fields(self) -> list[tuple[str, str]]:
        """``(field of the job file, column)`` of all required columns."""
        text = "data.messages" if self.messages else "data.text" if self.prompt is None else "data.completion"
        text = text if self.choices is None else "data.answer"
        named = [
            (text, self.text),
            ("data.prompt", self.prompt),
            ("data.label", self.label),
            ("data.partition.column", self.owner),
            ("data.choices", self.choices),
        ]
        return [(field, column) for field, column in named if column is not None]


def columns_of(spec: DataSpec, task: Task) -> Columns:
    """The columns that ``task`` needs of the text. Raises :class:`InputError` for fields of another task."""
    owner = spec.partition.column if spec.partition.kind == "natural" else None
    if task == "classification":
        for field, column in (("messages", spec.messages), ("choices", spec.choices)):
            if column is not None:
                raise InputError(f'data.{field} = "{column}": needs model.task = "causal-lm"')
        return Columns(spec.text, None, spec.label, owner)
    if spec.choices is not None:
        return Columns(spec.answer, spec.prompt, None, owner, choices=spec.choices)
    if spec.messages is not None:
        return Columns(spec.messages, None, None, owner, messages=True)
    if spec.prompt is None and spec.path not in BUILTIN and uses_template(spec):
        raise InputError(f'data.template = "{spec.template}": needs data.messages, or data.prompt and data.completion')
    if spec.prompt is None and spec.path in BUILTIN and spec.text == "text":
        return Columns("completion", "prompt", None, owner)
    return Columns(spec.completion or spec.text, spec.prompt, None, owner)
