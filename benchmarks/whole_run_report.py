"""The tables of whole_run.py, from what it has measured."""

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from machine import words

SERVER_PATH = ("plan", "encode", "judge", "decode", "reward", "aggregate")
"""Phases in which the server works on the round's messages and updates, and no node can work for it."""
RECORDING = ("checkpoint", "store")


def table(results: Mapping[str, Any]) -> str:
    """Markdown: a row a run, then the phases of its rounds, then on what each was measured."""
    runs = list(results["runs"].values())
    heads = ("run", "devices x steps x batch", "start-up, s", "s a round", "server path", "recording")
    heads += ("server, GB", "workers together, GB", "largest worker, GB", "on GPUs, GB", "whole run, s")
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    lines += [_row(number, run) for number, run in enumerate(runs, 1)]
    lines += ["", *_phases(runs), ""]
    lines += [f"{number}. {_footnote(run)}" for number, run in enumerate(runs, 1)]
    return "\n".join(lines)


def seconds_a_round(run: Mapping[str, Any]) -> float:
    """Median over the rounds between the first and the last."""
    return median(run["round_seconds"])


def share(run: Mapping[str, Any], phases: Iterable[str]) -> float:
    """Share of a round that these phases of the server take."""
    return sum(run["server"].get(name, 0.0) for name in phases) / seconds_a_round(run)


def _row(number: int, run: Mapping[str, Any]) -> str:
    did, memory = run["options"], run["memory"]
    beside = [name for name, yes in (("dashboard", did["dashboard"]), ("evaluation", did["evaluate"])) if yes]
    title = run["title"] + (f", with {' and '.join(beside)}" if beside else "")
    cells = [str(number), title, f"{did['devices']} x {did['steps']} x {did['batch']}"]
    cells += [f"{run['startup_seconds']:.1f}", f"**{seconds_a_round(run):.2f}**", f"{share(run, SERVER_PATH):.1%}"]
    cells += [f"{share(run, RECORDING):.1%}"]
    cells += [_gigabytes(memory.get(role)) for role in ("server", "workers", "largest worker", "gpu")]
    return "| " + " | ".join([*cells, f"{run['whole_seconds']:.0f}"]) + " |"


def _phases(runs: list[Mapping[str, Any]]) -> list[str]:
    """A row a phase, a column a run: milliseconds a round."""
    lines = ["| phase, ms a round | " + " | ".join(str(n) for n in range(1, len(runs) + 1)) + " |"]
    lines += ["|---" * (len(runs) + 1) + "|"]
    for side, title in (("server", "server"), ("nodes", "all nodes")):
        for name in dict.fromkeys(name for run in runs for name in run[side]):
            cells = [f"{1000 * run[side][name]:,.1f}" if name in run[side] else "-" for run in runs]
            lines.append(f"| {title}: {name} | " + " | ".join(cells) + " |")
    rest = [seconds_a_round(run) - sum(run["server"].values()) for run in runs]
    return [*lines, "| server: between phases and rounds | " + " | ".join(f"{1000 * s:,.1f}" for s in rest) + " |"]


def _footnote(run: Mapping[str, Any]) -> str:
    did = run["options"]
    text = f"{words(run)}; seed {did['seed']}, rank {did['rank']}, texts of up to {did['length']} tokens, "
    text += f"{did['rounds'] - 1} of {did['rounds'] + 1} rounds counted, the first took "
    text += f"{run['first_round_seconds']:.1f} s. "
    if run["memory"]["gpu counted"]:
        text += f"GPU memory {run['memory']['gpu counted']}. "
    if "visits" in run:
        seen = run["visits"]
        drawn = f"{len(seen['seconds'])} times, {median(seen['seconds']):.2f} s each, {len(seen['errors'])} failures"
        text += f"The dashboard drew {seen['page']} {drawn}. "
    return text + "slimfed chose: " + "; ".join(run["engine"])


def _gigabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e9:.2f}"
