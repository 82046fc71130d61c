"""Inputs of the fields of a job, each with its error, or with why it has its value, below it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from slimfed.clients.errors import InputError
from slimfed.clients.models.location import builtin_models
from slimfed.dashboard import format, job_fields, uploads
from slimfed.dashboard.launching.draft import METHOD, Draft
from slimfed.dashboard.source import Source
from slimfed.platform.fleet.profiles import PROFILES, apportion, load_profile
from slimfed.platform.registries import REGISTRIES

CHANGES = "changes to the job"
BASE = "base of the job"
_INPUTS = "inputs of changed fields"
_DRAWING = "number of the drawing of all inputs"
_NEVER = ("store",)
"""Runs started here are recorded in the store of this dashboard."""
_REFUSED_PROFILE = "refused profile"

_OPEN = ("fleet.profile", "model.path")
"""Fields with names that are offered, and others that can be typed."""

TOP: dict[str, tuple[str, ...]] = {
    "Text": ("data.path", "data.max_length", "data.partition.kind", "data.partition.alpha"),
    "Model": ("model.path", "model.task"),
    "Fleet": ("fleet.profile", "fleet.devices"),
    "Goal": (
        "name",
        "method.name",
        "method.target_sparsity",
        "training.rounds",
        "training.local_steps",
        "training.batch_size",
        "training.learning_rate",
        "seed",
    ),
}
"""Fields shown at the top; all others are in their sections."""


def names() -> dict[str, list[str]]:
    """Names that are offered for fields that name a method, a part, a profile or a model, by path."""
    return {registry.field: list(registry) for registry in REGISTRIES} | {
        "model.path": [f"builtin:{name.removeprefix('builtin:')}" for name in builtin_models()]
    }


def sections(schema: dict[str, Any]) -> list[job_fields.Section]:
    """The sections of the form."""
    return [each for each in job_fields.sections(schema, names()) if each.name not in _NEVER]


def inputs(fields: Sequence[job_fields.Field], draft: Draft) -> None:
    """Fields two in a row: where a row becomes a column, as on a phone, they stay in order."""
    for start in range(0, len(fields), 2):
        for column, field in zip(st.columns(2, gap="medium"), fields[start : start + 2], strict=False):
            with column:
                _input(field, draft)


def own_profile(source: Source, draft: Draft) -> None:
    """What the fleet is made of, and a way to bring one's own."""
    name = str(draft.shown.get("fleet.profile"))
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        with st.popover("Own profile", icon=":material/upload_file:"):
            st.caption("A TOML file with a table for each class of devices. Start from a built-in one:")
            chosen = st.selectbox("Built-in profile", list(PROFILES), key="profile to save")
            text = PROFILES[chosen].path.read_text(encoding="utf-8")
            st.download_button("Save it", text, f"{chosen}.toml", "application/toml", icon=":material/download:")
            st.file_uploader(
                "Your profile", "toml", key="own profile", on_change=_take_profile, args=(source,), max_upload_size=1
            )
            if refused := st.session_state.get(_REFUSED_PROFILE):
                st.error(format.plain(refused), icon=":material/error:")
        try:
            classes = load_profile(name).classes
        except InputError:
            return
        devices = draft.shown.get("fleet.devices")
        if not isinstance(devices, int) or devices < 1:
            return
        counts = apportion([each.count for each in classes], devices)
        mix = ", ".join(f"{count:,} {each.name}" for each, count in zip(classes, counts, strict=True) if count)
        st.caption(format.plain(mix))


def _take_profile(source: Source) -> None:
    """Keep an uploaded profile and choose it, unless it cannot be used."""
    st.session_state[_REFUSED_PROFILE] = ""
    given = st.session_state.get("own profile")
    if given is None:
        return
    try:
        file = uploads.keep(source.home, f"{Path(given.name).stem}.toml", given.getvalue())
        load_profile(str(file))
    except InputError as error:
        st.session_state[_REFUSED_PROFILE] = str(error)
    else:
        st.session_state[CHANGES]["fleet.profile"] = str(file)
        _draw_anew()


def begin_with(base: str) -> None:
    """Another base has other values: what was changed before is forgotten."""
    if st.session_state.get(BASE) != base:
        st.session_state[BASE] = base
        forget()


def forget() -> None:
    """Forget all changes."""
    st.session_state[CHANGES] = {}
    _draw_anew()


def _draw_anew() -> None:
    """Give every field a new input, which shows the value of the job and not what was typed into it."""
    st.session_state[_INPUTS] = {}
    st.session_state[_DRAWING] = st.session_state.get(_DRAWING, 0) + 1


def _input(field: job_fields.Field, draft: Draft) -> None:
    value = draft.shown.get(field.path, field.default)
    # The key holds a value that nobody typed: where it changes, there is a new input that shows it.
    fresh = f"{st.session_state[BASE]} {st.session_state[_DRAWING]} {field.path} {field.kind} {value!r}"
    key = st.session_state[_INPUTS].get(field.path, fresh)
    more: dict[str, Any] = {"key": key, "help": field.hint, "on_change": _take, "args": (field, key)}
    if field.kind == "choice":
        options = list(field.choices) + ([value] if value is not None and value not in field.choices else [])
        at = options.index(value) if value in options else None
        st.selectbox(field.label, options, index=at, accept_new_options=field.path in _OPEN, **more)
    elif field.kind == "switch":
        st.toggle(field.label, bool(value), **more)
    elif field.kind == "whole" and isinstance(value, int):
        st.number_input(field.label, value=value, step=1, **more)
    else:
        placeholder = "not set" if field.optional else ""
        st.text_input(field.label, job_fields.written(value), placeholder=placeholder, live=True, **more)
    problem = draft.problem_of(field.path)
    if problem:
        st.caption(f":red[:material/error: {format.plain(problem)}]")
    elif field.path in draft.chosen:
        st.caption(f"Chosen for you: {format.plain(draft.chosen[field.path])}")


def _take(field: job_fields.Field, key: str) -> None:
    """Store the changed value."""
    value = st.session_state[key]
    if isinstance(value, str) and field.kind != "choice":
        value = job_fields.read(field, value)
    changes: dict[str, Any] = st.session_state[CHANGES]
    if field.path == METHOD:
        # A new preset sets fields; earlier changes would hide them.
        first = {path for paths in TOP.values() for path in paths}
        st.session_state[CHANGES] = {path: old for path, old in changes.items() if path in first} | {field.path: value}
        _draw_anew()
    else:
        changes[field.path] = value
        st.session_state[_INPUTS][field.path] = key
