"""A round lasts as long as its slowest accepted device, or until the deadline when a device was waited for in vain."""

from dataclasses import replace

import pytest
from round_records import device_record

from slimfed.strategies.checks.reply_validation import RoundOutcome
from slimfed.strategies.closing.times import slowest_seconds

DONE = tuple(device_record(device, seconds=2.0 + device) for device in range(3))
LATE = replace(device_record(3, seconds=50.0), status="late", report=None)


@pytest.mark.parametrize(
    ("devices", "deadline", "seconds"),
    [
        (DONE, None, 4.0),
        (DONE, 9.0, 4.0),
        ((*DONE, LATE), None, 4.0),
        ((*DONE, LATE), 9.0, 9.0),
        ((*DONE, LATE), 3.0, 4.0),
    ],
)
def test_the_slowest_that_counts_or_the_deadline(devices: tuple, deadline: float | None, seconds: float) -> None:
    assert slowest_seconds(RoundOutcome(devices, ()), deadline) == seconds
