"""Progress of a run in a notebook: one cell output that is updated, without widgets."""

from html import escape
from types import TracebackType
from typing import Any

from slimfed.platform.launch.progress import Snapshot


def open_notebook_display() -> "NotebookDisplay | None":
    """The display of a notebook; None if this process is no notebook's kernel."""
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    shell = get_ipython()
    return NotebookDisplay() if shell is not None and hasattr(shell, "kernel") else None


class NotebookDisplay:
    """A bar with the figures of the last round, in the cell that runs."""

    def __init__(self) -> None:
        from IPython.display import HTML, display

        self._html: Any = HTML
        self._display: Any = display
        self._handle: Any = None
        self._shown = ""

    def __enter__(self) -> "NotebookDisplay":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def show(self, snapshot: Snapshot) -> None:
        """Update the bar if anything has changed."""
        text = bar(snapshot)
        if text == self._shown:
            return
        self._shown = text
        if self._handle is None:
            self._handle = self._display(self._html(text), display_id=True)
        else:
            self._handle.update(self._html(text))


def bar(snapshot: Snapshot) -> str:
    """A snapshot as HTML."""
    current = snapshot.current
    doing = "round" if snapshot.state == "running" else snapshot.state
    parts = [*(current.details() if current else ()), *([snapshot.describe()] if snapshot.rounds_done else ())]
    figures = f" {'; '.join(parts)}" if parts else ""
    done = current.share * snapshot.rounds if current else snapshot.rounds_done
    return (
        f'<progress value="{done:g}" max="{snapshot.rounds}"></progress> '
        f"{escape(doing)} {snapshot.rounds_done}/{snapshot.rounds}{escape(figures)}"
    )
