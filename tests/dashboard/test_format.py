from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from slimfed.dashboard import format


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
