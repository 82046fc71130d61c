"""Text of one's own: the file, its first rows, and what its columns are."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pandas as pd
import streamlit as st

from slimfed.clients.data.readers.files import ENDINGS
from slimfed.clients.data.readers.preview import Preview, preview
from slimfed.clients.errors import InputError
from slimfed.clients.plain_text import clean
from slimfed.dashboard import format, uploads
from slimfed.dashboard.source import Source
from slimfed.platform.job import own_text
from slimfed.platform.job.first_job import Columns, Task, first_document, guess

PATH, UPLOAD = "own path", "own upload"
_REFUSED = "refused upload"

TASKS: dict[Task, str] = {"classification": "Sort texts into classes", "causal-lm": "Write text"}
ROWS_SHOWN = 4
_CELL = 120
_LARGEST_BYTES = 100_000_000
_NONE = "none"


@dataclass(frozen=True)
class OwnText:
    """A job of one's own text. ``document``: without text of the least that a job needs. ``rows``: training texts."""

    document: dict[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    rows: int | None = None
    most_devices: int | None = None
    limited_by: str = ""

    @property
    def ready(self) -> bool:
        """True if the text is there and can be read."""
        return bool(self.document) and not self.problems


def show(source: Source) -> OwnText:
    """Inputs for file and columns, with the first rows."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="own-file"):
        path = st.text_input(
            "File or folder with your text",
            key=PATH,
            placeholder="reviews.csv",
            help="`data.path`  \nA path on the computer that serves this page. "
            f"Files: {', '.join(ENDINGS)}; or a folder with a train and a test file",
            live=True,
        )
        with st.popover("Upload", icon=":material/upload_file:"):
            kinds = [ending.removeprefix(".") for ending in ENDINGS]
            st.file_uploader("Your text", kinds, key=UPLOAD, on_change=_take, args=(source,))
            if refused := st.session_state.get(_REFUSED):
                st.error(format.plain(refused), icon=":material/error:")
    path = (path or "").strip()
    if not path:
        st.caption("A table with a text in each row, and its class, or prompts with completions.")
        return OwnText()
    try:
        stamp = _stamp(path)
        found = _preview(path, stamp)
    except InputError as error:
        return _refuse(str(error))
    divided = " There is no test file, so a tenth of the rows is held out." if found.divided else ""
    st.caption(f"**{format.plain(found.file)}**: {format.plural(found.rows, 'row')}.{divided}")
    task, columns = _columns(found, f"{path} {stamp}")
    _rows(found, columns, task)
    missing = _missing(columns, task)
    if missing:
        return _refuse(missing)
    loaded = _loaded(path, stamp, columns, task)
    if loaded.problems:
        _refuse("\n".join(loaded.problems))
    return loaded


def _refuse(problem: str) -> OwnText:
    st.caption("  \n".join(f":red[:material/error: {format.plain(line)}]" for line in problem.splitlines()))
    return OwnText(problems=tuple(problem.splitlines()))


def _take(source: Source) -> None:
    """Keep an uploaded file, and name it in the field."""
    st.session_state[_REFUSED] = ""
    given = st.session_state.get(UPLOAD)
    if given is None:
        return
    try:
        st.session_state[PATH] = str(uploads.keep(source.home, given.name, given.getvalue()))
    except InputError as error:
        st.session_state[_REFUSED] = str(error)


def _stamp(path: str) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of the files behind a path. Raises ``InputError`` if there is too much to look at."""
    place = Path(path).expanduser()
    try:
        files = sorted(each for each in place.iterdir() if each.suffix in ENDINGS) if place.is_dir() else [place]
        found = [(each.name, each.stat()) for each in files if each.is_file()]
    except OSError as error:
        raise InputError(f"data.path = {path!r}: cannot be read ({error.strerror})") from None
    if sum(stat.st_size for _, stat in found) > _LARGEST_BYTES:
        raise InputError(
            f"data.path = {path!r}: is larger than {format.size(_LARGEST_BYTES)}, too much to look at here; "
            "write the job with `slimfed init` and bring it as a job file"
        )
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in found)


