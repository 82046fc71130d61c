"""Comparison of two to eight runs: curves, cost of a target, quality within a budget, differences of the jobs."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from slimfed.clients.errors import InputError
from slimfed.dashboard import format, widgets
from slimfed.dashboard.columns import number
from slimfed.dashboard.figures import comparison_frames, curves, pareto_chart, style
from slimfed.dashboard.source import Source
from slimfed.dashboard.tabs import learning
from slimfed.platform.comparison.course import QUALITIES, Cost, Quality
from slimfed.platform.comparison.grouping import Group
from slimfed.platform.comparison.report import Comparison, check_one_task, choose_target, compare, load_courses
from slimfed.platform.comparison.verdict import in_words
from slimfed.platform.store.dashboard_reader import Insight

MOST = 8
OFFERED = 1000

_QUALITY_NAMES: dict[str, str] = {
    "accuracy": "Accuracy",
    "device_accuracy_mean": "Devices' accuracy",
    "macro_f1": "Macro-F1",
    "exact_match": "Exact match",
    "rouge_l": "ROUGE-L",
    "bleu": "BLEU",
}


def show(source: Source, named: str, remember: Any) -> None:
    """The page. ``named``: ids from the address, with commas between; ``remember`` puts them there."""
    st.title("Compare", anchor=False)
    if source.missing:
        widgets.nothing("There are no runs to compare yet. Start some on the Launch page, or with `slimfed run`.")
        return
    with source.explained() as reader:
        chosen = _chosen(reader, named, remember)
        if len(chosen) < 2:
            widgets.nothing(f"Choose two to {MOST} runs above. The address then names them, so that it can be shared.")
            return
        _comparison(reader, chosen)


def _chosen(reader: Insight, named: str, remember: Any) -> list[str]:
    rows = reader.runs(OFFERED, archived=False)
    names = {row.id: f"{row.name} · {row.method} · {row.id}" for row in rows}
    wanted = [each for each in named.split(",") if each]
    for each in wanted:
        if each not in names:
            try:
                run = reader.find_run(each)
            except InputError as error:
                st.warning(format.plain(str(error)))
                continue
            names[run.id] = f"{run.name} · {run.method} · {run.id}"
            wanted[wanted.index(each)] = run.id
    chosen = st.multiselect(
        "Runs",
        list(names),
        default=[each for each in wanted if each in names][:MOST],
        format_func=lambda run_id: names[run_id],
        max_selections=MOST,
        key="compared",
        placeholder="Choose runs",
    )
    if chosen != wanted:
        remember(",".join(chosen))
    return list(chosen)


def _comparison(reader: Insight, chosen: Sequence[str]) -> None:
    jobs = {row.id: row for row in reader.jobs(chosen)}
    names = comparison_frames.short_names({run_id: jobs[run_id].name for run_id in chosen})
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        quality: Quality = st.selectbox(
            "Measure", QUALITIES, format_func=_QUALITY_NAMES.__getitem__, key="quality", bind="query-params", width=220
        )
        courses = load_courses(reader, chosen, quality)
        try:
            check_one_task(courses)
        except InputError as error:
            widgets.nothing(f"{format.plain(str(error)).capitalize()}.")
            return
        proposed = choose_target(courses)
        target = st.number_input(
            "Target (%)",
            0.0,
            100.0,
            round(100 * proposed.value, 1) if proposed else 0.0,
            0.5,
            format="%.1f",
            key=f"target {quality} {','.join(chosen)}",
            width=140,
            help="Default: 90% of the best quality of these runs",
        )
        axis = st.segmented_control(
            "Horizontal axis",
            list(learning.AXES),
            default="Virtual time",
            required=True,
            key="over",
            bind="query-params",
        )
    untouched = proposed is not None and target == round(100 * proposed.value, 1)
    wanted = proposed if untouched else choose_target(courses, target / 100)
    result = compare(courses, quality, wanted)
    if result.verdict is not None:
        words = in_words(result.verdict, quality, wanted, lambda group: _called(group, names))
        st.markdown(format.plain(words))
    frames = {names[course.run_id]: comparison_frames.course_frame(course) for course in courses}
    along: style.Axis = learning.AXES[axis or "Virtual time"]
    line = "90% of the best, as no target is given" if untouched else "the target"
    widgets.chart(
        None,
        curves.runs_compared(
            frames,
            along,
            f"{_QUALITY_NAMES[quality]} (%)",
            target / 100,
            "90% of the best" if untouched else "target",
        ),
        f"{_QUALITY_NAMES[quality]} of each run over {str(axis).lower()}; the dashed line is {line}. Further left at "
        "the line is better.",
        key="compared curves",
    )
    _target_table(result, names)
    _budget_table(courses, quality, wanted, names)
    points = comparison_frames.pareto_frame(courses, names)
    widgets.chart(
        "Accuracy against the cost of inference",
        pareto_chart.pareto(points, _QUALITY_NAMES[quality]),
        "A point is a run after an evaluated round: up and to the left is better. The dotted line is the Pareto "
        "front. The cost of inference is the share of the prunable parameters that the model still "
        "has, to which the operations of its pruned blocks are proportional.",
        key="pareto",
    )
    _differences({names[run_id]: jobs[run_id].job for run_id in chosen})


def _called(group: Group, names: Mapping[str, str]) -> str:
    """A group by the name of its run, or by its own if it has several."""
    return names[group.courses[0].run_id] if len(group.courses) == 1 else group.name


def _target_table(result: Comparison, names: Mapping[str, str]) -> None:
    st.markdown("**Cost to target**")
    frame = comparison_frames.target_frame(result, names)
    columns = {
        "group": st.column_config.TextColumn("Runs", width=220),
        "runs": st.column_config.TextColumn("Reached by", width=80),
        "virtual_seconds": number("Virtual time"),
        "slower": st.column_config.NumberColumn("Times the fastest"),
        "wall_seconds": number("Wall time"),
        "megabytes": number("Traffic"),
        "joules": number("Energy"),
        "final": st.column_config.NumberColumn("Final"),
        "best": st.column_config.NumberColumn("Best"),
        "sparsity": number("Sparsity"),
    }
    widgets.table(frame, "cost to target", columns, "Table of the cost of the target for each group of runs")
    said = f"{format.percent(result.target.value)}, {result.target.origin}" if result.target else "none"
    remarks = "".join(f" {format.plain(each[:1].upper() + each[1:])}." for each in result.remarks)
    st.caption(
        f"Cost until the target ({format.plain(said)}) was first reached; means over runs that differ only in their "
        f"seed. Empty: not reached, or not known.{remarks}"
    )


def _budget_table(courses: Any, quality: Quality, target: Any, names: Mapping[str, str]) -> None:
    st.markdown("**Quality under a budget**")
    usual = comparison_frames.usual_budgets(courses)
    units: dict[Cost, tuple[str, float]] = {
        "virtual_seconds": ("Virtual time (s)", 1.0),
        "bytes": ("Traffic (MB)", 1e6),
        "memory_bytes": ("Memory of a device (MB)", 1e6),
    }
    budgets: dict[Cost, float] = {}
    with st.container(horizontal=True, gap="small"):
        for cost, value in usual.items():
            label, scale = units[cost]
            given = st.number_input(
                label, 0.0, None, round(value / scale, 2), key=f"budget {cost} {len(courses)}", width=190
            )
            budgets[cost] = given * scale
    frame = comparison_frames.budget_frame(compare(courses, quality, target, budgets), names)
    columns = {
        "group": st.column_config.TextColumn("Runs", width=220),
        **{str(cost): st.column_config.NumberColumn(f"Within {_lower(units[cost][0])}") for cost in budgets},
    }
    shares = dict.fromkeys(map(str, budgets), format.percent)
    alt = "Table of the quality within each budget"
    widgets.table(frame, "quality under budget", columns, alt, numbers=shares)
    st.caption(
        "Quality of the newest model within each budget alone. Default budgets: half of the smallest total of these "
        "runs. Empty: no round fits."
    )


def _differences(jobs: Mapping[str, Mapping[str, Any]]) -> None:
    st.markdown("**Differences of the jobs**")
    frame = comparison_frames.differences_frame(jobs)
    if frame.empty:
        st.caption("None: every field of the jobs is the same.")
        return
    st.dataframe(
        frame.style.apply(_set_off, axis=1),
        key="differences",
        hide_index=True,
        width="stretch",
        height="content",
        column_config={"field": st.column_config.TextColumn("Field", pinned=True, width=200)},
        alt="Table of the job fields in which the runs differ",
    )
    widgets.saving(frame, "differences")
    st.caption("Only fields that differ; values that differ from the first run's are highlighted.")


def _lower(label: str) -> str:
    return label[:1].lower() + label[1:]


def _set_off(row: pd.Series) -> list[str]:
    """Style of values that differ from the first run's, legible in the light and the dark theme."""
    apart = "background-color: rgba(230, 159, 0, 0.28); font-weight: 600"
    return ["", "", *(apart if value != row.iloc[1] else "" for value in row.iloc[2:])]
