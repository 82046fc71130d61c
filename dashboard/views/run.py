"""The page of one run, live while the run goes on.

A fragment without content reads one row of the store twice a second. It redraws the page only after a new round, event
or state, and stops when the run has ended. Another one draws the round that is under way. Every part of the page has a
place of its own, so that no part is drawn into that of another while the page changes. The address names run and tab.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import streamlit as st
from sqlalchemy import Row

from slimfed.clients.errors import InputError
from slimfed.clients.plain_text import clean
from slimfed.dashboard import format, run_control, widgets
from slimfed.dashboard.source import Source
from slimfed.dashboard.tabs import bandit, costs, devices, events, learning, logs, model, samples, sparsity_maps
from slimfed.dashboard.tabs import structure as left
from slimfed.dashboard.tabs import timeline as time_line
from slimfed.dashboard.views.runs import labels
from slimfed.platform.glossary import STATES, meaning
from slimfed.platform.participation import part_of_fleet, took_part
from slimfed.platform.round_closing import rounds_close
from slimfed.platform.store.dashboard_reader import Insight
from slimfed.platform.store.reader import Pulse
from slimfed.platform.summary import perplexity
from slimfed.platform.under_way import state_of, under_way

Run = Row[Any]
Section = Callable[[Source, Run], None]
LargeFigure = tuple[str, str, str | None, str | None]

REFRESH_SECONDS = 0.5
LARGE_WIDTH, SMALL_WIDTH = 176, 124
SWITCHED = 300
"""Runs that the switcher offers."""

TABS: dict[str, Section] = {
    "Learning": learning.show,
    "Costs": costs.show,
    "Timeline": time_line.show,
    "Maps": sparsity_maps.show,
    "Bandit": bandit.show,
    "Structure": left.show,
    "Model": model.show,
    "Samples": samples.show,
    "Devices": devices.show,
    "Events": events.show,
    "Logs": logs.show,
    "Job": logs.show_job,
}
_ALWAYS = ("Events", "Logs", "Job")
"""Tabs with content before the first round."""


@dataclass(frozen=True)
class Signs:
    """The state that a drawn page is compared with. ``silent``: a running run without recent heartbeat."""

    pulse: Pulse | None
    silent: bool


def show(source: Source, run_id: str, clone: Callable[[str], None], switch: Callable[[str], None]) -> None:
    """The page of the run that the address names. ``clone`` opens the form with a copy of its job, ``switch`` the page
    of another run.
    """
    with source.explained() as reader:
        found = _found(reader, run_id)
        if found is None:
            return
        seen, run = _look(reader, found.id)
        state = _state(reader, run)
        st.set_page_config(page_title=f"{format.status(state)} {run.rounds_done}/{run.rounds} · {run.name}")
        with st.container(key="head", horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            _title(run, state)
            _steer(run, state, source, reader, clone, switch)
        rounds = learning.rounds(reader, run.id)
        with st.container(key="now", horizontal=True, gap="small", vertical_alignment="center"):
            with st.container(key="progress"):
                alive = REFRESH_SECONDS * 2 if run.status in format.UNFINISHED else None
                st.fragment(_progress, run_every=alive)(source, run.id)
            with st.container(key="facts", width="content"):
                _facts(run, rounds, source)
        with st.container(key="notice"):
            _notice(run)
        with st.container(key="figures", horizontal=True, gap="medium", vertical_alignment="center"):
            _metrics(run, rounds)
        with st.container(key="tabs"):
            with st.container(key="state"):
                st.caption(_short(run, state))
            tab = st.segmented_control(
                "Part of the run",
                list(TABS),
                default="Learning",
                required=True,
                key="tab",
                bind="query-params",
                label_visibility="collapsed",
            )
        name = str(tab or "Learning")
        with st.container(key=f"part-{name.lower()}"):
            if run.rounds_done or name in _ALWAYS:
                TABS[name](source, run)
            else:
                widgets.nothing("The first round has not ended yet. This page shows it then.")
        # Last, so that the page above does not move when the fragment ends with the run.
        if run.status in format.UNFINISHED:
            st.fragment(_watch, run_every=REFRESH_SECONDS)(source, run.id, seen)


def _found(reader: Insight, run_id: str) -> Run | None:
    """The run that the address names by id, beginning of an id or ``last``; shows an error if there is none."""
    try:
        return reader.find_run(run_id or "last")
    except InputError as error:
        st.subheader("This address leads to no run.", anchor=False)
        st.markdown(f"{format.plain(str(error))}.")
        return None


def _state(reader: Insight, run: Run) -> str:
    return state_of(run, reader.progress([run.id]).get(run.id) if run.status == "running" else None)


def _title(run: Run, state: str) -> None:
    with st.container(key="title", horizontal=True, vertical_alignment="center", gap="small", width="content"):
        st.title(format.plain(run.name), width="content", anchor=False)
        st.badge(format.status(state), color=format.STATUS_COLORS.get(state, "gray"), help=STATES.get(state))
        for tag in run.tags or ():
            st.badge(format.plain(tag), color="gray", icon=":material/label:")


def _facts(run: Run, rounds: pd.DataFrame, source: Source) -> None:
    facts = (
        run.method,
        part_of_fleet(run.job, run.devices),
        *_took_part(run, rounds),
        *filter(None, [rounds_close(run.job)]),
        f"target sparsity {format.percent(run.target_sparsity, 0)}",
        f"seed {run.seed}",
        f"started {format.clock(run.started_at or run.created_at, source.zone)}",
    )
    note = f" · *{format.plain(run.notes)}*" if run.notes else ""
    st.caption(f"{format.plain(' · '.join(facts))} · `{format.code(run.id)}`{note}")


def _took_part(run: Run, rounds: pd.DataFrame) -> tuple[str, ...]:
    """How many devices took part in the newest round, if not all."""
    asked = rounds["asked"].dropna()
    if asked.empty or asked.iloc[-1] >= run.devices:
        return ()
    return (f"{took_part(int(asked.iloc[-1]), run.devices)} took part in round {run.rounds_done}",)


def _switcher(reader: Insight, run: Run, switch: Callable[[str], None]) -> None:
    """The newest runs, to go to another one from here."""
    others = {row.id: row for row in reader.runs(SWITCHED, archived=False) if row.id != run.id}
    with st.popover("Runs", icon=":material/swap_horiz:", help="Go to another run"):
        chosen = st.selectbox(
            "Another run",
            list(others),
            index=None,
            format_func=lambda each: _name(others[each]),
            key=f"switch from {run.id}",
            placeholder="Type a part of its name" if others else "There is no other run",
            disabled=not others,
        )
        if chosen is not None:
            switch(chosen)


def _name(run: Row[Any]) -> str:
    quality = f" · {format.percent(run.accuracy)}" if run.accuracy is not None else ""
    return clean(f"{run.name} · {format.status(run.status)}{quality} · {run.id}")


def _report(reader: Insight, run_id: str) -> bytes:
    from slimfed.platform.report.content import gather  # matplotlib takes seconds to import
    from slimfed.platform.report.page import page

    return page(gather(reader, run_id)).encode()


def _steer(
    run: Run, state: str, source: Source, reader: Insight, clone: Callable[[str], None], switch: Callable[[str], None]
) -> None:
    """Buttons: stop or resume, another run, settings, report, clone, archive, note.

    The row ends at the right, so the button that depends on the state comes first, and messages come below: no button
    moves while it is pressed.
    """
    resumed = False
    with st.container(horizontal=True, gap="small", key="steer", width="content"):
        if source.operator:
            with st.container(key="go", width="content"):
                if run.status in format.UNFINISHED:
                    stopping = state == "stopping"
                    label, sign = ("Stopping", "hourglass_top") if stopping else ("Stop", "stop_circle")
                    if st.button(label, icon=f":material/{sign}:", disabled=stopping, help="It can be resumed"):
                        run_control.stop(source, run)
                        st.rerun()
                elif run.status != "done":
                    resumed = st.button("Resume", icon=":material/play_circle:", type="primary")
        _switcher(reader, run, switch)
        with st.popover("Settings", icon=":material/tune:"):
            widgets.picture_choice()
        st.download_button(
            "Report",
            lambda: _report(reader, run.id),
            f"report-{run.id}.html",
            "text/html",
            icon=":material/description:",
            on_click="ignore",
            help="The run as one page to send to somebody",
        )
        if not source.operator:
            return
        if st.button("Clone", icon=":material/content_copy:", help="Start a run like this one, with changes"):
            clone(run.id)
        if st.button("Restore" if run.archived else "Archive", icon=":material/archive:"):
            run_control.label(source, [run.id], archived=not run.archived)
            st.rerun()
        with st.popover("Tags and notes", icon=":material/label:"):
            labels(source, [run.id], list(run.tags or ()), run.notes or "", run.id)
    if resumed:
        with st.spinner("Putting it into the queue"):
            answer = run_control.resume(source, run.id)
        if answer.run:
            st.rerun()
        st.error("  \n".join(map(format.plain, answer.problems)))


def _watch(source: Source, run_id: str, seen: Signs) -> None:
    """Redraw the page if the store has changed since ``seen``."""
    with source.explained() as reader:
        signs, run = _look(reader, run_id)
        if signs != seen:
            st.rerun()
        if run.status == "queued":
            run_control.see_to_the_queue(source, reader)


def _look(reader: Insight, run_id: str) -> tuple[Signs, Run]:
    """The signs are read first: a change between the two reads causes one redraw too many, not one too few."""
    pulse, run = reader.pulse(run_id), reader.find_run(run_id)
    return Signs(pulse, format.silent_for(run.heartbeat_at, datetime.now(UTC)) is not None), run


def _metrics(run: Run, rounds: pd.DataFrame) -> None:
    """Two large figures, the quality and the sparsity, with base and target; the others small."""
    with st.container(key="large", horizontal=True, gap="medium", width="content"):
        for label, value, change, beside in _large_figures(run, rounds):
            st.metric(
                label,
                value,
                change,
                delta_color="off" if label == "Sparsity" else "normal",
                delta_arrow="off" if label == "Sparsity" else "auto",
                delta_description=beside,
                help=meaning(label),
                width=LARGE_WIDTH,
            )
    with st.container(key="small", horizontal=True, gap="small"):
        for label, value in _small_figures(run):
            st.metric(label, value, help=meaning(label), width=SMALL_WIDTH)


def _progress(source: Source, run_id: str) -> None:
    """The bar of the run, the round under way included; drawn anew every second by itself."""
    with source.explained() as reader:
        run = reader.find_run(run_id)
        told = under_way(run, reader.progress([run_id]).get(run_id))
        if told.state == "queued":
            parts = ["Waits until nothing else runs on this computer"]
        elif told.state == "preparing":
            parts = ["Preparing: opens text and model, and starts the nodes", *told.details()]
        elif told.state == "stopping":
            parts = [f"Stopping after round {run.rounds_done} of {run.rounds}", *told.details()[:1]]
        else:
            parts = [f"Round {told.round} of {told.rounds}", *told.details()]
        st.progress(told.share, text=format.plain(" · ".join(parts)))


def _notice(run: Run) -> None:
    """A message on a run that failed, was stopped, stops or is silent, with the next step."""
    resume = (
        f"Press Resume, or type `slimfed resume {format.code(run.id)}`, to continue it after its last finished round."
    )
    if run.status == "failed":
        st.error(f"The run failed: {format.plain(run.cause or 'no cause was recorded')}  \n{resume}")
    elif run.status == "stopped":
        st.info(f"The run was stopped after {format.plural(run.rounds_done, 'round')}. {resume}")
    elif run.status in format.UNFINISHED and run.stop_requested:
        st.info("The run has been asked to stop and will do so soon. The round under way is abandoned.")
    elif run.status == "running" and (quiet := format.silent_for(run.heartbeat_at, datetime.now(UTC))) is not None:
        st.warning(
            f"This run has shown no activity for {format.seconds(quiet)}. If its process is gone, press Stop; {resume}"
        )
    elif sample := format.sampled(run.examples, run.test_examples):
        st.caption(f"The accuracy is an estimate {sample}. After the last round it is that on all.")


def _large_figures(run: Run, rounds: pd.DataFrame) -> tuple[LargeFigure, LargeFigure]:
    """Word of the glossary, value, change since the value before it, and what it is to be compared with."""
    trained = rounds[rounds["round"] > 0]
    last = None if trained.empty else trained.iloc[-1]
    base = rounds[rounds["round"] == 0]
    quality: LargeFigure
    sparsity: LargeFigure = (
        "Sparsity",
        format.percent(None if last is None else last["global_sparsity"]),
        format.points(_change(trained["global_sparsity"])),
        f"of {format.percent(run.target_sparsity, 0)} wanted",
    )
    if run.task == "causal-lm" and run.accuracy_normalised is None:
        before = None if base.empty else perplexity(run.task, base.iloc[0]["loss"])
        quality = ("Perplexity", format.ratio(perplexity(run.task, run.loss)), None, _base(before, format.ratio))
    else:
        change = format.points(_change(rounds["accuracy"]))
        quality = ("Accuracy", format.percent(run.accuracy), change, _base(run.base_accuracy, format.percent))
    return quality, sparsity


def _base(before: float | None, written: Callable[[float | None], str]) -> str | None:
    """What the base had before training, if that was measured."""
    return None if before is None else f"base {written(before)}"


def _small_figures(run: Run) -> tuple[tuple[str, str], ...]:
    """Word of the glossary, and value."""
    return (
        *_measures(run),
        ("Devices' accuracy", format.percent(run.device_accuracy_mean)),
        ("Devices' sparsity", format.percent(run.sparsity)),
        ("Virtual time", format.seconds(run.virtual_seconds)),
        ("Wall time", format.seconds(run.wall_seconds)),
        ("Received", format.size(run.bytes_up)),
        ("Sent", format.size(run.bytes_down)),
        ("Energy", format.energy(run.joules)),
        ("Rejected", f"{run.rejected_updates:,}"),
    )


def _short(run: Run, state: str) -> str:
    """State, rounds and quality: what stays in sight on a phone."""
    quality = perplexity(run.task, run.loss)
    figure = format.percent(run.accuracy) if quality is None else f"perplexity {format.ratio(quality)}"
    return f"**{format.status(state)}** · round {run.rounds_done} of {run.rounds} · {figure}"


def _measures(run: Run) -> list[tuple[str, str]]:
    """What else was measured, as the task has it."""
    if run.task != "causal-lm":
        return []
    figures: list[tuple[str, str, float | None]] = [
        ("Bits a byte", format.ratio(run.bits_per_byte), run.bits_per_byte),
        ("ROUGE-L", format.percent(run.rouge_l), run.rouge_l),
        ("BLEU", format.percent(run.bleu), run.bleu),
        ("Exact match", format.percent(run.exact_match), run.exact_match),
    ]
    if run.accuracy_normalised is None:
        figures.append(("Accuracy", format.percent(run.accuracy), run.accuracy))
    else:
        value = perplexity(run.task, run.loss)
        figures.append(("Perplexity", format.ratio(value), value))
    return [(word, text) for word, text, value in figures if value is not None]


def _change(values: pd.Series) -> float | None:
    """The newest value minus the one before it."""
    known = values.dropna()
    return float(known.iloc[-1] - known.iloc[-2]) if len(known) > 1 else None