@st.cache_resource(show_spinner="Reading the file", max_entries=4)
def _preview(path: str, stamp: tuple[tuple[str, int, int], ...]) -> Preview:
    return preview(path)


@st.cache_resource(show_spinner="Checking the rows", max_entries=16)
def _loaded(path: str, stamp: tuple[tuple[str, int, int], ...], columns: Columns, task: Task) -> OwnText:
    """The text as a run will read it, and the job file for it."""
    found = _preview(path, stamp)
    try:
        text = own_text.load(path, found, columns, task)
    except InputError as error:
        return OwnText(problems=tuple(str(error).splitlines()))
    place = str(Path(path).expanduser().absolute())
    document = first_document(own_text.answers(path, found, columns, task, text, written=place))
    most, what = own_text.most_devices(text)
    return OwnText(document, rows=len(text.train), most_devices=most, limited_by=what)


def _columns(found: Preview, key: str) -> tuple[Task, Columns]:
    """Task and columns, by default as guessed."""
    guessed, names = guess(found), list(found.columns)

    def pick(label: str, value: str | None, hint: str, *, optional: bool = False) -> str | None:
        options = [_NONE, *names] if optional else names
        at = options.index(value) if value in options else 0 if optional else None
        chosen = st.selectbox(label, options, at, key=f"{key} {task} {label}", help=hint, placeholder="Choose a column")
        return None if chosen in (None, _NONE) else str(chosen)

    task = cast(
        Task,
        st.segmented_control(
            "What shall the model learn?",
            list(TASKS),
            default=guessed.task,
            required=True,
            format_func=lambda each: TASKS[each],
            key=f"{key} task",
            help="`model.task`",
        ),
    )
    if task == "classification":
        first, second, third = st.columns(3, gap="medium")
        with first:
            text = pick("Column of the text", guessed.text, "`data.text`")
        with second:
            label = pick("Column of the class", guessed.label, "`data.label`")
        with third:
            owner = pick("Column of the owner", guessed.owner, _OWNER, optional=True)
        return task, Columns(text, label, owner=owner)
    first, second, third = st.columns(3, gap="medium")
    with first:
        prompt = pick("Column of the prompt", guessed.prompt, "`data.prompt`  \nnone: plain text", optional=True)
    with second:
        if prompt is None:
            said, completion = pick("Column of the text", guessed.text, "`data.text`"), None
        else:
            said, completion = None, pick("Column of the answer", guessed.completion, "`data.completion`")
    with third:
        owner = pick("Column of the owner", guessed.owner, _OWNER, optional=True)
    return task, Columns(said, None, prompt, completion, owner)


_OWNER = "`data.partition.column`  \nRows of one owner stay on one device; none: rows have no owners"


def _missing(columns: Columns, task: Task) -> str | None:
    """What has not been chosen."""
    if task == "classification":
        wanted = {"data.text": columns.text, "data.label": columns.label}
    elif columns.prompt is None:
        wanted = {"data.text": columns.text}
    else:
        wanted = {"data.completion": columns.completion}
    lines = [f"{path}: choose the column" for path, name in wanted.items() if name is None]
    return "\n".join(lines) or None


def _rows(found: Preview, columns: Columns, task: Task) -> None:
    """The first rows; a column's heading says what it is used for."""
    roles = {columns.text: "text", columns.prompt: "prompt", columns.completion: "answer", columns.owner: "owner"}
    if task == "classification":
        roles[columns.label] = "class"
    frame = pd.DataFrame(
        {name: [clean(str(value), _CELL) for value in values[:ROWS_SHOWN]] for name, values in found.columns.items()}
    )
    used = [name for name in frame.columns if name in roles]
    st.dataframe(
        frame,
        hide_index=True,
        column_order=[*used, *(name for name in frame.columns if name not in used)],
        column_config={
            name: st.column_config.TextColumn(f"{roles[name]}: {name}" if name in roles else name)
            for name in frame.columns
        },
        height=38 + 35 * len(frame),
        key="sample rows",
        alt="The first rows of the file",
    )
