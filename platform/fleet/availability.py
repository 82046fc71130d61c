"""When simulated devices are available, on the virtual clock: always, by day, or by a file (``fleet.availability``).

All times are virtual seconds since the run began. A device that is available when a round begins finishes the round.
"""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slimfed.clients.errors import InputError
from slimfed.clients.seeds import derive

ALWAYS, DAILY = "always", "daily"

_DAY = 86_400.0
# The daily wave: a device charges for some hours from an evening hour of its own. The run begins at midnight.
_CHARGES_FROM, _SPREAD, _CHARGES_FOR = 22 * 3600.0, 2 * 3600.0, 8 * 3600.0

_ROUNDING = 1e-6

_COLUMNS = ("device", "from", "until")


@dataclass(frozen=True)
class Windows:
    """Implements ``strategies.protocols.Availability``. Item n says that ``devices[n]`` is available in the seconds
    [``starts[n]``, ``ends[n]``); with a ``period`` all windows lie within it and repeat."""

    devices: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    period: float | None = None

    def at(self, seconds: float) -> np.ndarray:
        """The devices that are available at a virtual second, int64, ascending."""
        now = seconds if self.period is None else seconds % self.period
        # An opening plus whole periods, taken modulo the period, may miss its window by rounding.
        return np.unique(self.devices[(self.starts <= now + _ROUNDING) & (now + _ROUNDING < self.ends)])

    def next_opening(self, seconds: float, devices: np.ndarray) -> float | None:
        """The first virtual second after ``seconds`` at which one of ``devices`` becomes available; None: never."""
        starts = self.starts[np.isin(self.devices, devices)]
        if self.period is None:
            later = starts[starts > seconds]
            return float(later.min()) if later.size else None
        if not starts.size:
            return None
        begun = math.floor(seconds / self.period) * self.period
        every = np.concatenate([begun + starts, begun + self.period + starts])
        return float(every[every > seconds].min())


def load_availability(given: str, devices: int, seed: int) -> Windows | None:
    """The windows of a run's devices; None if they are always available.

    Raises ``InputError`` if ``given`` is a file that cannot be used.
    """
    if given == ALWAYS:
        return None
    return daily(devices, seed) if given == DAILY else read_windows(Path(given).expanduser(), devices)


def daily(devices: int, seed: int) -> Windows:
    """Every device is available for eight hours a day, from an hour of the evening that the seed draws: most from 20 to
    24 o'clock. The run begins at midnight, when most of them are."""
    draw = np.random.default_rng(derive(seed, "availability"))
    starts = (_CHARGES_FROM + _SPREAD * np.clip(draw.standard_normal(devices), -3, 3)) % _DAY
    ends = starts + _CHARGES_FOR
    late = ends > _DAY  # such a window goes on after midnight
    every = np.arange(devices, dtype=np.int64)
    return Windows(
        np.concatenate([every, every[late]]),
        np.concatenate([starts, np.zeros(int(late.sum()))]),
        np.concatenate([np.minimum(ends, _DAY), ends[late] - _DAY]),
        period=_DAY,
    )


def read_windows(path: Path, devices: int) -> Windows:
    """The windows of a CSV file with the columns ``device``, ``from`` and ``until`` (virtual seconds; ``until`` may be
    ``inf``), in any order, any number for a device. A device without a line is never available.

    Raises ``InputError`` that names line and column.
    """
    where = f"fleet.availability = {str(path)!r}"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{where}: has no column {missing[0]!r}; the columns are {', '.join(_COLUMNS)}")
            rows = [_window(row, devices, f"{where}, line {reader.line_num}") for row in reader]
    except OSError as error:
        cause = (error.strerror or "cannot be opened").lower()
        raise InputError(f"{where}: cannot be read ({cause}); give always, daily or a CSV file") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{where}: cannot be read ({error}); give always, daily or a CSV file") from None
    if not rows:
        raise InputError(f"{where}: has no line, so that no device is ever available")
    numbers, starts, ends = zip(*rows, strict=True)
    return Windows(np.array(numbers, dtype=np.int64), np.array(starts), np.array(ends))


def _window(row: dict[str, str], devices: int, where: str) -> tuple[int, float, float]:
    device, start, end = (_number(row.get(name), name, where) for name in _COLUMNS)
    if not device.is_integer() or not 0 <= device < devices:
        raise InputError(f"{where}: device = {device:g}: the fleet has devices 0 to {devices - 1}")
    if not 0 <= start < end or math.isinf(start):
        raise InputError(f"{where}: from = {start:g}, until = {end:g}: must be seconds, 0 <= from < until")
    return int(device), start, end


def _number(text: str | None, name: str, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if math.isnan(value) or (name == "device" and math.isinf(value)):
        raise InputError(f"{where}: {name} = {(text or '')[:40]!r}: must be a number")
    return value
