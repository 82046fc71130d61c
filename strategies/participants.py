"""Who takes part in a round: of the devices that may be asked, those that are available, or a selection of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flwr.serverapp import Grid

from slimfed.clients.errors import SlimfedError
from slimfed.strategies.protocols import DeviceRecord, Event
from slimfed.strategies.round_state import RunContext
from slimfed.strategies.selection import Answer, Call
from slimfed.strategies.server_state import Fleet

_AWAY = "the run continues from its last finished round when it is resumed"


class NobodyAvailableError(SlimfedError, RuntimeError):
    """No device is available for a round, and none will be within the deadline."""


@dataclass(frozen=True)
class Participants:
    """The devices of a round. ``devices``: ascending. ``available``: how many of the fleet could have been asked.

    ``share``: of the devices that may be asked, how many a round wants: how often each can expect to take part.
    ``waited_seconds``: virtual seconds before the round in which nobody was available. ``events``: to be recorded.
    """

    devices: tuple[int, ...]
    available: int
    share: float = 1.0
    waited_seconds: float = 0.0
    events: tuple[Event, ...] = ()


def expected_participants(context: RunContext, fleet: Fleet) -> int:
    """How many devices a round wants to ask, before it is known who is available."""
    wanted = min(context.settings.participation.count(_eligible(context, fleet)), len(fleet.devices))
    return max(0, wanted - len(fleet.in_flight))


def choose_participants(context: RunContext, fleet: Fleet, number: int, grid: Grid) -> Participants:
    """The devices that round ``number`` asks. The fleet's state does not change.

    Devices that are still at work are not asked again, and count among those that a round wants at work.
    A simulated fleet without available device waits on the virtual clock for the next one; real nodes are waited for
    until the deadline of replies. Raises :class:`NobodyAvailableError` if there is nobody then, and
    ``StopRequestedError``.
    """
    settings = context.settings
    if context.roster is not None and not (settings.participation.everyone and not settings.filtered):
        candidates, waited, events = _present(context, number, grid)
    else:
        candidates, waited, events = *_available(context, fleet, number), []
    eligible = _eligible(context, fleet)
    wanted = max(0, settings.participation.count(eligible) - len(fleet.in_flight))
    if len(candidates) < wanted and not settings.participation.everyone:
        cause = f"{len(candidates)} of {eligible} devices are available, {wanted} were to take part"
        events.append(Event(number, "few-available", cause, "none needed; the round goes on with those"))
    chosen = _selected(context, fleet, number, candidates, wanted)
    return Participants(
        tuple(chosen.tolist()), len(candidates), settings.participation.share(eligible), waited, tuple(events)
    )


def observe_answers(fleet: Fleet, number: int, records: Sequence[DeviceRecord]) -> None:
    """Tell the fleet's selection what came of the devices whose work ended in round ``number``."""
    if fleet.selector is not None:
        fleet.selector.observe(number, [_answer(record) for record in records if record.status != "in-flight"])


def _answer(record: DeviceRecord) -> Answer:
    device, report, completion = record.assignment.device, record.report, record.completion
    if report is None or completion is None:
        return Answer(device, False, math.nan, 0, math.nan)
    return Answer(device, True, report.loss_before, report.examples, completion.seconds)


def _eligible(context: RunContext, fleet: Fleet) -> int:
    """Number of devices that may be asked at all; of real nodes that have not answered it is not known yet."""
    if context.roster is not None:
        return max(1, len(fleet.devices) - len(context.roster.refused))
    return len(fleet.devices) if context.admitted is None else len(context.admitted)


def _available(context: RunContext, fleet: Fleet, number: int) -> tuple[np.ndarray, float]:
    """Devices that may be asked and are available, int64 ascending, and the seconds until there is one."""
    every = np.arange(len(fleet.devices)) if context.admitted is None else np.array(sorted(context.admitted))
    every = np.setdiff1d(every, np.array([each.device for each in fleet.in_flight], dtype=np.int64))
    if context.availability is None:
        return every, 0.0
    now = fleet.virtual_clock
    there = np.intersect1d(every, context.availability.at(now))
    if there.size or fleet.in_flight:
        return there, 0.0
    opening = context.availability.next_opening(now, every)
    if opening is None:
        raise NobodyAvailableError(
            f"round {number}: no device is available at virtual second {now:.1f} or later; give fleet.availability "
            f"longer windows, or fewer rounds; {_AWAY}"
        )
    return np.intersect1d(every, context.availability.at(opening)), opening - now


def _present(context: RunContext, number: int, grid: Grid) -> tuple[np.ndarray, float, list[Event]]:
    """The devices of the real nodes that are connected and may be asked, and the events on wrong answers."""
    settings, roster, stop = context.settings, context.roster, context.recorder.stop_requested
    assert roster is not None
    events = roster.gather(grid, number, 1, settings.reply_seconds, stop)
    if not roster.hosts:
        for event in events:
            context.recorder.event(event)
        raise NobodyAvailableError(
            f"round {number}: no device that may be asked came within {settings.reply_seconds:.0f} s; start nodes, or "
            f"change fleet.where or deadlines.reply_seconds; {_AWAY}"
        )
    return np.array(sorted(roster.hosts)), 0.0, events


def _selected(context: RunContext, fleet: Fleet, number: int, candidates: np.ndarray, count: int) -> np.ndarray:
    """``count`` of the candidates by the fleet's selection, ascending; all of them if there are no more."""
    if count == 0:
        return candidates[:0]
    if fleet.selector is None or len(candidates) <= count:
        return candidates
    known = context.examples or {}
    examples = np.array([known.get(device, math.nan) for device in candidates.tolist()], dtype=np.float64)
    chosen = np.unique(fleet.selector.select(Call(number, candidates, count, examples)))
    if len(chosen) != count or not np.isin(chosen, candidates).all():
        raise ValueError(f"fleet.selection: chose {len(chosen)} devices of those that are available, not {count}")
    return chosen
