"""``doctor`` and ``db``: checks of this machine; upgrade, backup and recovery of the store."""

from pathlib import Path
from typing import Annotated

import typer

from slimfed.clients.errors import InputError
from slimfed.platform.cli.options import Json
from slimfed.platform.cli.output import print_json, print_table
from slimfed.platform.console import notes
from slimfed.platform.exit_codes import FAILED

db = typer.Typer(help="Maintain the store.", no_args_is_help=True)


def doctor(as_json: Json = False) -> None:
    """Check this machine, with a remedy for each problem. Exit code 1 if a run would fail."""
    from slimfed.platform.doctor import examine
    from slimfed.platform.home import home

    findings = list(examine(home(), _look_at_store))
    if as_json:
        print_json([finding.as_dict() for finding in findings])
    else:
        columns = {"subject": "what", "level": "", "found": "found", "remedy": "what to do"}
        print_table("Doctor", columns, [finding.as_dict() for finding in findings])
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(FAILED)


@db.command()
def upgrade(
    store: Annotated[
        str | None,
        typer.Option(help="store.url as in a job file; default: SLIMFED_STORE, or else SQLite in SLIMFED_HOME"),
    ] = None,
) -> None:
    """Upgrade the store to the newest revision of its schema."""
    from slimfed.platform.home import home, store_url
    from slimfed.platform.store.writer import upgrade as upgrade_store

    before, after = upgrade_store(store or store_url(), home())
    text = f"the store is up to date ({after})" if before == after else f"upgraded from {before or 'empty'} to {after}"
    notes().print(text)


@db.command()
def backup(
    file: Annotated[Path, typer.Argument(help="file to write; it must not exist")],
) -> None:
    """Copy the SQLite store into a file, complete and consistent also while runs are running.

    Copy the run folders first and the store after them: a run whose store is ahead of its checkpoint can be resumed.
    """
    from slimfed.platform.store.backup import back_up
    from slimfed.platform.stores import existing

    with existing() as store:
        back_up(store, file)
        notes().print(f"{store.address} is copied to {file}", markup=False, soft_wrap=True)


@db.command()
def recover(as_json: Json = False) -> None:
    """Add the runs and rounds that the run folders have and the store lacks; nothing in the store is changed.

    Exit code 1 if a run could not be recovered.
    """
    from slimfed.platform.home import home, store_url
    from slimfed.platform.recovery import recover as recover_runs
    from slimfed.platform.recovery import run_folders
    from slimfed.platform.store.writer import Store

    if not run_folders(home()):
        raise InputError(f"SLIMFED_HOME = {str(home())!r}: has no run folders; name the folder that has them")
    with Store.open(store_url(), home()) as store:
        found = recover_runs(store, home())
    if as_json:
        print_json([each.as_dict() for each in found])
    else:
        columns = {"run": "run", "before": "rounds before>", "after": "rounds now>", "note": ""}
        rows = [
            {name: "-" if value is None else str(value) for name, value in each.as_dict().items()} for each in found
        ]
        print_table("Runs of " + str(home()), columns, rows)
    if any(not each.complete for each in found):
        raise typer.Exit(FAILED)


def _look_at_store() -> str:
    """Address of the store, or a sentence if it does not exist yet. Creates nothing."""
    from slimfed.platform.stores import reading

    with reading() as store:
        return "none yet; the first run makes it" if store is None else store.address
