"""``doctor`` and ``db upgrade``: checks of this machine, and upgrades of the store."""

from typing import Annotated

import typer

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


def _look_at_store() -> str:
    """Address of the store, or a sentence if it does not exist yet. Creates nothing."""
    from slimfed.platform.stores import reading

    with reading() as store:
        return "none yet; the first run makes it" if store is None else store.address
