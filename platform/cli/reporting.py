"""``report``: a run as one HTML page."""

import os
from pathlib import Path
from typing import Annotated

import typer

from slimfed.clients.errors import InputError
from slimfed.platform.cli.options import RunId
from slimfed.platform.cli.output import results
from slimfed.platform.console import notes


def report(
    run: RunId,
    out: Annotated[
        Path | None, typer.Option(help="the HTML file to write; default: report-RUN.html in this folder")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace the file if there is one")] = False,
) -> None:
    """Write a run as one HTML page to send to somebody: figures, method, data, structure, how to reproduce it."""
    from slimfed.platform.report.content import gather
    from slimfed.platform.store.dashboard_reader import Insight
    from slimfed.platform.stores import existing

    with existing() as store:
        reader = Insight(store.engine)
        found = reader.find_run(run)
        file = out or Path(f"report-{found.id}.html")
        if file.exists() and not force:
            raise InputError(f"--out = {str(file)!r}: there is such a file already; name another, or give --force")
        with notes().status("writing the report"):
            from slimfed.platform.report.page import page

            text = page(gather(reader, found.id))
    _write(file, text)
    results().print(str(file), markup=False, soft_wrap=True)


def _write(file: Path, text: str) -> None:
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(file)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise InputError(f"--out = {str(file)!r}: cannot be written ({error.strerror})") from None
