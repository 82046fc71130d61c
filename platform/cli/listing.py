"""``runs`` and ``show``: the runs of the store."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from slimfed.platform.cli.options import Json, RunId
from slimfed.platform.cli.output import describe_measures, print_json, print_table, results
from slimfed.platform.console import notes
from slimfed.platform.format import energy, percent, sampled, seconds, size
from slimfed.platform.participation import asks_part, part_of_fleet, took_part
from slimfed.platform.round_closing import rounds_close, waits_for_all
from slimfed.platform.standing import REFERENCE_WORDS
from slimfed.platform.under_way import state_of, under_way

_RUN_COLUMNS = {
    "id": "run",
    "name": "name",
    "status": "status",
    "rounds": "rounds>",
    "devices": "devices>",
    "accuracy": "accuracy>",
    "own": "devices' accuracy>",
    "sparsity": "devices' sparsity>",
    "virtual": "virtual time>",
    "wall": "wall time>",
}
_ROUND_COLUMNS = {
    "round": "round>",
    "accuracy": "accuracy>",
    "texts": "on test texts>",
    "own": "devices' accuracy>",
    "loss": "train loss>",
    "sparsity": "sparsity>",
    "devices": "devices' sparsity>",
    "virtual": "virtual time>",
    "wall": "wall time>",
    "asked": "took part>",
    "accepted": "accepted>",
    "late": "late (mean rounds)>",
    "in_flight": "in flight>",
    "rejected": "rejected>",
    "slowest": "slowest device>",
}
_EVENTS_SHOWN = 20


def runs(
    as_json: Json = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="number of runs, newest first; default: 50, with --json all")
    ] = None,
) -> None:
    """List the runs, newest first."""
    from slimfed.platform.home import looked_for_runs
    from slimfed.platform.launch.liveness import settle
    from slimfed.platform.store.reader import Reader
    from slimfed.platform.stores import reading
    from slimfed.platform.summary import run_summaries

    with reading() as store:
        if store and store.writable:
            settle(store)
        reader = Reader(store.engine) if store else None
        rows = reader.runs(limit=limit or (None if as_json else 50)) if reader else []
        if as_json:
            print_json(run_summaries(rows, reader, store.address) if reader and store else [])
        elif not rows:
            where = looked_for_runs() if store is None or store.address.startswith("sqlite") else store.address
            notes().print(f"no runs in {where}; `slimfed run` starts one", markup=False, soft_wrap=True)
        else:
            progress = reader.progress([row.id for row in rows if row.status == "running"]) if reader else {}
            print_table("Runs", _RUN_COLUMNS, [_run_row(row, progress.get(row.id)) for row in rows])


def show(run: RunId, as_json: Json = False) -> None:
    """Show one run: its figures, its rounds and its latest events."""
    from slimfed.platform.store.reader import Reader
    from slimfed.platform.stores import existing
    from slimfed.platform.summary import counts, measures, run_summaries

    with existing() as store:
        reader = Reader(store.engine)
        found = reader.find_run(run)
        summary = run_summaries([found], reader, store.address)[0]
        progress = reader.progress([found.id]).get(found.id)
        rounds, events = reader.rounds(found.id), reader.events(found.id, limit=None if as_json else _EVENTS_SHOWN)
        evaluations = {row.round: row for row in reader.evaluations(found.id)}
        references = reader.references(found.id)
        accuracies = {number: row.accuracy for number, row in evaluations.items()}
    if as_json:
        detail = {
            "name": found.name,
            "cause": found.cause,
            "folder": found.folder,
            "job": found.job,
            "round_list": [
                _plain(row)
                | {"accuracy": accuracies.get(row.round)}
                | measures(found.task, evaluations.get(row.round))
                | counts(evaluations.get(row.round))
                for row in rounds
            ],
            "events": [_plain(row) for row in events],
            "references": [reference_as_json(row) for row in references],
            "held_out": next((row.held_out for row in evaluations.values() if row.held_out), None),
        }
        print_json(summary | detail)
        return
    print_summary(found, summary, references, rounds[-1].global_sparsity if rounds else None, progress)
    sampled_rounds = any(_note(row) for row in evaluations.values())
    partial = any(row.asked is not None and row.asked < found.devices for row in rounds)
    waits = waits_for_all(found.job)
    left_out = {"texts": not sampled_rounds, "asked": not partial, "late": waits, "in_flight": waits}
    columns = {key: title for key, title in _ROUND_COLUMNS.items() if not left_out.get(key)}
    first = [_base_row(evaluations[0])] if 0 in evaluations else []
    print_table(
        "Rounds", columns, [*first, *(_round_row(row, evaluations.get(row.round), found.devices) for row in rounds)]
    )
    if events:
        columns = {"round": "round>", "device": "device>", "kind": "event", "cause": "cause", "remedy": "what to do"}
        print_table("Latest events", columns, [_event_row(row) for row in events])


def print_summary(
    run: Any,
    summary: dict[str, Any],
    references: Sequence[Any] = (),
    global_sparsity: float | None = None,
    progress: Any = None,
) -> None:
    """Print the figures of one run, one in a line; with its ``progress`` (a row) what it is doing at this moment.

    ``references``: the runs of reference that were made of it. ``global_sparsity``: that of the global model after the
    last round.
    """
    from slimfed.platform.standing import standing
    from slimfed.platform.summary import measures

    stands = standing(run, references)
    held_out = run.evaluated_on == "validation"
    lines = {
        "run": f"{run.id} ({run.name}, {run.method})",
        "status": state_of(run, progress) + (f": {run.cause}" if run.cause else ""),
        **({} if progress is None else {"now": under_way(run, progress).describe()}),
        "rounds": ", ".join(
            filter(
                None,
                (
                    f"{run.rounds_done} of {run.rounds}",
                    part_of_fleet(run.job, run.devices),
                    rounds_close(run.job),
                ),
            )
        ),
        "accuracy": f"{_of_sample(run)} global model, {percent(run.device_accuracy_mean)} {_whose(run)}",
        **({"points": stands.beside} if stands.beside else {}),
        **({"test file": f"{percent(run.held_out_accuracy)} global model, after the last round"} if held_out else {}),
        "measures": describe_measures(measures(run.task, run)) or "-",
        "sparsity": f"{percent(global_sparsity)} global model, {percent(run.sparsity)} devices (mean), "
        f"target {percent(run.target_sparsity)}",
        "virtual time": seconds(run.virtual_seconds),
        "wall time": f"{seconds(run.wall_seconds)}, {seconds(summary['seconds_per_round'])} a round",
        "traffic": f"{size(run.bytes_up)} received, {size(run.bytes_down)} sent",
        **({} if run.epsilon is None else {"privacy": f"epsilon {run.epsilon:.3g} spent"}),
        "energy": "not known" if run.joules is None else f"{energy(run.joules)} (estimate)",
        "rejected": f"{run.rejected_updates} updates",
        "store": summary["store"],
        "folder": run.folder,
    }
    if summary["sweep"]:
        lines["sweep"] = summary["sweep"]
    if run.reference_of:
        lines["reference"] = f"{REFERENCE_WORDS.get(run.reference, run.reference)}, for run {run.reference_of}"
    for name, run_id in stands.runs.items():
        lines[f"{name} run"] = run_id
    console = results()
    width = max(len(name) for name in lines)
    for name, text in lines.items():
        console.print(f"{name:<{width}}  {text}", soft_wrap=True, markup=False)


def _run_row(run: Any, progress: Any = None) -> dict[str, str]:
    return {
        "id": run.id,
        "name": run.name,
        "status": state_of(run, progress),
        "rounds": f"{run.rounds_done}/{run.rounds}",
        "devices": str(run.devices),
        "accuracy": percent(run.accuracy),
        "own": percent(run.device_accuracy_mean),
        "sparsity": percent(run.sparsity),
        "virtual": seconds(run.virtual_seconds),
        "wall": seconds(run.wall_seconds),
    }


def _whose(run: Any) -> str:
    """Of which devices the mean of the devices' own accuracies is."""
    return "devices of the last round (mean)" if asks_part(run.job) else "devices (mean)"


