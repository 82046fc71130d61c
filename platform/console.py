"""The consoles: results on standard output, remarks and progress on standard error. Both print text as it is."""

from typing import Any

from rich.console import Console
from rich.text import Text

from slimfed.clients.plain_text import clean_lines


class PlainConsole(Console):
    """A console for text of jobs and nodes: square brackets are no markup, and control characters are not sent.

    Every string goes through :meth:`render_str`, those in cells and titles of tables, too.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """The text without markup, and without characters that a terminal obeys."""
        return super().render_str(clean_lines(text), **{**options, "markup": False, "emoji": False})


def notes() -> PlainConsole:
    """Console for progress and remarks."""
    return PlainConsole(stderr=True)
