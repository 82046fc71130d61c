"""The runs of reference of a finished run: its devices alone, and central training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimfed.platform.console import notes
from slimfed.platform.standing import standing

if TYPE_CHECKING:
    from slimfed.platform.launch.launcher import Outcome
    from slimfed.platform.store.writer import Store

References = Annotated[
    bool,
    typer.Option("--references", help="then run what it is judged by: its devices alone, and central training"),
]


def make_references(store: "Store", run_id: str, drive: Any) -> "Outcome | None":
    """Make the missing runs of reference of a run that is done; returns the outcome of the last one, None if all exist.

    ``drive`` computes a created run: ``drive(run_id, folder, sizing)``. After one that does not end no more are made.
    """
    from slimfed.platform.job.job import load_job
    from slimfed.platform.job.references import REFERENCES, reference_job
    from slimfed.platform.launch.preflight import check
    from slimfed.platform.launch.run_creation import create_run
    from slimfed.platform.store.reader import Reader

    reader, ending = Reader(store.engine), None
    found = reader.find_run(run_id)
    folder = Path(found.folder)
    job = load_job(folder / "job.toml")
    examples = sum(row.examples for row in reader.devices(run_id))
    there = {row.reference for row in reader.references(run_id) if row.status == "done"}
    for reference in REFERENCES:
        if reference in there:
            continue
        with notes().status("checking the job of reference"):
            checked = check(reference_job(job, reference, examples))
        notes().print(f"reference: {checked.job.name}", markup=False, soft_wrap=True)
        made, place = create_run(store, folder.parent, checked, reference=(reference, run_id))
        ending = drive(made, place, checked.sizing)
        if ending.status != "done":
            cause = reader.find_run(made).cause
            notes().print(f"reference {made} {ending.status}: {cause}", markup=False, soft_wrap=True)
            return ending
    notes().print(str(standing(found, reader.references(run_id))), markup=False, soft_wrap=True)
    return ending