def _of_sample(run: Any) -> str:
    """The accuracy, and on which texts if not on all test texts: ``81.2% (on 500 of 1,821 test texts)``."""
    note = _note(run)
    if run.evaluated_on == "validation":
        note = note.replace("test texts", "validation texts") or "on the validation file"
    return f"{percent(run.accuracy)} ({note})" if note else percent(run.accuracy)


def _note(row: Any) -> str:
    """On how many test texts a row of ``runs`` or ``evaluations`` stands; empty if on all."""
    return sampled(getattr(row, "examples", None), getattr(row, "test_examples", None))


def _round_row(row: Any, evaluation: Any, devices: int) -> dict[str, str]:
    return {
        "round": str(row.round),
        "accuracy": percent(getattr(evaluation, "accuracy", None)),
        "texts": "-" if evaluation is None else f"{evaluation.examples:,}",
        "own": percent(row.device_accuracy_mean),
        "loss": "-" if row.train_loss is None else f"{row.train_loss:.3f}",
        "sparsity": percent(row.global_sparsity),
        "devices": percent(row.sparsity),
        "virtual": seconds(row.virtual_seconds),
        "wall": seconds(row.wall_seconds),
        "asked": took_part(row.asked, devices),
        "accepted": str(row.accepted),
        "late": "-" if row.staleness is None else f"{row.late} ({row.staleness:.2f})",
        "in_flight": "-" if row.in_flight is None else str(row.in_flight),
        "rejected": str(row.rejected),
        "slowest": "-" if row.slowest_device is None else str(row.slowest_device),
    }


def _base_row(evaluation: Any) -> dict[str, str]:
    """Round 0: the untuned model."""
    return {"round": "0", "accuracy": percent(evaluation.accuracy), "texts": f"{evaluation.examples:,}"}


def reference_as_json(row: Any) -> dict[str, Any]:
    """A run of reference for JSON."""
    figure = row.device_accuracy_mean if row.reference == "local" else row.accuracy
    return {"reference": row.reference, "run_id": row.id, "status": row.status, "accuracy": figure}


def _event_row(row: Any) -> dict[str, str]:
    device = "-" if row.device is None else str(row.device)
    return {"round": str(row.round), "device": device, "kind": row.kind, "cause": row.cause, "remedy": row.remedy}


def _plain(row: Any) -> dict[str, Any]:
    """A row for JSON: without the run's id, times in ISO 8601."""
    return {
        name: value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in row._asdict().items()
        if name != "run_id"
    }
