"""What a language model has written for prompts of the test split, beside their references."""

from typing import Any

import streamlit as st

from slimfed.dashboard import format, widgets
from slimfed.dashboard.source import Source

_BASE = "Round 0: the untuned model"


@st.fragment
def show(source: Source, run: Any) -> None:
    """The samples of a round; of several rounds with samples one is chosen."""
    with source.explained() as reader:
        rounds = reader.sampled_rounds(run.id)
        if not rounds:
            widgets.nothing(_why_not(run))
            return
        number = st.selectbox(
            "After round",
            rounds,
            format_func=lambda each: _BASE if each == 0 else f"Round {each}",
            key="samples of round",
            width=260,
        )
        row = reader.samples(run.id, int(number))
        measured = ", ".join(
            f"{word} {format.percent(value)}"
            for word, value in (("ROUGE-L", row.rouge_l), ("BLEU", row.bleu), ("exact match", row.exact_match))
            if value is not None
        )
        st.caption(
            f"{len(row.samples)} of the {row.generated:,} prompts that the global model completed after this round "
            f"({measured}, over all of them). What it wrote stands beside what the test split has."
        )
        for sample in row.samples:
            _sample(sample)


def _sample(sample: dict[str, Any]) -> None:
    with st.container(border=True):
        st.caption("Prompt")
        st.text(sample["prompt"])
        left, right = st.columns(2, gap="medium")
        with left:
            st.caption("Written")
            st.text(sample["written"] or "(nothing)")
        with right:
            st.caption("Reference" if len(sample["references"]) == 1 else "References")
            for reference in sample["references"]:
                st.text(reference)


def _why_not(run: Any) -> str:
    if run.task != "causal-lm":
        return "A classifier writes no text."
    spec = run.job.get("evaluation", {}).get("generate", {})
    if not spec.get("examples", 0):
        return "The job asks for no completions (evaluation.generate.examples = 0)."
    if run.status == "done":
        return "There are no samples: the text has no prompts, or an older slimfed computed the run."
    return (
        "Prompts, where the text has some, are completed after the last round; evaluation.generate.every asks for more."
    )
