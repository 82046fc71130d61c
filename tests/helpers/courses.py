"""Courses of made-up runs for tests of the comparison."""

from typing import Any

from slimfed.platform.comparison.course import Course, Point
from slimfed.platform.job.job import job_to_dict, parse_job


def point(round: int, quality: float, scale: float = 1.0) -> Point:
    """Costs grow evenly: 10 virtual and 2 wall seconds, 1000 bytes and 50 joules a round, each times ``scale``."""
    costs = (10.0 * round * scale, 2.0 * round * scale, int(1000 * round * scale), 50.0 * round * scale)
    return Point(round, quality, 0.1 * round, *costs, 10**6 + round)


def course(
    qualities: list[float], run_id: str = "run", seed: int = 1, scale: float = 1.0, status: str = "done", **job: Any
) -> Course:
    """One evaluation a round, of the default job with the sections in ``job`` on top."""
    resolved = job_to_dict(parse_job({"seed": seed, "name": run_id, **job}))
    points = tuple(point(number, quality, scale) for number, quality in enumerate(qualities, 1))
    return Course(run_id, status, seed, resolved, points)
