"""A search for the best values of a job, by Optuna."""

from collections.abc import Sequence
from pathlib import Path

from slimfed.clients.errors import InputError
from slimfed.platform.api import local_runtime
from slimfed.platform.api.jobs import JobSource, Settings, load_job, tables
from slimfed.platform.api.results import place
from slimfed.platform.api.runs import Runtime, check_runtime
from slimfed.platform.comparison.course import QUALITIES
from slimfed.platform.job.overrides import merge, parse_sets
from slimfed.platform.search.result import SearchResult


def search(
    job: JobSource = None,
    choose: Sequence[str] = (),
    *,
    set: Settings = (),
    trials: int = 20,
    full_runs: bool = False,
    name: str | None = None,
    parallel: int = 1,
    runtime: Runtime = "flower",
    metric: str = "accuracy",
    home: str | Path | None = None,
) -> SearchResult:
    """Search for the values of ``choose`` that give the highest ``metric`` of the global model after the last round.

    ``choose``: lines such as ``training.learning_rate=log:1e-4..1e-2`` (a range) and ``training.batch_size=4,8,16``.
    The first of the ``trials`` is the job as it is, if the lines hold its values. Runs below the median of those before
    are ended early, unless ``full_runs``. A repeated search of the same ``name`` finds its runs and goes on.
    ``runtime`` and ``home`` as in :func:`slimfed.sweep`. Raises ``InputError`` before the first run starts, and without
    Optuna (``pip install 'slimfed[optuna]'``).
    """
    from slimfed.platform.search.space import read_space
    from slimfed.platform.search.trials import Search  # brings torch
    from slimfed.platform.search.trials import search as run_trials

    quality = next((each for each in QUALITIES if each == metric), None)
    if quality is None:
        raise InputError(f"metric = {metric!r}: must be one of {', '.join(QUALITIES)}")
    check_runtime(runtime)
    if runtime == "local" and parallel > 1:
        raise InputError(f"parallel = {parallel}: runtime = 'local' computes one run at a time; use parallel = 1")
    if trials < 1:
        raise InputError(f"trials = {trials}: must be at least 1")
    common = tables(set)
    space = read_space(lambda lines: load_job(job, merge(common, parse_sets(lines))), choose, trials, name)
    plan = Search(space, trials, quality, parallel, early=not full_runs)
    if runtime == "local":
        plan = Search(space, trials, quality, parallel, early=not full_runs, compute=local_runtime.compute)
    return run_trials(plan, place(home))
