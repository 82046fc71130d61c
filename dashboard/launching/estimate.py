"""What a job will cost, as ``slimfed check`` computes it in a process of its own."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import SimpleNamespace
from typing import Any

import pandas as pd
import streamlit as st
import tomli_w

from slimfed.clients.errors import InputError
from slimfed.dashboard import children, format
from slimfed.dashboard.access import login
from slimfed.dashboard.source import Source
from slimfed.platform.job.job import located

SECONDS = 600.0
"""A check that takes longer is ended: it opens text and model, and measures a step."""
_LOOK_SECONDS = 0.5
_ASKED, _REFUSED = "estimate asked for", "estimate refused"

_COLUMNS = {
    "class": st.column_config.TextColumn("Class"),
    "devices": st.column_config.NumberColumn("Devices"),
    "fits": st.column_config.TextColumn("Fits", help="Whether training fits the memory of a device"),
    "first": st.column_config.TextColumn("First round"),
    "last": st.column_config.TextColumn("Last round"),
    "memory": st.column_config.TextColumn("Memory needed / there"),
    "bytes": st.column_config.TextColumn("Sent / received a round"),
    "examples": st.column_config.TextColumn("Texts each"),
}


def show(source: Source, document: Mapping[str, Any], *, possible: bool) -> None:
    """A button, and the answer for the job as it is now. ``possible``: false if the job is known to be wrong."""
    text = tomli_w.dumps(located(dict(document), Path.cwd()))
    key = f"estimate {hashlib.sha256(text.encode()).hexdigest()}"
    child = children.child(key)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="estimate"):
        st.button(
            "Estimate",
            icon=":material/speed:",
            disabled=not possible or (child is not None and child.running),
            help="What will be trained, which devices hold it, and its time, memory and bytes; nothing is run",
            on_click=_ask,
            args=(source, key, text),
        )
        if refused := st.session_state.get(_REFUSED):
            st.error(format.plain(refused), icon=":material/error:")
        if child is None:
            asked = st.session_state.get(_ASKED)
            st.caption("The job has changed since: estimate it again." if asked else "Takes some seconds.")
            return
        if child.running:
            st.fragment(_wait, run_every=_LOOK_SECONDS)(key)
            return
    problems = child.problems
    if problems:
        st.error("  \n".join(map(format.plain, problems)), icon=":material/error:")
        return
    _answer(json.loads(child.answer))


def _ask(source: Source, key: str, text: str) -> None:
    """Start the check. Only the newest one is worth computing."""
    try:
        login.check_operator()
        with NamedTemporaryFile("w", prefix="slimfed-", suffix=".toml", delete=False, encoding="utf-8") as file:
            file.write(text)
        old = st.session_state.get(_ASKED)
        if old and (before := children.child(old)) is not None:
            before.end()
        children.begin(source, key, ["check", file.name, "--json"], SECONDS, Path(file.name))
        st.session_state[_ASKED] = key
        st.session_state.pop(_REFUSED, None)
    except (InputError, OSError) as error:
        st.session_state[_REFUSED] = str(error)


def _wait(key: str) -> None:
    child = children.child(key)
    if child is None or not child.running:
        st.rerun()
    else:
        st.caption(f"Opens text and model, and measures a step: {child.seconds:.0f} s so far")


def _answer(found: Mapping[str, Any]) -> None:
    """The figures of ``slimfed check --json``."""
    job, costs = found["job"], found["estimate"]
    texts = f"{found['train_examples']:,} training texts, {found['test_examples']:,} test texts"
    classes = f", {len(found['labels'])} classes" if found["labels"] else ""
    st.markdown(f"**{format.plain(job['model']['path'])}** learns from {texts}{format.plain(classes)}.")
    if costs is None:
        st.caption("Real devices, whose speed and memory are not known here.")
        return
    before, after = costs["parameters"]
    wall = costs["wall_seconds"]
    with st.container(horizontal=True, gap="medium", key="estimated"):
        for label, value in (
            ("Virtual time", format.seconds(costs["virtual_seconds"])),
            ("Wall time", "not known" if wall is None else format.seconds(wall)),
            ("Traffic", format.size(costs["bytes"])),
            ("Parameters", f"{_millions(before)} → {_millions(after)}"),
        ):
            st.metric(label, value, width="content")
    rows = [_row(SimpleNamespace(**each)) for each in costs["classes"]]
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        column_config=_COLUMNS,
        column_order=list(_COLUMNS),
        alt="What training costs the devices of each class",
    )
    lost = [each["class"] for each in rows if each["fits"].startswith("no")]
    if lost:
        st.warning(f"No round of {format.plain(', '.join(lost))} will count: training does not fit their memory.")
    with st.expander("What was chosen, and why"):
        st.caption("  \n".join(map(format.plain, found["reasons"])))


def _row(each: Any) -> dict[str, Any]:
    fewest, most = each.examples
    return {
        "class": each.profile,
        "devices": each.devices,
        "examples": f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}",
        "fits": format.fits(each.starts_at),
        "first": format.seconds(each.first_seconds),
        "last": format.seconds(each.last_seconds),
        "memory": f"{format.size(each.needed_bytes)} / {format.size(each.memory_bytes)}",
        "bytes": f"{format.size(each.bytes_down)} / {format.size(each.bytes_up)}",
    }


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:,.1f} M" if parameters >= 1e6 else f"{parameters / 1e3:,.0f} k"
