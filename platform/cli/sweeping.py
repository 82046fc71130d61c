"""``sweep`` and ``compare``: several runs, and their comparison."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from slimfed.clients.errors import InputError
from slimfed.platform.cli.output import print_json
from slimfed.platform.console import notes
from slimfed.platform.exit_codes import INTERRUPTED, OK

if TYPE_CHECKING:
    from slimfed.platform.comparison.course import Cost, Quality
    from slimfed.platform.comparison.paper import Paper
    from slimfed.platform.comparison.report import Comparison
    from slimfed.platform.store.reader import Reader

Known = TypeVar("Known", bound=str)

Json = Annotated[bool, typer.Option("--json", help="print one JSON object")]
Parallel = Annotated[int, typer.Option(min=1, help="number of runs at once; they share the processors")]
Seeds = Annotated[int, typer.Option(min=1, help="number of seeds for every combination, starting at the job's seed")]
Target = Annotated[
    float | None, typer.Option(min=0.0, max=1.0, help="quality to reach; default: 90% of the best run's")
]
Reference = Annotated[
    str | None,
    typer.Option(metavar="RUN", help="set the target to 90% of the best quality of this run, such as an unpruned one"),
]
Sparsity = Annotated[float, typer.Option(min=0.0, max=1.0, help="least sparsity of a model that reaches the target")]
Metric = Annotated[
    str, typer.Option(help="quality: accuracy, device_accuracy_mean, macro_f1, exact_match, rouge_l or bleu")
]
Seconds = Annotated[float | None, typer.Option(min=0.0, help="also show the quality after this many virtual seconds")]
Bytes = Annotated[
    float | None, typer.Option(min=0.0, help="also show the quality after this many bytes, sent in both directions")
]
Memory = Annotated[
    float | None,
    typer.Option(min=0.0, help="also show the quality while every device needs at most this many bytes of memory"),
]
Regret = Annotated[
    bool, typer.Option("--regret", help="also compare agents, seed by seed, with the best fixed choice in hindsight")
]
Chart = Annotated[
    Path | None, typer.Option(metavar="FILE", help="write a chart to this .svg, .png, .pdf or .html file")
]


@dataclass(frozen=True)
class View:
    """Options of a comparison and of its output.

    ``target`` is a quality and ``sparsity`` a share in [0, 1]; ``budgets`` in seconds or bytes. ``paper`` and
    ``latex``: figures and a table to write for a paper.
    """

    quality: "Quality"
    target: float | None
    reference: str | None
    sparsity: float
    budgets: "dict[Cost, float]"
    regret: bool
    chart: Path | None
    as_json: bool
    paper: "Paper | None" = None
    latex: Path | None = None


def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="runs (ids, beginnings of ids, last), or job files, whose missing runs are run first"),
    ] = None,
    sweep: Annotated[str | None, typer.Option(help="compare all runs of the sweep of this name")] = None,
    target: Target = None,
    reference: Reference = None,
    min_sparsity: Sparsity = 0.0,
    metric: Metric = "accuracy",
    budget_seconds: Seconds = None,
    budget_bytes: Bytes = None,
    budget_memory: Memory = None,
    seeds: Seeds = 1,
    parallel: Parallel = 1,
    regret: Regret = False,
    chart: Chart = None,
    figure: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="write a figure for a paper: accuracy, cost or pareto; repeatable"),
    ] = None,
    size: Annotated[str, typer.Option(help="with --figure: width of a column or a page")] = "column",
    dpi: Annotated[int, typer.Option(min=50, max=2400, help="with --figure: dots an inch of .png files")] = 300,
    format: Annotated[str, typer.Option(help="with --figure: pdf, svg or png")] = "pdf",
    latex: Annotated[Path | None, typer.Option(metavar="FILE", help="write the table as LaTeX to this file")] = None,
    as_json: Json = False,
) -> None:
    """Compare runs: cost of a target, quality within a budget, robustness to disturbances.

    Runs that differ only in their seed form one group. A job file stands for its finished runs; missing runs are run
    first.
    """
    from slimfed.platform.store.reader import Reader
    from slimfed.platform.stores import existing
    from slimfed.platform.sweep import sweep_name

    budgets = budget_seconds, budget_bytes, budget_memory
    view = _view(metric, target, reference, min_sparsity, budgets, regret, chart, as_json)
    view = replace(view, paper=_paper(figure or [], size, dpi, format), latex=latex)
    files = [Path(each) for each in runs or [] if each.endswith(".toml")]
    ids = [each for each in runs or [] if not each.endswith(".toml")]
    if not ids and not files and sweep is None:
        raise InputError("compare: name runs, job files or a --sweep")
    code, made = _run_files(files, seeds, parallel)
    if code == INTERRUPTED:
        raise typer.Exit(code)
    with existing() as store:
        reader = Reader(store.engine)
        named = None if sweep is None else sweep_name(sweep)
        swept = [row.id for row in reversed(reader.runs(limit=None, sweep=named))] if named is not None else []
        if sweep is not None and not swept:
            raise InputError(f"--sweep {sweep!r}: no run belongs to it; `slimfed runs` lists the runs")
        _show(reader, [*swept, *ids, *made], view)
    raise typer.Exit(code)


def sweep(
    job: Annotated[Path | None, typer.Argument(help="job file; default: the built-in demo with 80 devices")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FIELD=VALUE,VALUE", help="values of a field; all combinations are run; repeatable"
        ),
    ] = None,
    seeds: Seeds = 1,
    name: Annotated[str | None, typer.Option(help="name of the sweep; default: the name of the job")] = None,
    parallel: Parallel = 1,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="also run every job that prunes with this criterion, such as random"),
    ] = None,
    target: Target = None,
    reference: Reference = None,
    min_sparsity: Sparsity = 0.0,
    metric: Metric = "accuracy",
    budget_seconds: Seconds = None,
    budget_bytes: Bytes = None,
    budget_memory: Memory = None,
    regret: Regret = False,
    chart: Chart = None,
    search: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="optuna: choose the runs by the results so far, from values and ranges (field=low..high, or "
            "field=log:low..high)",
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="with --search: number of runs; default: 20")] = None,
    end_early: Annotated[
        bool | None,
        typer.Option(
            "--end-early/--full-runs", help="with --search: stop runs below the median of those before (the default)"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run all combinations of the given values, or search for the best ones, and compare the runs.

    All jobs are checked before the first run starts. When repeated, the command reuses finished runs, resumes stopped
    ones, and starts missing ones.
    """
    searching = {"--trials": trials, "--end-early/--full-runs": end_early}
    if search is not None:
        from slimfed.platform.cli.searching import SearchOptions, run_search

        options = SearchOptions(search, trials, end_early, metric, parallel, name, as_json)
        judged = (target, reference, min_sparsity or None, budget_seconds, budget_bytes, budget_memory, chart)
        if seeds > 1 or regret or any(each is not None for each in judged):
            raise InputError(
                "--search: takes --set, --trials, --end-early, --metric, --parallel, --name and --json; seeds and "
                "comparisons come after it, with `slimfed sweep --seeds` and `slimfed compare --sweep`"
            )
        raise typer.Exit(run_search(job, sets or [], options))
    if given := [option for option, value in searching.items() if value is not None]:
        raise InputError(f"{given[0]}: belongs to --search optuna")
    from slimfed.platform.home import home
    from slimfed.platform.launch.batch import run_batch
    from slimfed.platform.lineage import with_parents
    from slimfed.platform.store.reader import Reader
    from slimfed.platform.stores import existing
    from slimfed.platform.sweep import expand, with_baseline

    budgets = budget_seconds, budget_bytes, budget_memory
    view = _view(metric, target, reference, min_sparsity, budgets, regret, chart, as_json)
    planned = expand(job, sets or [], seeds, name)
    if baseline is not None:
        planned = with_baseline(planned, baseline)
    result = run_batch(with_parents(planned.variants, home()), parallel, planned.name)
    if result.code != INTERRUPTED and result.run_ids:
        with existing(planned.variants[0].job) as store:
            _show(Reader(store.engine), result.run_ids, view)
    raise typer.Exit(result.code)


