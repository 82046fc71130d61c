"""The console for remarks and progress: standard error, so that standard output has only results."""

from rich.console import Console


def notes() -> Console:
    """Console for progress and remarks."""
    return Console(stderr=True, highlight=False)
