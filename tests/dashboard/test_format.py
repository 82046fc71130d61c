import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfed.dashboard import format


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0.00 s"),
        (0.42, "0.42 s"),
        (12.34, "12.3 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (192, "3 min 12 s"),
        (3599.6, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (3 * 86400 + 4 * 3600, "3 d 4 h"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_seconds(value, written):
    assert format.seconds(value) == written


@given(st.floats(min_value=0, max_value=1e9))
def test_seconds_never_show_sixty_of_a_smaller_unit(value):
    written = format.seconds(value)
    assert not re.search(r"(?<![.\d])(60(\.0)? s|60 min|24 h)", written)


@pytest.mark.parametrize(
    ("value", "written"), [(0, "0 B"), (912, "912 B"), (3_400_000, "3.4 MB"), (999_700, "1.0 MB"), (None, "–")]
)
def test_sizes(value, written):
    assert format.size(value) == written


@given(st.integers(min_value=0, max_value=10**15))
def test_sizes_stay_short(count):
    assert len(format.size(count)) <= len("999.9 MB")


def test_shares_and_counts():
    assert format.percent(0.8712) == "87.1%"
    assert format.percent(None) == format.percent(float("nan")) == "–"
    assert format.plural(1, "round") == "1 round"
    assert format.plural(10_000, "device") == "10,000 devices"


def test_times_are_told_in_the_readers_zone_whether_or_not_the_store_kept_theirs():
    berlin = ZoneInfo("Europe/Berlin")
    with_zone = datetime(2025, 7, 1, 12, 0, tzinfo=UTC)
    assert format.clock(with_zone, berlin) == format.clock(with_zone.replace(tzinfo=None), berlin) == "2025-07-01 14:00"
    assert format.clock(None) == "–"


def test_silence_is_noticed_only_after_a_while():
    now = datetime(2025, 7, 1, tzinfo=UTC)
    assert format.silent_for(None, now) is None
    assert format.silent_for(now - timedelta(seconds=format.SILENCE_SECONDS - 1), now) is None
    assert format.silent_for(now - timedelta(seconds=900), now) == 900


def test_text_of_others_cannot_become_markup():
    assert format.plain("a_b *c* [x](y) :red[z]") == r"a\_b \*c\* \[x\]\(y\) \:red\[z\]"
    assert format.code("a`b\nc") == "a'b c"
