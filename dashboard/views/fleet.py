"""The fleet: device classes and their memory, participation and failures by round, and nodes."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from slimfed.clients.errors import InputError
from slimfed.dashboard import format, widgets
from slimfed.dashboard.figures import bars, frames
from slimfed.dashboard.source import Source
from slimfed.platform.fleet.profiles import PROFILES, load_profile
from slimfed.platform.store.dashboard_reader import Insight

OFFERED = 200

_CLASSES = {
    "class": st.column_config.TextColumn("Class", width=150),
    "devices": st.column_config.NumberColumn("Devices", format="localized"),
    "examples": st.column_config.NumberColumn("Examples", format="localized"),
    "rate": st.column_config.NumberColumn("Trains at (GFLOP/s)", format="%.0f", help="Peak times efficiency"),
    "memory": st.column_config.NumberColumn("Memory (GiB)", format="%.1f", help="Memory that training may use"),
    "bandwidth": st.column_config.NumberColumn("Memory bandwidth (GB/s)", format="%.0f"),
    "down": st.column_config.NumberColumn("Down (Mbit/s)", format="%.0f"),
    "up": st.column_config.NumberColumn("Up (Mbit/s)", format="%.0f"),
    "latency": st.column_config.NumberColumn("Latency (ms)", format="%.0f"),
    "modes": st.column_config.TextColumn("Power modes", width=200),
    "sources": st.column_config.TextColumn("Sources", width=320),
}
_NODES = {
    "node": st.column_config.TextColumn("Node"),
    "devices": st.column_config.NumberColumn("Devices last served", format="%d"),
    "round": st.column_config.NumberColumn("Last round", format="%d"),
    "last": st.column_config.TextColumn("Last contact"),
    "silent": st.column_config.TextColumn("Since then"),
}


def show(source: Source, named: str, remember: Any) -> None:
    """The page. ``named``: a run's id from the address; ``remember`` puts it there."""
    st.title("Fleet", anchor=False)
    if source.missing:
        _profiles()
        return
    with source.explained() as reader:
        rows = reader.runs(OFFERED)
        if not rows:
            _profiles()
            return
        names = {row.id: f"{row.name} · {row.id}" for row in rows}
        wanted = named or rows[0].id
        if wanted not in names:
            try:
                found = reader.find_run(wanted)
                wanted, names[found.id] = found.id, f"{found.name} · {found.id}"
            except InputError as error:
                st.warning(format.plain(str(error)))
                wanted = rows[0].id
        place = list(names).index(wanted)
        chosen = st.selectbox("Fleet of the run", list(names), place, format_func=lambda run_id: names[run_id])
        if chosen != named:
            remember(chosen)
        _of_run(source, reader, chosen)


def _profiles() -> None:
    """The available profiles, shown before the first run."""
    widgets.nothing("There is no run yet. These are the available fleet profiles; Launch starts a run.")
    name = st.selectbox("Profile", list(PROFILES), key="profile", bind="query-params")
    profile = load_profile(str(name))
    st.caption(format.plain(profile.description))
    frame = _classes_frame({each.name: each.count for each in profile.classes}, {}, profile.classes)
    widgets.table(frame, f"profile {name}", _CLASSES, "Table of device classes")


def _of_run(source: Source, reader: Insight, run_id: str) -> None:
    run = reader.find_run(run_id)
    sizes = reader.class_sizes(run_id)
    name = str(run.job.get("fleet", {}).get("profile", ""))
    try:
        kinds: Sequence[Any] = load_profile(name).classes
    except InputError as error:
        kinds = ()
        st.warning(f"The profile of this run cannot be read any more: {format.plain(str(error))}.")
    st.caption(f"Profile {format.plain(name)}: {format.plural(run.devices, 'device')} in {len(sizes)} classes.")
    frame = _classes_frame({r.profile: r.devices for r in sizes}, {r.profile: r.examples for r in sizes}, kinds)
    widgets.table(frame, f"classes of {run_id}", _CLASSES, "Table of device classes")
    left, right = st.columns(2, gap="large")
    with left:
        _memory(reader, run_id, frame)
    with right:
        rounds = frames.class_rounds_frame(reader.class_rounds(run_id))
        if rounds.empty:
            widgets.nothing("No round has ended yet, so there is no participation.")
        else:
            widgets.chart(
                "Participation",
                bars.participation(rounds, [row.profile for row in sizes]),
                "Share of each class whose update was used, by round. The other devices dropped out, came late, "
                "ran out of memory, were rejected, or are still at work.",
            )
    happened = frames.event_rounds_frame(reader.event_rounds(run_id))
    if not happened.empty:
        widgets.chart(
            "Failures and other events",
            bars.events(happened),
            "Events of each round; the run's Events tab has cause and remedy of each.",
        )
    _nodes(source, reader, run_id)


def _memory(reader: Insight, run_id: str, frame: pd.DataFrame) -> None:
    needed = {row.profile: row.peak_memory_bytes for row in reader.class_peaks(run_id)}
    memory = frame.assign(
        holds=frame["memory"],
        needed=[(needed.get(name) or float("nan")) / 2**30 for name in frame["class"]],
    )
    widgets.chart(
        "Memory of each class",
        bars.memory(memory),
        "Memory that training may use on a device of the class, and the most that one of them needed in the newest "
        "round. A device that would need more fails its round.",
    )


def _nodes(source: Source, reader: Insight, run_id: str) -> None:
    st.markdown("**Nodes**")
    rows = reader.nodes(run_id)
    if not rows:
        widgets.nothing("No node has answered in this run yet.")
        return
    frame = frames.nodes_frame(rows, source.zone)
    widgets.table(frame, f"nodes of {run_id}", _NODES, "Table of nodes, the oldest contact first")
    st.caption(
        "Flower nodes that serve this run's devices, the oldest contact first. A simulated fleet has a few on this "
        "computer; a real one has a node on each machine."
    )


def _classes_frame(devices: dict[str, int], examples: dict[str, int], kinds: Sequence[Any]) -> pd.DataFrame:
    """One line a class; values missing in the profile are NaN."""
    known = {each.name: each for each in kinds}
    rows = []
    for name, count in devices.items():
        row: dict[str, Any] = {"class": name, "devices": count, "examples": examples.get(name)}
        if (each := known.get(name)) is not None:
            peak = each.fp16_gflops if each.precision == "fp16" else each.fp32_gflops
            row |= {
                "rate": peak * each.efficiency,
                "memory": each.memory_gib,
                "bandwidth": each.bandwidth_gb_s,
                "down": each.down_mbit_s,
                "up": each.up_mbit_s,
                "latency": each.latency_ms,
                "modes": ", ".join(f"{m.name} ({m.speed:g}×, {100 * m.probability:.0f}%)" for m in each.modes),
                "sources": "; ".join(dict.fromkeys(each.sources.values())),
            }
        rows.append(row)
    return pd.DataFrame(rows, columns=list(_CLASSES))
