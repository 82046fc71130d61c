import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfed.platform import format


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


@pytest.mark.parametrize(("joules", "written"), [(812, "812 J"), (3_400, "3.4 kJ"), (1.2e6, "1.2 MJ"), (None, "–")])
def test_energy(joules, written):
    assert format.energy(joules) == written


@pytest.mark.parametrize(
    ("examples", "whole", "written"),
    [(500, 1821, "on 500 of 1,821 test texts"), (9, 9, ""), (None, 9, ""), (9, None, ""), (9, float("nan"), "")],
)
def test_only_figures_of_a_sample_say_on_what_they_stand(examples, whole, written):
    assert format.sampled(examples, whole) == written
