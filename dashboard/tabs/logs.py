"""The logs of a run, and its job with all defaults."""

from pathlib import Path
from typing import Any

import streamlit as st
import tomli_w

from slimfed.dashboard import format, widgets
from slimfed.dashboard.figures import frames
from slimfed.dashboard.source import Source

LINES = 200
TAIL_BYTES = 200_000
REFRESH_SECONDS = 2.0

_MEANING = {
    "server.log": "the server: rounds, evaluations, what was refused",
    "simulation.log": "Flower's simulation engine and Ray",
    "superlink.log": "Flower's SuperLink, in runs of slimfed 0.1.0",
    "app.log": "what the ServerApp printed before it died",
    "launch.log": "the start from the queue",
}


def show(source: Source, run: Any) -> None:
    """The end of one log, updated while the run is running."""
    going = run.status in format.UNFINISHED
    st.fragment(_logs, run_every=REFRESH_SECONDS if going else None)(Path(run.folder) / "logs")


def show_job(source: Source, run: Any) -> None:
    """Every field of the job."""
    text = tomli_w.dumps(frames.without_nothing(run.job))
    st.caption("The job with all defaults filled in. Saved as a file, `slimfed run FILE` runs it again.")
    st.download_button(
        "job.toml",
        text,
        f"{widgets.slug(run.name)}.toml",
        "application/toml",
        icon=":material/download:",
        type="tertiary",
    )
    st.code(text, language="toml")


def _logs(folder: Path) -> None:
    files = {path.name: path for path in sorted(folder.glob("*.log")) if path.stat().st_size}
    if not files:
        widgets.nothing(
            f"There are no logs in {folder}. They appear when the run begins; those of a run on another computer stay "
            "there."
        )
        return
    names = sorted(files, key=lambda name: (list(_MEANING).index(name) if name in _MEANING else 99, name))
    name = st.segmented_control("Log", names, default=names[0], required=True, key="log", label_visibility="collapsed")
    path = files.get(str(name), files[names[0]])
    lines = tail(path)
    st.caption(f"The last {len(lines)} lines of `{format.code(str(path))}`, {_MEANING.get(path.name, 'a log')}.")
    st.code("\n".join(lines), language="log", height=480, wrap_lines=True)
    st.download_button(
        "Save the whole log", path.read_bytes, path.name, "text/plain", icon=":material/download:", type="tertiary"
    )


def tail(path: Path) -> list[str]:
    """The last lines of a file, without reading all of a large one."""
    with path.open("rb") as file:
        start = max(path.stat().st_size - TAIL_BYTES, 0)
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    return lines[1 if start else 0 :][-LINES:]
