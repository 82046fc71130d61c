"""The page that starts a run: the text, the model, the fleet and the goal; checked at every change, with the TOML."""

import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import streamlit as st
import tomli_w

from slimfed.clients.data.text import load_data
from slimfed.clients.errors import InputError
from slimfed.dashboard import format, job_fields, run_control
from slimfed.dashboard.launching import estimate, inputs, own_text
from slimfed.dashboard.launching.draft import Draft, drafted
from slimfed.dashboard.source import Source
from slimfed.platform.job.job import Job, demo_document, located
from slimfed.platform.job.presets import PRESETS
from slimfed.platform.launch.quick_check import is_small
from slimfed.platform.launch.suiting import BUILTIN

ANSWER = "answer to Start"
_SECOND_PRESS = 3.0
"""Seconds after a start in which a press of the same button is not one of its own."""
_STARTABLE = "may be started once"

OWN, DEMO, FILE = "Your own text", "The built-in job", "A job file"
_LEFT_OUT = ("store",)


@dataclass(frozen=True)
class Beginning:
    """What the form begins with. ``name``: another one forgets the changes. ``rows``: training texts, if known.

    ``problems``: what must be done before there is a job; ``faulty``: not since nothing was given yet. ``picked``:
    fields that are asked for above.
    """

    name: str
    document: dict[str, Any]
    problems: tuple[str, ...] = ()
    rows: int | None = None
    own: own_text.OwnText | None = None
    picked: tuple[str, ...] = field(default_factory=tuple)
    faulty: bool = False


def show(source: Source, clone_of: str, open_run: Callable[[str], None]) -> None:
    """The page. ``clone_of``: the run whose job the form starts from; empty for none."""
    answer, told = st.session_state.pop(ANSWER, (None, 0.0))
    if answer is not None and answer.run and time.monotonic() - told < _SECOND_PRESS:
        st.session_state[ANSWER] = answer, told  # a second press of Start draws this page again, and leads there too
        open_run(answer.run)
    st.title("Launch a run", anchor=False)
    form, paper = st.columns([3, 2], gap="large")
    with form, st.container(key="beginning"):
        beginning = _clone(source, clone_of) or _beginning(source)
    inputs.begin_with(beginning.name)
    draft = _draft(beginning)
    with form:
        if beginning.document:
            _form(source, draft, beginning)
    with paper, st.container(key="paper"):
        _paper(source, draft, beginning, answer)


def _beginning(source: Source) -> Beginning:
    """What somebody chose to begin with."""
    choice = st.segmented_control(
        "Begin with",
        [OWN, DEMO, FILE],
        default=OWN,
        required=True,
        key="begin",
        bind="query-params",
        label_visibility="collapsed",
    )
    if choice == DEMO:
        st.caption("The job of `slimfed run`: 80 Jetsons learn smart-home commands.")
        return Beginning(DEMO, demo_document())
    if choice == FILE:
        return _job_file()
    found = own_text.show(source)
    problems = found.problems or (() if found.ready else ("Name a file with your text first.",))
    by_owner = found.ready and found.document["data"]["partition"]["kind"] == "natural"
    picked = ("data.path", "model.task", *(("data.partition.kind", "data.partition.alpha") if by_owner else ()))
    return Beginning(OWN, found.document, problems, found.rows, found, picked, faulty=bool(found.problems))


