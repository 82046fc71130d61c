"""When devices are available: the daily wave and files of windows."""

from pathlib import Path

import numpy as np
import pytest

from slimfed.clients.errors import InputError
from slimfed.platform.fleet.availability import daily, load_availability, read_windows

HOUR, DAY = 3600.0, 86_400.0


def trace(folder: Path, *lines: str, head: str = "device,from,until") -> Path:
    path = folder / "trace.csv"
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


def test_a_file_says_who_is_there_and_when_the_next_one_comes(tmp_path: Path) -> None:
    windows = read_windows(trace(tmp_path, "2,0,10", "0,5,20", "2,30,inf"), 4)
    assert windows.at(0.0).tolist() == [2]
    assert windows.at(7.0).tolist() == [0, 2]
    assert windows.at(10.0).tolist() == [0]
    assert windows.at(25.0).tolist() == []
    every = np.arange(4)
    assert windows.next_opening(20.0, every) == 30.0
    assert windows.next_opening(0.0, np.array([0])) == 5.0
    assert windows.next_opening(30.0, every) is None
    assert windows.next_opening(0.0, np.array([1, 3])) is None
    assert windows.at(1e9).tolist() == [2]


def test_the_daily_wave_has_eight_hours_for_each_and_repeats() -> None:
    windows, devices = daily(500, seed=4), np.arange(500)
    minutes = np.arange(0.0, DAY, 60.0)
    there = np.array([np.isin(devices, windows.at(minute)) for minute in minutes])
    np.testing.assert_allclose(there.sum(axis=0) / 60, 8.0, atol=0.05)
    share = there.mean(axis=1)
    assert share[0] > 0.7, "the run begins at midnight, when most are there"
    assert share[(12 * 60)] == 0.0, "and at noon none is"
    for moment in (1.0, 5 * HOUR, 23 * HOUR):
        assert windows.at(moment).tolist() == windows.at(moment + 3 * DAY).tolist()
    assert daily(500, seed=4).starts.tolist() == windows.starts.tolist() != daily(500, seed=5).starts.tolist()


@pytest.mark.parametrize("day", [0, 1, 1000])
def test_at_the_next_opening_somebody_is_there(day: int) -> None:
    windows, every = daily(7, seed=1), np.arange(7)
    noon = day * DAY + 12 * HOUR
    assert windows.at(noon).size == 0
    opening = windows.next_opening(noon, every)
    assert opening is not None
    assert noon < opening < noon + DAY
    assert windows.at(opening).size >= 1
    assert windows.at(opening - 1.0).size == 0


def test_always_is_no_windows() -> None:
    assert load_availability("always", 3, 1) is None


@pytest.mark.parametrize(
    ("lines", "head", "words"),
    [
        (["1,0,5"], "device,start,until", "has no column 'from'; the columns are device, from, until"),
        ([], "device,from,until", "has no line"),
        (["4,0,5"], "device,from,until", "line 2: device = 4: the fleet has devices 0 to 3"),
        (["1.5,0,5"], "device,from,until", "line 2: device = 1.5"),
        (["1,0,5", "1,6,5"], "device,from,until", "line 3: from = 6, until = 5: must be seconds, 0 <= from < until"),
        (["1,-1,5"], "device,from,until", "from = -1"),
        (["1,inf,inf"], "device,from,until", "from = inf"),
        (["1,0"], "device,from,until", "line 2: until = '': must be a number"),
        (["1,noon,5"], "device,from,until", "line 2: from = 'noon': must be a number"),
        (["nan,0,5"], "device,from,until", "device = 'nan': must be a number"),
    ],
)
def test_an_error_names_line_and_column(tmp_path: Path, lines: list[str], head: str, words: str) -> None:
    path = trace(tmp_path, *lines, head=head)
    with pytest.raises(InputError) as caught:
        load_availability(str(path), 4, 1)
    assert words in str(caught.value)
    assert str(caught.value).startswith("fleet.availability = ")


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_availability(str(tmp_path / "none.csv"), 4, 1)
    (tmp_path / "odd.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        load_availability(str(tmp_path / "odd.csv"), 4, 1)
