"""``compose``: the sum of the weight changes of two runs."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from slimfed.clients.errors import InputError
from slimfed.platform.cli.options import Json, RunId
from slimfed.platform.cli.output import print_json, print_table
from slimfed.platform.console import notes
from slimfed.platform.format import percent, size


def compose(
    first: RunId,
    second: RunId,
    out: Annotated[Path, typer.Option(help="folder to create")],
    as_json: Json = False,
) -> None:
    """Add the weight changes of two runs on the same base; task, head and structure are those of the first run."""
    if out.exists():
        raise InputError(f"--out = {str(out)!r}: exists already; name another folder, or remove it")
    from slimfed.platform.compose import compose as write
    from slimfed.platform.export import Exporter
    from slimfed.platform.store.reader import Reader
    from slimfed.platform.stores import existing

    with existing() as store:
        runs = [Reader(store.engine).find_run(run) for run in (first, second)]
    with notes().status("opening the runs"):
        one, other = (Exporter(run, {}) for run in runs)
    with notes().status("writing the sum"):
        composed = write(one, other, out)
    if as_json:
        print_json({**asdict(composed), "folder": str(composed.folder)})
        return
    row = {
        "runs": " + ".join(composed.runs),
        "sparsity": percent(composed.sparsity),
        "size": size(composed.bytes),
        "folder": str(composed.folder),
    }
    print_table("Composed", {"runs": "runs", "sparsity": "sparsity>", "size": "size>", "folder": "folder"}, [row])
