"""Tools that follow runs, by name. A new one is one file here, registered with ``TRACKERS``."""

from slimfed.platform.trackers.base import TRACKERS, Destination, Sample, TrackedRun, Tracker, make_tracker, problem_of

__all__ = ["TRACKERS", "Destination", "Sample", "TrackedRun", "Tracker", "make_tracker", "problem_of"]
