"""What happens at this moment: what is computed, what waits behind it, what failed, and the computer's load."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import streamlit as st

from slimfed.dashboard import format
from slimfed.dashboard.source import Source
from slimfed.platform.glossary import STATES
from slimfed.platform.store.dashboard_reader import Insight
from slimfed.platform.stores import nearest_existing
from slimfed.platform.under_way import UnderWay, under_way

OpenRun = Callable[[str], None]

_MOST = 4
_FAILED_FOR = timedelta(days=2)
_BUSY_SECONDS = 0.05
"""For so long the processors are looked at."""


def show(source: Source, reader: Insight, rows: Sequence[Any], progress: Mapping[str, Any], open_run: OpenRun) -> None:
    """The part above the list. ``rows``: of runs, newest first; ``progress``: rows of those that are computed."""
    every = [(row, under_way(row, progress.get(row.id))) for row in rows if not row.archived]
    going = [(row, told) for row, told in every if told.state in ("preparing", "running", "stopping")]
    with st.container(key="computing"):
        for row, told in going[:_MOST]:
            _computed(row, told, open_run)
    with st.container(key="waiting"):
        _waiting(reader.queued(), going, open_run)
    with st.container(key="failures"):
        _failures([row for row, told in every if told.state == "failed"], source, open_run)
    with st.container(key="load"):
        st.caption(load(source))


def load(source: Source) -> str:
    """How busy the computer is that the dashboard runs on."""
    memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(nearest_existing(source.home)))
    used, busy = memory.total - memory.available, psutil.cpu_percent(_BUSY_SECONDS)
    return (
        f"This computer: processors {busy:.0f}% busy, memory {format.size(used)} of {format.size(memory.total)} used, "
        f"{format.size(disk.free)} of disk free."
    )


def _computed(row: Any, told: UnderWay, open_run: OpenRun) -> None:
    """One run that is computed: its name, state and quality, and a bar with what is done."""
    with st.container(key=f"computed {row.id}", border=True, gap="xsmall"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
                _link(row, open_run)
                color = format.STATUS_COLORS.get(told.state, "gray")
                st.badge(format.status(told.state), color=color, help=STATES.get(told.state))
            st.markdown(_quality(row), width="content")
        st.progress(told.share, text=format.plain(told.describe() or told.state))


def _quality(row: Any) -> str:
    if row.accuracy is None:
        return ":gray[not evaluated yet]"
    change = ""
    if row.course and len(row.course) > 1 and (points := format.points(row.course[-1] - row.course[-2])):
        change = f" :gray[({points})]"
    return f"accuracy **{format.percent(row.accuracy)}**{change}"


def _waiting(queued: Sequence[Any], going: Sequence[tuple[Any, UnderWay]], open_run: OpenRun) -> None:
    """The queue in the order of starting, and what its first run waits for."""
    if not queued:
        return
    left = [told.left for _, told in going if told.left is not None]
    behind = f" behind {format.plain(going[0][0].name)}" if going else ""
    rest = f", about {format.roughly(min(left))} from now" if left else ""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"Waiting{behind}{rest}:", width="content")
        for place, row in enumerate(queued[:_MOST], 1):
            _link(row, open_run, f"{place}. ")
        if len(queued) > _MOST:
            st.markdown(f"and {len(queued) - _MOST:,} more")


def _failures(failed: Sequence[Any], source: Source, open_run: OpenRun) -> None:
    """The newest failed runs, and why they failed."""
    since = datetime.now(UTC) - _FAILED_FOR
    recent = [row for row in failed if (ended := format.local(row.finished_at)) is not None and ended > since]
    for row in recent[:_MOST]:
        with st.container(key=f"failed {row.id}", horizontal=True, vertical_alignment="center", gap="small"):
            _link(row, open_run)
            st.badge(format.status("failed"), color="red", help=STATES["failed"])
            why = format.plain((row.cause or "no cause was recorded")[:300])
            st.markdown(f":gray[{format.clock(row.finished_at, source.zone)}] {why}", width="stretch")


def _link(row: Any, open_run: OpenRun, before: str = "") -> None:
    """The run's name, which leads to its page."""
    if st.button(f"{before}**{format.plain(row.name)}**", key=f"open {row.id}", type="tertiary", help=f"Open {row.id}"):
        open_run(str(row.id))
