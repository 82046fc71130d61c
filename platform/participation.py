"""Words on who takes part in the rounds of a run, for the terminal and the dashboard."""

from collections.abc import Mapping
from typing import Any

from slimfed.platform.format import percent, plural
from slimfed.platform.round_closing import waits_for_all


def took_part(asked: int | None, devices: int) -> str:
    """How many of the fleet's ``devices`` took part in a round: ``8 of 80``; all in a run of an older version."""
    return f"{devices if asked is None else asked:,} of {devices:,}"


def asks_part(job: Mapping[str, Any]) -> bool:
    """True if some rounds of a run may do without some of its devices. ``job``: as JSON values."""
    fleet = job.get("fleet", {})
    usual = {"participation": "all", "availability": "always", "where": ""}
    return any(fleet.get(field, value) != value for field, value in usual.items()) or not waits_for_all(job)


def part_of_fleet(job: Mapping[str, Any], devices: int) -> str:
    """The fleet, and what of it takes part in a round: ``80 devices``, ``80 devices, 10% a round (random)``.

    ``job``: the run's, as JSON values; that of an older version has no such fields, and asks all.
    """
    fleet, whole = job.get("fleet", {}), plural(devices, "device")
    amount = fleet.get("participation", "all")
    words = []
    if amount != "all":
        each = percent(amount, 0 if amount >= 0.1 else 1) if isinstance(amount, float) else f"{amount:,}"
        words.append(f"{each} a round ({fleet.get('selection', 'random')})")
    if fleet.get("availability", "always") != "always":
        words.append("when available")
    if fleet.get("where"):
        words.append(f"where {fleet['where']}")
    return ", ".join([whole, *words])