def _job_file() -> Beginning:
    """A job file that is uploaded."""
    given = st.file_uploader("A job file", "toml", key="job file", max_upload_size=1)
    if given is None:
        st.caption(f"Its relative paths start at `{format.code(str(Path.cwd()))}`, where this dashboard was started.")
        return Beginning(FILE, {}, ("Give a job file first.",))
    try:
        document = tomllib.loads(given.getvalue().decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        st.caption(f":red[:material/error: {format.plain(f'{given.name}: is not valid TOML: {error}')}]")
        return Beginning(FILE, {}, (f"{given.name}: is not valid TOML.",), faulty=True)
    store = " Its `[store]` is left out: runs started here are recorded in the store of this dashboard."
    st.caption(f"**{format.plain(given.name)}** as it is; change any field.{store if 'store' in document else ''}")
    kept = {key: value for key, value in document.items() if key not in _LEFT_OUT}
    return Beginning(f"{FILE} {given.file_id}", located(kept, Path.cwd()))


def _clone(source: Source, clone_of: str) -> Beginning | None:
    """A copy of a run's job, every field of it; None without such a run."""
    if not clone_of:
        return None
    with source.explained() as reader:
        try:
            run = reader.find_run(clone_of)
        except InputError as error:
            st.error(format.plain(str(error)))
            return None
        job = {key: value for key, value in run.job.items() if key not in _LEFT_OUT}
        values = dict(job_fields.leaves(job)) | {"name": f"{run.name} (again)"[:200]}
        st.caption(f"Begins as a copy of the run `{format.code(run.id)}`; change any field.")
        return Beginning(run.id, job_fields.tables(values))
    return None


def _draft(beginning: Beginning) -> Draft:
    changes: dict[str, Any] = st.session_state[inputs.CHANGES]
    draft = drafted(beginning.document, changes, beginning.rows)
    if beginning.rows is None and draft.job is not None and not draft.problems:
        rows = _rows(draft.job)
        draft = drafted(beginning.document, changes, rows) if rows is not None else draft
    own, devices = beginning.own, draft.shown.get("fleet.devices")
    if own is not None and own.most_devices is not None and isinstance(devices, int) and devices > own.most_devices:
        limit = f"must be at most {own.most_devices}, as there are {own.most_devices} {own.limited_by}"
        problem = f"fleet.devices = {devices}: {limit}"
        draft = Draft(draft.document, draft.job, (*draft.problems, problem), draft.shown, draft.chosen)
    return draft


def _rows(job: Job) -> int | None:
    """Training texts of a job with foreign text that is read quickly; None for others."""
    if job.data.path.startswith(BUILTIN) or not is_small(job.data):
        return None
    try:
        return len(load_data(job.data, job.model.task, job.seed).train)
    except InputError:
        return None  # said when the run is queued


def _form(source: Source, draft: Draft, beginning: Beginning) -> None:
    """The fields at the top by their topic, then every section."""
    sections = inputs.sections(Job.model_json_schema())
    every = {each.path: each for section in sections for each in section.fields}
    for topic, paths in inputs.TOP.items():
        fields = [every[path] for path in paths if path in every and path not in beginning.picked]
        if not fields:
            continue
        with st.container(key=f"topic-{topic.lower()}"):
            st.markdown(f"**{topic}**")
            inputs.inputs(fields, draft)
            if topic == "Fleet":
                inputs.own_profile(source, draft)
            if topic == "Goal":
                _method(str(draft.shown.get("method.name")))
    top = {path for paths in inputs.TOP.values() for path in paths}
    for section in sections:
        rest = [each for each in section.fields if each.path not in top]
        if not rest:
            continue
        troubled = any(draft.problem_of(each.path) for each in rest)
        with st.expander(f"{section.name} · {format.plural(len(rest), 'more field')}", expanded=troubled):
            st.caption(format.plain(section.help))
            inputs.inputs(rest, draft)


def _method(name: str) -> None:
    if (preset := PRESETS.get(name)) is not None:
        st.caption(f"**{format.plain(name)}**: {format.plain(preset.summary)}. Source: {format.plain(preset.source)}.")


def _start(source: Source, document: Mapping[str, Any]) -> None:
    """Put the job into the queue, before the page is drawn anew. A second press of the same button does nothing."""
    if not st.session_state.pop(_STARTABLE, False):
        return
    try:
        answer = run_control.start(source, document)
    except InputError as error:  # not an operator any more
        answer = run_control.Answer(None, (str(error),))
    st.session_state[ANSWER] = answer, time.monotonic()


def _paper(source: Source, draft: Draft, beginning: Beginning, answer: run_control.Answer | None) -> None:
    """The start button, an estimate and the job file. ``answer``: to the press of Start before this drawing."""
    text = tomli_w.dumps(draft.document)
    problems = beginning.problems or draft.problems
    if problems:
        (st.error if beginning.document or beginning.faulty else st.info)(
            "  \n".join(f"{format.plain(line)}" for line in problems), icon=":material/error:"
        )
    st.session_state[_STARTABLE] = not problems
    with source.explained() as reader:
        waiting = 0 if source.missing else run_control.see_to_the_queue(source, reader)
        queue = f" {format.plural(waiting, 'run')} ahead of it in the queue." if waiting else ""
    with st.container(key="start"):
        st.button(
            "Start",
            type="primary",
            icon=":material/play_arrow:",
            disabled=bool(problems),
            width="stretch",
            on_click=_start,
            args=(source, draft.document),
        )
    if answer is not None and answer.problems:
        st.error("  \n".join(map(format.plain, answer.problems)), icon=":material/error:")
    st.caption(
        "The run starts when no other run is running on this computer, and continues when this page is closed. What "
        f"needs the model is checked then, and the run's page tells what is wrong.{queue}"
    )
    if not beginning.document:
        return
    estimate.show(source, draft.document, possible=not problems)
    changes = st.session_state[inputs.CHANGES]
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key="file-head"):
        st.markdown("**The job file**", width="content")
        if changes:
            st.button(
                f"Undo {format.plural(len(changes), 'change')}",
                icon=":material/undo:",
                type="tertiary",
                on_click=inputs.forget,
            )
    st.code(text, language="toml")
    st.download_button("Save as job.toml", text, "job.toml", "application/toml", icon=":material/download:")
