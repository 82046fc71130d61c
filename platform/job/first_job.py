"""A first job file for text of one's own: what its columns are good for, and the file with its comments."""

import math
import tomllib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import tomli_w

from slimfed.clients.data.readers.preview import Preview

Task = Literal["classification", "causal-lm"]

_TEXT = ("text", "sentence", "content", "review", "comment", "message", "body", "utterance", "request", "question")
_LABEL = ("label", "labels", "class", "category", "intent", "sentiment", "topic", "target", "y")
_OWNER = ("user", "owner", "author", "speaker", "client", "device", "customer", "user_id", "client_id", "owner_id")
_PAIRS = (
    ("prompt", "completion"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "answer"),
    ("input", "output"),
)
_MOST_LABELS = 200
_LENGTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
# Tokens of a word, and of the marks around a text, for vocabularies that the text does not come from.
_TOKENS_A_WORD, _MARKS = 1.6, 2
_MOST_DEVICES, _ROWS_A_DEVICE = 80, 20


@dataclass(frozen=True)
class Columns:
    """Names of columns; None where there is none of that kind."""

    text: str | None = None
    label: str | None = None
    prompt: str | None = None
    completion: str | None = None
    owner: str | None = None

    @property
    def task(self) -> Task:
        """What the columns are good for."""
        return "classification" if self.label is not None and self.completion is None else "causal-lm"

    @property
    def learnt(self) -> list[str]:
        """The columns that make up a text."""
        named = (self.prompt, self.completion) if self.completion is not None else (self.text,)
        return [name for name in named if name is not None]


@dataclass(frozen=True)
class Answers:
    """What a first job is made of. ``path``: of the text, as the job file names it."""

    name: str
    path: str
    task: Task
    columns: Columns
    model: str
    fleet: str
    devices: int
    max_length: int
    delimiter: str
    divided: bool
    empty_rows: int
    test_share: float = 0.1
    target_sparsity: float = 0.5


def guess(found: Preview) -> Columns:
    """The columns by their names, or else by what is in them."""
    names = {name.lower(): name for name in found.columns}
    texts = [name for name in found.columns if _is_text(found.columns[name])]
    pair = next((pair for pair in _PAIRS if all(names.get(each) in texts for each in pair)), None)
    owner = next((names[each] for each in _OWNER if each in names), None)
    text = next((names[each] for each in _TEXT if names.get(each) in texts), None)
    if text is None:
        others = (name for name in texts if name != owner)
        text = max(others, key=lambda name: _letters(found.columns[name]), default=None)
    label = next((names[each] for each in _LABEL if each in names and names[each] != text), None)
    if label is None:
        rest = [name for name in found.columns if name not in (text, owner, *(names[each] for each in pair or ()))]
        few = {name: len(set(map(str, found.columns[name]))) for name in rest if _are_labels(found.columns[name])}
        label = min(few, key=lambda name: few[name], default=None)
    prompt, completion = (names[each] for each in pair) if pair else (None, None)
    return Columns(text, label, prompt, completion, owner)


def usual_length(found: Preview, columns: Collection[str]) -> int:
    """``data.max_length`` that holds about 95 of 100 texts: an estimate by words."""
    words = sorted(sum(len(str(found.columns[name][row]).split()) for name in columns) for row in range(found.rows))
    needed = _TOKENS_A_WORD * words[min(len(words) - 1, int(0.95 * len(words)))] + _MARKS
    return next((length for length in _LENGTHS if length >= needed), _LENGTHS[-1])


def usual_devices(rows: int, owners: int | None) -> int:
    """So many that each has some texts; at most as many as ``owners`` in training rows."""
    most = _MOST_DEVICES if owners is None else min(owners, _MOST_DEVICES)
    return max(1, min(most, rows // _ROWS_A_DEVICE))


def empty_rows(found: Preview, columns: Collection[str]) -> int:
    """Rows in which one of ``columns`` is blank."""
    return sum(any(_is_blank(found.columns[name][row]) for name in columns) for row in range(found.rows))


def job_file(answers: Answers) -> str:
    """The job file, with a comment on every field that is likely to be changed."""
    return "\n".join(_lines(answers)) + "\n"


def first_document(answers: Answers) -> dict[str, Any]:
    """The same as nested tables."""
    return tomllib.loads(job_file(answers))


def _lines(answers: Answers) -> Iterator[str]:
    columns = answers.columns
    yield "# Written by `slimfed init`. Every field: docs/job-file.md. Look before you run: slimfed check THIS-FILE"
    yield f"name = {_toml(answers.name)}"
    yield _noted("seed = 1", "every random draw of the run derives from it")
    yield ""
    yield "[model]"
    yield _noted(f"path = {_toml(answers.model)}", "or a hub id, or a folder written by save_pretrained")
    yield f"task = {_toml(answers.task)}"
    yield ""
    yield "[data]"
    yield f"path = {_toml(answers.path)}"
    if columns.completion is not None and answers.task == "causal-lm":
        yield _noted(f"prompt = {_toml(columns.prompt)}", "given")
        yield _noted(f"completion = {_toml(columns.completion)}", "to be learnt")
    else:
        yield f"text = {_toml(columns.text)}"
    if answers.task == "classification":
        yield f"label = {_toml(columns.label)}"
    if answers.divided:
        yield _noted(f"test_share = {answers.test_share:g}", "of the rows, held out by the seed")
    yield _noted(f"max_length = {answers.max_length}", "tokens; longer texts are cut off")
    if answers.delimiter != ",":
        yield f"delimiter = {_toml(answers.delimiter)}"
    if answers.empty_rows:
        yield _noted('empty = "drop"', f"rows that lack a value are left out: {answers.empty_rows:,}")
    if columns.owner is not None:
        yield _noted(
            f'partition = {{ kind = "natural", column = {_toml(columns.owner)} }}', "rows of an owner together"
        )
    else:
        yield _noted('partition = { kind = "iid" }', "or dirichlet: devices have unequal labels; natural: by owner")
    yield ""
    yield "[fleet]"
    yield _noted(f"profile = {_toml(answers.fleet)}", "`slimfed fleet` lists them")
    yield f"devices = {answers.devices}"
    yield ""
    yield "[method]"
    yield _noted('name = "slimfed"', "`slimfed methods` lists them")
    yield _noted(f"target_sparsity = {answers.target_sparsity:g}", "of the prunable parameters; 0: only tune")
    yield ""
    yield "# Left out, three fields suit the text and the model: `slimfed check` names the values and why. To set them:"
    yield "# [training]"
    yield "# rounds = 30"
    yield "# learning_rate = 1e-3"
    yield "# [pruning]"
    yield "# until = 0.2                   # share of the rounds by which the target sparsity is reached"


def _noted(field: str, note: str) -> str:
    """A line with its comment, below those of the other lines."""
    return f"{field:<31} # {note}"


def _toml(value: Any) -> str:
    return tomli_w.dumps({"value": value}).partition("=")[2].strip()


def _is_text(values: Sequence[Any]) -> bool:
    known = [value for value in values if not _is_blank(value)]
    return bool(known) and all(isinstance(value, str) for value in known)


def _are_labels(values: Sequence[Any]) -> bool:
    known = [value for value in values if not _is_blank(value)]
    if not all(isinstance(value, str | int) for value in known):
        return False
    return 2 <= len(set(map(str, known))) <= min(_MOST_LABELS, math.ceil(len(known) / 2))


def _letters(values: Sequence[Any]) -> float:
    return sum(len(str(value)) for value in values) / max(len(values), 1)


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
