"""The form that starts a run: generated from the job file's schema, checked at every change, with the TOML."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st
import tomli_w

from slimfed.clients.errors import InputError
from slimfed.dashboard import format, job_fields, run_control
from slimfed.dashboard.source import Source
from slimfed.platform.job.job import Job, demo_document, job_to_dict, parse_job
from slimfed.platform.job.overrides import merge
from slimfed.platform.job.presets import PRESETS
from slimfed.platform.launch.quick_check import quick_problems
from slimfed.platform.registries import REGISTRIES

CHANGES = "changes to the job"
BASE = "base of the job"
ANSWER = "answer to Start"

DEMO, EMPTY = "The built-in job", "Defaults only"
_LEFT_OUT = ("store",)
"""Runs started here are recorded in the store of this dashboard."""

_FIRST = (
    "name",
    "seed",
    "method.name",
    "method.target_sparsity",
    "model.path",
    "model.task",
    "data.path",
    "data.max_length",
    "data.partition.kind",
    "data.partition.alpha",
    "fleet.profile",
    "fleet.devices",
    "training.rounds",
    "training.local_steps",
    "training.batch_size",
    "training.learning_rate",
)
"""Fields shown at the top; all others are in their sections."""


def show(source: Source, clone_of: str, open_run: Callable[[str], None]) -> None:
    """The page. ``clone_of``: the run whose job the form starts from; empty for none."""
    answer: run_control.Answer | None = st.session_state.pop(ANSWER, None)
    if answer is not None and answer.run:
        open_run(answer.run)
    st.title("Launch a run", anchor=False)
    base, said = _base(source, clone_of)
    st.caption(said)
    changes: dict[str, Any] = st.session_state[CHANGES]
    document = merge(base, job_fields.tables(changes))
    job, problems = checked(document)
    shown = job_to_dict(job) if job else merge(_defaults(document), document)
    form, paper = st.columns([3, 2], gap="large")
    with paper, st.container(key="paper"):
        _paper(source, document, job, problems, answer)
    with form:
        _form(dict(job_fields.leaves(shown)), _by_field(problems))


def checked(document: Mapping[str, Any]) -> tuple[Job | None, tuple[str, ...]]:
    """The job of a document, and what is wrong with it or with the files that it names, one line a field."""
    try:
        job = parse_job(document)
    except InputError as error:
        return None, tuple(str(error).splitlines())
    return job, tuple(quick_problems(job))


def shortened(document: Mapping[str, Any], job: Job | None) -> dict[str, Any]:
    """The document without values that equal the default or the method's preset; name and method stay."""
    if job is None:
        return dict(document)
    usual = dict(job_fields.leaves(_defaults(document)))
    stays = ("name", "seed", "method.name")
    values = dict(job_fields.leaves(job_to_dict(job)))
    return job_fields.tables(
        {path: value for path, value in values.items() if path in stays or value != usual.get(path)}
    )


def _defaults(document: Mapping[str, Any]) -> dict[str, Any]:
    """Every field of a job that names nothing but the method of this one."""
    method = document.get("method", {}).get("name")
    return job_to_dict(parse_job({"method": {"name": method}} if method in PRESETS else {}))


def _base(source: Source, clone_of: str) -> tuple[dict[str, Any], str]:
    """The job that the form starts from, and a sentence on it. Choosing another one discards the changes."""
    if clone_of:
        with source.explained() as reader:
            try:
                run = reader.find_run(clone_of)
            except InputError as error:
                st.error(format.plain(str(error)))
            else:
                job = {key: value for key, value in run.job.items() if key not in _LEFT_OUT}
                values = dict(job_fields.leaves(job)) | {"name": f"{run.name} (again)"[:200]}
                _begin_with(run.id)
                return job_fields.tables(
                    values
                ), f"Begins as a copy of the run `{format.code(run.id)}`; change any field."
    choice = st.segmented_control(
        "Begin with", [DEMO, EMPTY], default=DEMO, required=True, key="begin", label_visibility="collapsed"
    )
    _begin_with(str(choice))
    if choice == EMPTY:
        return {"name": "my-run"}, "Starts with the default of every field."
    return demo_document(), "Starts with the built-in job of `slimfed run`: 80 Jetsons learn smart-home commands."


def _begin_with(base: str) -> None:
    if st.session_state.get(BASE) != base:
        st.session_state[BASE], st.session_state[CHANGES] = base, {}


