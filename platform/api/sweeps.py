"""Several runs: sweeps over combinations of values, and comparisons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimfed.clients.errors import InputError, SlimfedError
from slimfed.platform.api import local_runtime
from slimfed.platform.api.jobs import JobSource, Settings, load_job, tables
from slimfed.platform.api.results import RunResult, place
from slimfed.platform.api.runs import Runtime, check_runtime
from slimfed.platform.comparison.as_json import comparison_as_json
from slimfed.platform.comparison.course import QUALITIES
from slimfed.platform.comparison.report import Comparison, choose_target, load_courses
from slimfed.platform.comparison.report import compare as compare_courses
from slimfed.platform.comparison.verdict import in_words
from slimfed.platform.home import store_url
from slimfed.platform.job.overrides import merge
from slimfed.platform.lineage import with_parents
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store
from slimfed.platform.sweep import expand_jobs

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ComparedRuns:
    """Runs and their comparison; runs that differ in their seed only are one group."""

    runs: tuple[RunResult, ...]
    comparison: Comparison

    @property
    def groups(self) -> "pd.DataFrame":
        """A row a group: means over its seeds, of quality, sparsity, peak memory, and the costs of the target."""
        import pandas as pd  # here: as in ``results``

        rows = [
            {
                "group": result.group.name,
                "runs": len(result.group.courses),
                "final": result.final.mean,
                "best": result.best.mean,
                "sparsity": result.sparsity.mean,
                "peak_memory_bytes": result.memory.mean,
                "slower_than_fastest": result.slower,
            }
            | {f"{cost}_to_target": price.mean for cost, price in result.prices.items()}
            for result in self.comparison.groups
        ]
        return pd.DataFrame(rows).set_index("group")

    @property
    def verdict(self) -> str | None:
        """Who leads, by how much, and whether that is more than noise, in words; None for a single group."""
        found = self.comparison.verdict
        return None if found is None else in_words(found, self.comparison.quality, self.comparison.target)

    def to_dict(self) -> dict[str, Any]:
        """The object of ``slimfed compare --json``, with the value of every run behind each mean."""
        return comparison_as_json(self.comparison)

    def _repr_html_(self) -> str:
        """The groups, for notebooks."""
        return str(self.groups.to_html())


def sweep(
    job: JobSource = None,
    values: Mapping[str, Sequence[Any]] | None = None,
    *,
    set: Settings = (),
    seeds: int = 1,
    name: str | None = None,
    parallel: int = 1,
    runtime: Runtime = "flower",
    metric: str = "accuracy",
    target: float | None = None,
    home: str | Path | None = None,
) -> ComparedRuns:
    """Run all combinations of ``values``, such as ``{"method.target_sparsity": [0.3, 0.5]}``, and compare them.

    Each combination runs with ``seeds`` seeds, counted up from the job's, ``parallel`` runs at once. When repeated, a
    sweep of the same ``name`` (default: the job's) reuses finished runs, resumes stopped ones, and starts missing ones.
    ``runtime`` as in :func:`slimfed.run`; "local" computes one run at a time. ``metric`` and ``target`` as in
    :func:`compare`. Raises ``InputError`` before the first run starts if any combination cannot run, and
    ``SlimfedError`` if no run ended as "done".
    """
    from slimfed.platform.launch.batch import run_batch  # brings torch

    _check_metric(metric)
    check_runtime(runtime)
    if runtime == "local" and parallel > 1:
        raise InputError(f"parallel = {parallel}: runtime = 'local' computes one run at a time; use parallel = 1")
    axes = {field: list(choices) for field, choices in (values or {}).items()}
    if "seed" in axes and seeds > 1:
        raise InputError("seeds: values of seed are given already; give one of the two")
    common = tables(set)
    planned = expand_jobs(lambda chosen: load_job(job, merge(common, tables(chosen))), axes, seeds, name)
    where = place(home)
    variants = with_parents(planned.variants, where)
    if runtime == "local":
        result = run_batch(variants, parallel, planned.name, where, local_runtime.compute)
    else:
        result = run_batch(variants, parallel, planned.name, where)
    if not result.run_ids:
        raise SlimfedError(f"sweep {planned.name!r}: no run ended as done; slimfed.open_store().runs has their causes")
    return _compared(result.run_ids, metric, target, where, store_url(planned.variants[0].job))


def compare(
    *runs: RunResult | str,
    metric: str = "accuracy",
    target: float | None = None,
    home: str | Path | None = None,
) -> ComparedRuns:
    """Compare ``runs`` (results, ids, beginnings of ids, or "last").

    ``metric``: accuracy, device_accuracy_mean, macro_f1, exact_match, rouge_l or bleu. ``target``: the quality to
    reach, in [0, 1]; default: 90% of the best of the runs. Raises ``InputError`` for unknown runs, or none.
    """
    _check_metric(metric)
    known = [run for run in runs if isinstance(run, RunResult)]
    where = known[0].home if known and home is None else place(home)
    url = known[0].store if known else store_url()
    return _compared([run.id if isinstance(run, RunResult) else run for run in runs], metric, target, where, url)


def _compared(ids: Sequence[str], metric: str, target: float | None, home: Path, url: str) -> ComparedRuns:
    quality = next(each for each in QUALITIES if each == metric)
    with Store.open(url, home) as store:
        courses = load_courses(Reader(store.engine), ids, quality)
        comparison = compare_courses(courses, quality, choose_target(courses, target))
    return ComparedRuns(tuple(RunResult.read(course.run_id, home, url) for course in courses), comparison)


def _check_metric(metric: str) -> None:
    if metric not in QUALITIES:
        raise InputError(f"metric = {metric!r}: must be one of {', '.join(QUALITIES)}")
