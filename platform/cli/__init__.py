"""The command line. Commands import heavy packages when they run, so that ``slimfed --help`` is quick."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from slimfed.clients.errors import InputError
from slimfed.clients.plain_text import clean
from slimfed.clients.verbosity import set_verbosity
from slimfed.platform.cli import (
    benching,
    catalogue,
    checking,
    compose,
    dashboard,
    export,
    inference,
    knee,
    listing,
    maintenance,
    publishing,
    pushing,
    reporting,
    running,
    starting,
    sweeping,
    watching,
)
from slimfed.platform.exit_codes import BAD_INPUT, FAILED
from slimfed.platform.store.errors import StoreError


class Commands(TyperGroup):
    """The group of all commands. Prints input errors, one in a line, and exits with code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an ``InputError`` ends it with exit code 2, a store that fails with 1."""
        try:
            return super().invoke(ctx)
        except (InputError, StoreError) as error:
            for line in str(error).splitlines():
                typer.echo(f"error: {clean(line, 5000)}", err=True)
            raise typer.Exit(BAD_INPUT if isinstance(error, InputError) else FAILED) from None


app = typer.Typer(
    name="slimfed",
    cls=Commands,
    help="Fine-tune language models across fleets of unequal devices, and prune the model for each device.",
    epilog="Exit codes: 0 done, 1 failed or stopped run, 2 bad input, 130 stopped by Ctrl-C.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)


def print_version(asked: bool) -> None:
    """Print slimfed's version and exit, if ``asked``."""
    if asked:
        from importlib.metadata import version

        typer.echo(f"slimfed {version('slimfed')}")
        raise typer.Exit


@app.callback()
def common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="log every step to standard error")] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="print the version and exit", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Options that stand before the command."""
    if verbose:
        set_verbosity("debug")


app.command()(starting.init)
app.command()(checking.check)
app.command()(running.run)
app.command()(listing.runs)
app.command()(listing.show)
app.command()(watching.watch)
app.command()(running.stop)
app.command()(running.resume)
app.command()(sweeping.compare)
app.command()(sweeping.sweep)
app.command()(export.export)
app.command()(pushing.push)
app.command()(publishing.publish)
app.command()(reporting.report)
app.command()(publishing.prometheus)
app.command()(compose.compose)
app.command()(inference.predict)
app.command()(inference.evaluate)
app.command()(benching.bench)
app.command()(knee.knee)
app.command()(catalogue.fleet)
app.command()(catalogue.methods)
app.command()(catalogue.families)
app.command()(maintenance.doctor)
app.command()(dashboard.dashboard)
app.add_typer(maintenance.db, name="db")


def main() -> None:
    """Entry point of the ``slimfed`` program."""
    app()