def _run_files(files: Sequence[Path], seeds: int, parallel: int) -> tuple[int, tuple[str, ...]]:
    """Run the missing runs of job files; returns the exit code and the ids of all their runs."""
    if not files:
        return OK, ()
    from slimfed.platform.home import home
    from slimfed.platform.launch.batch import run_batch
    from slimfed.platform.lineage import with_parents
    from slimfed.platform.sweep import check_different, expand

    variants = [variant for file in files for variant in expand(file, [], seeds).variants]
    check_different(variants)
    result = run_batch(with_parents(variants, home()), parallel)
    return result.code, result.run_ids


def _view(
    metric: str,
    target: float | None,
    reference: str | None,
    sparsity: float,
    limits: tuple[float | None, float | None, float | None],
    regret: bool,
    chart: Path | None,
    as_json: bool,
) -> View:
    """The options as a :class:`View`. Raises ``InputError`` for invalid ones, before anything is run."""
    from slimfed.platform.comparison.course import BUDGETS, QUALITIES

    quality = next((each for each in QUALITIES if each == metric), None)
    if quality is None:
        raise InputError(f"--metric {metric!r}: must be one of {', '.join(QUALITIES)}")
    if target is not None and reference is not None:
        raise InputError("--target and --reference: give one of the two")
    if chart is not None:
        from slimfed.platform.comparison.chart import check_format

        check_format(chart)
    given = dict(zip(BUDGETS, limits, strict=True))
    budgets = {cost: budget for cost, budget in given.items() if budget is not None}
    return View(quality, target, reference, sparsity, budgets, regret, chart, as_json)


