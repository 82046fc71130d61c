"""What can be wrong with a plug-in."""

from pathlib import Path

from slimfed.platform.fleet.profiles import ProfileFile

WRONG = ProfileFile(Path("no-such-folder/wrong.toml"))


class NotAnAggregation:
    """Of no kind that slimfed knows."""
