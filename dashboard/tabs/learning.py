"""Accuracy and loss over rounds, virtual time or bytes."""

from typing import Any

import pandas as pd
import streamlit as st

from slimfed.dashboard import widgets
from slimfed.dashboard.figures import bars, curves, frames, style
from slimfed.dashboard.source import Source
from slimfed.platform.standing import REFERENCE_WORDS, standing
from slimfed.platform.store.reader import Reader

AXES: dict[str, style.Axis] = {"Rounds": "round", "Virtual time": "time", "Bytes": "bytes"}

_COLUMNS = {
    "round": st.column_config.NumberColumn("Round", format="%d", width=60),
    "accuracy": st.column_config.NumberColumn("Accuracy", format="%.1f%%"),
    "examples": st.column_config.NumberColumn("On test texts", format="localized"),
    "device_accuracy_mean": st.column_config.NumberColumn("Devices' own", format="%.1f%%"),
    "loss": st.column_config.NumberColumn("Loss, test (nats)", format="%.3f"),
    "train_loss": st.column_config.NumberColumn("Loss, training (nats)", format="%.3f"),
    "sparsity": st.column_config.NumberColumn("Sparsity", format="%.1f%%"),
    "virtual_seconds": st.column_config.NumberColumn("Virtual time (s)", format="%.2f"),
    "wall_seconds": st.column_config.NumberColumn("Wall time (s)", format="%.2f"),
    "megabytes": st.column_config.NumberColumn("Sent so far (MB)", format="%.2f"),
    "accepted": st.column_config.NumberColumn("Updates used", format="%d"),
    "rejected": st.column_config.NumberColumn("Rejected", format="%d"),
}


def rounds(reader: Reader, run_id: str) -> pd.DataFrame:
    """The rounds of a run, with the evaluation after each."""
    return frames.rounds_frame(reader.rounds(run_id), reader.evaluations(run_id))


def _estimates(rounds: pd.DataFrame) -> str:
    """Words on the rounds whose figures are estimates from a sample; empty if there are none."""
    notes = [note for note in frames.samples(rounds) if note]
    if not notes:
        return ""
    last = rounds[rounds["examples"].notna()].iloc[-1]
    whole = "; after the last round on all" if last["examples"] == last["test_examples"] else ""
    return f" (estimates{notes[-1]}{whole})"


@st.fragment
def show(source: Source, run: Any) -> None:
    """Curves of accuracy and loss over the chosen axis, and the slowest device of each round."""
    with source.explained() as reader:
        frame = rounds(reader, run.id)
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
        estimates = _estimates(frame)
        stands = standing(run, reader.references(run.id))
        references = {REFERENCE_WORDS[name].capitalize(): value for name, value in stands.references.items()}
        left, right = st.columns(2, gap="large")
        with left:
            widgets.chart(
                "Accuracy",
                curves.accuracy(frame, axis, counted, references),
                f"The pruned global model on the {run.evaluated_on} split{estimates}, and the mean of the devices' own "
                "pruned models. Round 0 is the untuned model; lines across are what the run is judged by.",
            )
        with right:
            widgets.chart(
                "Loss",
                curves.loss(frame, axis),
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
            shares = ("accuracy", "device_accuracy_mean", "sparsity")
            shown = frame.assign(**{name: 100 * frame[name] for name in shares}).iloc[::-1]
            columns = {name: shape for name, shape in _COLUMNS.items() if name != "examples" or estimates}
            widgets.table(shown, f"rounds of {run.id}", columns, "Table of rounds, newest first", whole=frame)