def _form(values: Mapping[str, Any], wrong: Mapping[str, str]) -> None:
    """The fields at the top, then every section."""
    sections = [each for each in job_fields.sections(Job.model_json_schema(), names()) if each.name not in _LEFT_OUT]
    every = {field.path: field for section in sections for field in section.fields}
    _inputs([(every[path], path) for path in _FIRST if path in every], values, wrong)
    method = str(values.get("method.name"))
    if (preset := PRESETS.get(method)) is not None:
        st.caption(
            f"**{format.plain(method)}**: {format.plain(preset.summary)}. Source: {format.plain(preset.source)}."
        )
    for section in sections:
        rest = [field for field in section.fields if field.path not in _FIRST]
        if not rest:
            continue
        troubled = any(field.path in wrong for field in rest)
        with st.expander(f"{section.name} · {format.plural(len(rest), 'more field')}", expanded=troubled):
            st.caption(format.plain(section.help))
            _inputs([(field, field.name) for field in rest], values, wrong)


def _inputs(
    fields: Sequence[tuple[job_fields.Field, str]], values: Mapping[str, Any], wrong: Mapping[str, str]
) -> None:
    """Fields with their labels, two in a row: where a row becomes a column, as on a phone, they stay in order."""
    for start in range(0, len(fields), 2):
        columns = st.columns(2, gap="medium")
        for column, (field, label) in zip(columns, fields[start : start + 2], strict=False):
            with column:
                _input(field, values.get(field.path, field.default), wrong.get(field.path), label=label)


def names() -> dict[str, list[str]]:
    """Valid names of fields that name a method, a part or a profile, by path."""
    return {registry.field: list(registry) for registry in REGISTRIES}


def _input(field: job_fields.Field, value: Any, problem: str | None, label: str) -> None:
    """The input of one field, with its error below."""
    # The key contains start and method, because both set values: a change creates a new input.
    key = f"{st.session_state[BASE]} {st.session_state[CHANGES].get('method.name')} {field.kind} {field.path}"
    more: dict[str, Any] = {"key": key, "help": field.help or None, "on_change": _take, "args": (field, key)}
    if field.kind == "choice":
        options = list(field.choices) + ([value] if value is not None and value not in field.choices else [])
        place = options.index(value) if value in options else None
        named = field.words_only and field.path in ("fleet.profile",)
        st.selectbox(label, options, index=place, accept_new_options=named, **more)
    elif field.kind == "switch":
        st.toggle(label, bool(value), **more)
    elif field.kind == "whole" and isinstance(value, int):
        st.number_input(label, value=value, step=1, **more)
    else:
        st.text_input(label, job_fields.written(value), placeholder="not set" if field.optional else "", **more)
    if problem:
        st.caption(f":red[:material/error: {format.plain(problem)}]")


def _take(field: job_fields.Field, key: str) -> None:
    """Store the changed values."""
    value = st.session_state[key]
    if isinstance(value, str) and field.kind != "choice":
        value = job_fields.read(field, value)
    changes: dict[str, Any] = st.session_state[CHANGES]
    if field.path == "method.name":
        # A new preset sets fields; earlier changes would hide them.
        st.session_state[CHANGES] = {path: old for path, old in changes.items() if path in _FIRST} | {field.path: value}
    else:
        changes[field.path] = value


def _start(source: Source, document: Mapping[str, Any]) -> None:
    """Put the job into the queue, before the page is drawn anew."""
    try:
        st.session_state[ANSWER] = run_control.start(source, document)
    except InputError as error:  # not an operator any more
        st.session_state[ANSWER] = run_control.Answer(None, (str(error),))


def _by_field(problems: tuple[str, ...]) -> dict[str, str]:
    """Problems by the path that their line begins with."""
    return {line.partition(":")[0].partition(" =")[0].partition("[")[0].strip(): line for line in problems}


def _paper(
    source: Source,
    document: Mapping[str, Any],
    job: Job | None,
    problems: tuple[str, ...],
    answer: run_control.Answer | None,
) -> None:
    """The resulting job file, its errors, and the start button; ``answer``: to the press of it before this drawing."""
    chosen = job_fields.tables(dict(job_fields.leaves(shortened(document, job))))
    text = tomli_w.dumps(chosen)
    if problems:
        st.error("  \n".join(f"{format.plain(line)}" for line in problems), icon=":material/error:")
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
            args=(source, chosen),
        )
    if answer is not None and answer.problems:
        st.error("  \n".join(map(format.plain, answer.problems)), icon=":material/error:")
    st.caption(
        "The run starts when no other run is running on this computer, and continues when this page is closed. What "
        f"needs the model is checked then, and the run's page tells what is wrong.{queue}"
    )
    st.markdown("**The job file**")
    st.code(text, language="toml")
    st.download_button("Save as job.toml", text, "job.toml", "application/toml", icon=":material/download:")