def _paper(kinds: Sequence[str], size: str, dpi: int, format: str) -> "Paper | None":
    """The figures to write; None without any. Raises ``InputError`` for invalid options."""
    if not kinds:
        return None
    from slimfed.platform.comparison.paper import FORMATS, KINDS, SIZES, Paper

    def known(option: str, value: str, valid: Sequence[Known]) -> Known:
        found = next((each for each in valid if each == value), None)
        if found is None:
            raise InputError(f"{option} {value!r}: must be one of {', '.join(valid)}")
        return found

    chosen = tuple(dict.fromkeys(known("--figure", kind, KINDS) for kind in kinds))
    return Paper(chosen, known("--size", size, SIZES), dpi, known("--format", format, FORMATS))


def _write_for_paper(comparison: "Comparison", view: View) -> None:
    """Write the figures and the table that are wanted, and name the files."""
    if view.paper is not None:
        from slimfed.platform.comparison.paper import write_figures

        for path in write_figures(comparison, view.paper):
            notes().print(f"figure: {path}", soft_wrap=True)
    if view.latex is not None:
        from slimfed.platform.comparison.latex import latex_table

        try:
            view.latex.write_text(latex_table(comparison), encoding="utf-8")
        except OSError as error:
            raise InputError(f"--latex {str(view.latex)!r}: cannot be written ({error.strerror})") from None
        notes().print(f"table: {view.latex}", soft_wrap=True)


def _show(reader: "Reader", run_ids: Sequence[str], view: View) -> None:
    from slimfed.platform.cli.comparison import print_comparison
    from slimfed.platform.comparison.as_json import comparison_as_json
    from slimfed.platform.comparison.chart import write_chart
    from slimfed.platform.comparison.report import choose_target, compare, load_courses

    courses = load_courses(reader, run_ids, view.quality)
    named = load_courses(reader, [view.reference], view.quality)[0] if view.reference else None
    if named is not None and named.best is None:
        raise InputError(f"--reference {view.reference!r}: run {named.run_id} has no {view.quality}")
    comparison = compare(courses, view.quality, choose_target(courses, view.target, named, view.sparsity), view.budgets)
    if view.regret and not comparison.regret:
        raise InputError(
            "--regret: needs runs of an agent, and of fixed choices (bandit.name = 'fixed') of the same job that "
            "differ from it in [bandit], training.local_steps and method.name alone"
        )
    if view.chart is not None:
        write_chart(comparison, view.chart)
    if view.as_json:
        print_json(comparison_as_json(comparison))
    else:
        print_comparison(comparison, regret=view.regret)
    if view.chart is not None:
        notes().print(f"chart: {view.chart}", soft_wrap=True)
    _write_for_paper(comparison, view)
