"""The table and the figure of cpu_round.py, from what it has measured."""

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from machine import words

FIGURE = Path(__file__).parent / "images" / "cpu-round.svg"
TINY, MINILM = "BERT, 2 layers x 128", "MiniLM-L6 on SST-2"
AIMS = {TINY: 8, MINILM: 3}
PFL_AIM = 8
SIDES = {"peer": "Flower + PEFT", "pfl": "pfl-research", "slimfed": "slimfed"}


class ReportError(ValueError):
    """Results of which no honest table can be made; the text says which and what to do."""


def table(results: Mapping[str, Any]) -> str:
    """Markdown: one row a model. Raises :class:`ReportError` if a run had only one round."""
    models = results["models"]
    pfl = any(entry.get("pfl") for entry in models.values())
    heads = ["model", "Flower + PEFT, s a round", "slimfed, s a round", "times faster", "aim"]
    heads += ["pfl-research, s a round", "times faster than it", "aim"] if pfl else []
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += [_row(name, entry, pfl) for name, entry in models.items()]
    for name, entry in models.items():
        lines += ["", f"{name}: {words(entry)}.{_pfl_words(entry)}{_scaled_words(entry)} slimfed chose:", ""]
        lines += [f"- {reason}" for reason in entry["slimfed"][-1]["engine"]]
    return "\n".join(lines)


def seconds_a_round(name: str, entry: Mapping[str, Any], side: str) -> float:
    """Median over the rounds of all turns without the first of each, which warms up; of all devices.

    Raises :class:`ReportError` if a run had no second round.
    """
    seconds = median(second for run in entry[side] for second in _after_first(name, side, run))
    return seconds if side == "slimfed" else seconds * entry["devices"] / entry["peer_devices"]


def draw(results: Mapping[str, Any]) -> None:
    """Seconds a round of all sides, a group of bars a model."""
    import matplotlib  # only here: a table needs none

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "slimfed"
    models = results["models"]
    sides = [side for side in SIDES if any(entry.get(side) for entry in models.values())]
    figure, axes = pyplot.subplots(figsize=(7, 2.6), layout="constrained")
    for place, side in enumerate(sides):
        measured = [(n, name) for n, name in enumerate(models) if models[name].get(side)]
        seconds = [seconds_a_round(name, models[name], side) for _, name in measured]
        heights = [n + 0.8 / len(sides) * place for n, _ in measured]
        bars = axes.barh(heights, seconds, height=0.76 / len(sides), label=SIDES[side])
        axes.bar_label(bars, fmt="%.1f s", padding=3)
    axes.set_yticks([n + 0.4 - 0.4 / len(sides) for n in range(len(models))], list(models))
    axes.set_xlabel("seconds a round of 80 devices")
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.legend(frameon=False)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})


def _row(name: str, entry: Mapping[str, Any], pfl: bool) -> str:
    ours, theirs = seconds_a_round(name, entry, "slimfed"), seconds_a_round(name, entry, "peer")
    title = name if entry["devices"] == 80 else f"{name} ({entry['devices']} devices)"
    cells = [title, f"{theirs:.1f}", f"**{ours:.2f}**", f"**{theirs / ours:.1f}**", str(AIMS[name])]
    if pfl and entry.get("pfl"):
        other = seconds_a_round(name, entry, "pfl")
        cells += [f"{other:.1f}", f"**{other / ours:.1f}**", str(PFL_AIM)]
    elif pfl:
        cells += ["not measured", "", ""]
    return "| " + " | ".join(cells) + " |"


def _after_first(name: str, side: str, run: Mapping[str, Any]) -> list[float]:
    """Seconds of a run's rounds after the first. pfl-research's script gives only their median."""
    rounds = len(run["seconds"]) if "seconds" in run else run["rounds"]
    if rounds < 2:
        raise ReportError(
            f"{name}: a run of {SIDES[side]} has {rounds} round, and a first round warms up; "
            "measure this model again with at least two"
        )
    return run["seconds"][1:] if "seconds" in run else [run["s_per_round"]]


def _scaled_words(entry: Mapping[str, Any]) -> str:
    """Says so if the peers ran fewer devices than slimfed."""
    if entry["peer_devices"] == entry["devices"]:
        return ""
    return (
        f" Only {entry['peer_devices']} of the {entry['devices']} devices of the peers were run; their seconds were "
        f"scaled by {entry['devices'] / entry['peer_devices']:g}."
    )


def _pfl_words(entry: Mapping[str, Any]) -> str:
    """The versions under which pfl-research ran, which has an environment of its own."""
    versions = entry.get("pfl_versions")
    if not versions:
        return ""
    return " pfl-research ran with " + ", ".join(f"{name} {number}" for name, number in versions.items()) + "."
