"""``knee``: how far a run's model can be pruned at once."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from slimfed.platform.cli.options import Json, RunId
from slimfed.platform.cli.output import print_json, print_table, results
from slimfed.platform.console import notes
from slimfed.platform.format import percent

if TYPE_CHECKING:
    from slimfed.platform.knee import Knees


def knee(
    run: RunId,
    criterion: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="criterion of importance; repeatable; default: the run's, and random"),
    ] = None,
    allocation: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="how sparse each layer becomes; repeatable; default: equal, by the scope"),
    ] = None,
    examples: Annotated[int, typer.Option(min=0, help="texts of the run's test split to measure on; 0: all")] = 500,
    devices: Annotated[int, typer.Option(min=1, help="devices whose training text scores the units")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="batches of each of these devices")] = 10,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="loss of quality that does not count; default: 0.01 of accuracy, 5% of a text's perplexity"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Prune a run's model at once to 10%, 20%, ... 90%, without training after it, and say where its quality falls.

    A run's own `method.target_sparsity` may be higher, since it trains while it prunes.
    """
    from slimfed.platform.export import Exporter
    from slimfed.platform.knee import Question, find_knees
    from slimfed.platform.store.reader import Reader
    from slimfed.platform.stores import existing

    with existing() as store:
        found = Reader(store.engine).find_run(run)
    with notes().status("opening the run") as status:
        exporter = Exporter(found, {})
        criteria = tuple(dict.fromkeys(criterion or [exporter.job.method.importance, "random"]))
        allocations = tuple(dict.fromkeys(allocation or ["equal"]))
        question = Question(criteria, allocations, examples, devices, steps, tolerance)
        knees = find_knees(exporter, question, status.update)
    if as_json:
        print_json(asdict(knees))
        return
    _print(knees)


def _print(knees: "Knees") -> None:
    columns = {"criterion": "criterion"}
    if any(fall.allocation != "equal" for fall in knees.falls):
        columns["allocation"] = "allocation"
    longest = max((fall.sparsities for fall in knees.falls), key=len)
    columns |= {f"{n}": f"{percent(sparsity)}>" for n, sparsity in enumerate(longest)}
    columns |= {"knee": "knee>", "bend": "bend>"}
    print_table(f"{knees.measure.capitalize()} by sparsity, nothing trained after pruning", columns, _rows(knees))
    within = percent(knees.tolerance) if knees.measure == "accuracy" else f"{knees.tolerance:.3f} nats a token"
    results().print(
        f"knee: the largest sparsity within {within} of the first column; bend: the sparsity, "
        "of those between first and last, after which the fall steepens most. "
        f"Measured on {knees.examples} texts of the {knees.split} split.",
        markup=False,
        soft_wrap=True,
    )


def _rows(knees: "Knees") -> list[dict[str, str]]:
    return [
        {
            "criterion": fall.criterion,
            "allocation": fall.allocation,
            **{f"{n}": _shown(knees, value) for n, value in enumerate(fall.qualities)},
            "knee": percent(fall.knee),
            "bend": "-" if fall.bend is None else percent(fall.bend),
        }
        for fall in knees.falls
    ]


def _shown(knees: "Knees", value: float) -> str:
    return percent(value) if knees.measure == "accuracy" else f"{value:.3f}"
