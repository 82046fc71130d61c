"""``sweep --search``: the search's options, its runs as a table, and what to do with the best one."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from slimfed.clients.errors import InputError
from slimfed.platform.cli.output import print_json, print_table, results
from slimfed.platform.format import percent, points_between

if TYPE_CHECKING:
    from slimfed.platform.search.result import SearchResult, Trial
    from slimfed.platform.search.space import Space

_TRIALS = 20


@dataclass(frozen=True)
class SearchOptions:
    """The options of the command line; None: not given."""

    search: str
    trials: int | None
    early: bool | None
    metric: str
    parallel: int
    name: str | None
    as_json: bool


def run_search(job: Path | None, sets: Sequence[str], options: SearchOptions) -> int:
    """Search, print the result, and return the exit code. Raises ``InputError`` before the first run starts."""
    from slimfed.platform.comparison.course import QUALITIES
    from slimfed.platform.home import home
    from slimfed.platform.job.job import load_job
    from slimfed.platform.search.space import read_space
    from slimfed.platform.search.trials import Search, search

    if options.search != "optuna":
        raise InputError(f"--search {options.search!r}: must be optuna")
    metric = next((each for each in QUALITIES if each == options.metric), None)
    if metric is None:
        raise InputError(f"--metric {options.metric!r}: must be one of {', '.join(QUALITIES)}")
    trials = options.trials or _TRIALS
    space = read_space(partial(load_job, job), sets, trials, options.name)
    found = search(Search(space, trials, metric, options.parallel, options.early is not False), home())
    repeat = _repeated(job, space, found.best)
    if options.as_json:
        print_json(found.to_dict() | {"repeat": repeat})
    else:
        _print(found, space, repeat)
    return found.code


def _print(found: "SearchResult", space: "Space", repeat: str | None) -> None:
    order = sorted(found.trials, key=lambda trial: (trial.state != "done", -(trial.quality or 0.0)))
    columns = {
        "trial": "trial>",
        **{axis.field: axis.field for axis in space.axes},
        "quality": f"{found.metric.replace('_', ' ')}>",
        "rounds": "rounds>",
        "state": "ended",
        "run": "run",
    }
    print_table(f"Search {space.sweep}", columns, [_row(trial) for trial in order])
    for line in _conclusion(found, repeat):
        results().print(line, soft_wrap=True, markup=False, highlight=False)


def _row(trial: "Trial") -> dict[str, str]:
    return {
        "trial": f"{trial.number + 1}",
        **trial.chosen,
        "quality": percent(trial.quality),
        "rounds": f"{trial.rounds}",
        "state": trial.state + (", the job as it is" if trial.own else ""),
        "run": trial.run_id or "",
    }


def _conclusion(found: "SearchResult", repeat: str | None) -> list[str]:
    """The best choice, what it is worth, and the command that repeats it with other seeds."""
    best, own = found.best, found.own
    if best is None or best.quality is None:
        return ["no trial is done, so nothing was found"]
    chosen = "; ".join(f"{field} = {text}" for field, text in best.chosen.items())
    lines = [f"best: {chosen}: {percent(best.quality)}"]
    if own is best:
        lines[0] += ", the job as it is"
    elif own is not None and own.quality is not None:
        lines[0] += f", {points_between(best.quality, own.quality)} the job as it is"
    text = "validation" if found.validation else "test"
    lines.append(
        f"One seed each, and chosen by these same {text} texts, so the best looks better than it is."
        + ("" if found.validation else " A validation file in the folder of the data keeps the test texts for the end.")
    )
    return [*lines, *([f"More seeds tell: {repeat}"] if repeat else [])]


def _repeated(job: Path | None, space: "Space", best: "Trial | None") -> str | None:
    """The command that runs the best choice with five other seeds; None without one."""
    if best is None:
        return None
    settings = [
        *space.fixed,
        *(f"{field}={text}" for field, text in best.chosen.items()),
        f"seed={space.base.seed + 1}",
    ]
    words = ["slimfed", "sweep", *([str(job)] if job else [])]
    for each in settings:
        words += ["--set", each]
    return shlex.join([*words, "--seeds", "5", "--name", f"{space.sweep}-best"])
