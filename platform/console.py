"""Where remarks and progress go: standard error, so that standard output holds results alone."""

from rich.console import Console


def notes() -> Console:
    """Console for progress and remarks."""
    return Console(stderr=True, highlight=False)
