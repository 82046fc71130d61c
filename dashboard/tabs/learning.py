"""Accuracy and loss over rounds, virtual time or bytes."""

import math
from typing import Any

import pandas as pd
import streamlit as st

from slimfed.dashboard import columns, widgets
from slimfed.dashboard.figures import bars, curves, frames, style
from slimfed.dashboard.source import Source
from slimfed.platform.round_closing import waits_for_all
from slimfed.platform.standing import REFERENCE_WORDS, standing
from slimfed.platform.store.reader import Reader

AXES: dict[str, style.Axis] = {"Rounds": "round", "Virtual time": "time", "Bytes": "bytes"}

_COLUMNS = {
    "round": st.column_config.NumberColumn("Round", format="%d", width=60),
    "accuracy": columns.number("Accuracy"),
    "examples": st.column_config.NumberColumn("On test texts"),
    "device_accuracy_mean": columns.number("Devices' accuracy"),
    "loss": columns.number("Loss", "Loss, test (nats)"),
    "train_loss": columns.number("Loss", "Loss, training (nats)"),
    "global_sparsity": columns.number("Sparsity"),
    "sparsity": columns.number("Devices' sparsity"),
    "virtual_seconds": columns.number("Virtual time"),
    "wall_seconds": columns.number("Wall time"),
    "megabytes": columns.number("Traffic", "Traffic so far"),
    "asked": columns.number("Took part"),
    "available": columns.number("Available"),
    "accepted": st.column_config.NumberColumn("Updates used"),
    "late": columns.number("Late"),
    "staleness": columns.number("Staleness"),
    "in_flight": columns.number("In flight"),
    "rejected": columns.number("Rejected"),
}


def rounds(reader: Reader, run_id: str) -> pd.DataFrame:
    """The rounds of a run, with the evaluation after each."""
    return frames.rounds_frame(reader.rounds(run_id), reader.evaluations(run_id))


_ROSE = 1e-3
"""A rise of the mean sparsity that is pruning, and not rounding."""


def _estimates(rounds: pd.DataFrame) -> str:
    """Words on the rounds whose figures are estimates from a sample; empty if there are none."""
    notes = [note for note in frames.samples(rounds) if note]
    if not notes:
        return ""
    last = rounds[rounds["examples"].notna()].iloc[-1]
    whole = "; after the last round on all" if last["examples"] == last["test_examples"] else ""
    return f" (estimates{notes[-1]}{whole})"


def pruned_until(run: Any, rounds: pd.DataFrame) -> int | None:
    """The last round in which devices are pruned, by the job or as it came; None if the job prunes none.

    One shot comes a round later where it waits for the first scores of the fleet.
    """
    pruning = run.job.get("pruning", {})
    if not run.target_sparsity:
        return None
    last = 1 if pruning.get("schedule") == "one-shot" else math.ceil(pruning.get("until", 1.0) * run.rounds - 1e-9)
    rose = rounds["round"][rounds["sparsity"].diff() > _ROSE]
    return max(last, int(rose.max())) if len(rose) else last


@st.fragment
def show(source: Source, run: Any) -> None:
    """Curves of accuracy and loss over the chosen axis, and the slowest device of each round."""
    with source.explained() as reader:
        frame = rounds(reader, run.id)
        with st.container(key="axis-row", horizontal=True, horizontal_alignment="right"):
            choice = st.segmented_control(
                "Horizontal axis",
                list(AXES),
                default="Rounds",
                required=True,
                key="axis",
                bind="query-params",
                label_visibility="collapsed",
            )
        axis = AXES[choice or "Rounds"]
        counted = "next tokens" if run.task == "causal-lm" else "test examples"
        estimates, until = _estimates(frame), pruned_until(run, frame)
        shaded = "" if until is None else f" Devices are pruned up to round {until}, which is shaded."
        stands = standing(run, reader.references(run.id))
        references = {REFERENCE_WORDS[name].capitalize(): value for name, value in stands.references.items()}
        left, right = st.columns(2, gap="large")
        with left:
            if run.task == "causal-lm" and run.accuracy_normalised is None:
                widgets.chart(
                    "Perplexity",
                    curves.perplexity(frame, axis, until),
                    f"The pruned global model on the {run.evaluated_on} split{estimates}. Round 0 is the untuned "
                    f"model; lower is better.{shaded}",
                )
            else:
                widgets.chart(
                    "Accuracy",
                    curves.accuracy(frame, axis, counted, references, until),
                    f"The pruned global model on the {run.evaluated_on} split{estimates}, and the mean of the devices' "
                    f"own pruned models. Round 0 is the untuned model; lines across are what the run is judged "
                    f"by.{shaded}",
                )
        with right:
            widgets.chart(
                "Loss",
                curves.loss(frame, axis, until),
                f"Of the global model on the test split{estimates}, and of the devices on their own text. Lower is "
                "better.",
            )
        slowest = frames.slowest_frame(reader.slowest_devices(run.id))
        if not slowest.empty:
            widgets.chart(
                "The slowest device of each round",
                bars.slowest(slowest, frames.classes(slowest)),
                "A round lasts as long as its slowest device. The bar is the time of this device, its colour the "
                "device's class, and the number above it the device.",
            )
        with st.expander("The rounds as a table"):
            partial = bool((frame["asked"] < run.devices).any())
            left_out = {"examples": not estimates, "asked": not partial, "available": not partial}
            left_out |= dict.fromkeys(("late", "staleness", "in_flight"), waits_for_all(run.job))
            chosen = {name: shape for name, shape in _COLUMNS.items() if not left_out.get(name)}
            widgets.table(frame.iloc[::-1], f"rounds of {run.id}", chosen, "Table of rounds, newest first", whole=frame)
