"""Options and arguments that several commands share."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="print JSON")]


def run_ids(incomplete: str) -> list[tuple[str, str]]:
    """The newest runs whose ids begin so, with their names, for the completion of shells; empty without a store."""
    from sqlalchemy.exc import SQLAlchemyError

    from slimfed.clients.errors import InputError
    from slimfed.platform.store.errors import StoreError
    from slimfed.platform.store.reader import Reader
    from slimfed.platform.stores import existing

    try:
        with existing() as store:
            found = [(row.id, f"{row.name}, {row.status}") for row in Reader(store.engine).runs(_COMPLETED)]
    except (InputError, StoreError, SQLAlchemyError, OSError):  # a shell asks at every key: it gets no error
        return []
    return [each for each in [("last", "the newest run"), *found] if each[0].startswith(incomplete)]


_COMPLETED = 200

RunId = Annotated[str, typer.Argument(help="id of a run, beginning of an id, or last", autocompletion=run_ids)]
