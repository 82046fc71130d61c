"""Who will take part in the rounds of a job, and how long they last, before it runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from slimfed.platform.fleet.admission import admitted
from slimfed.platform.fleet.availability import load_availability
from slimfed.platform.fleet.profiles import Fleet
from slimfed.platform.job.job import Job
from slimfed.strategies.selection import SELECTORS, Answer, Call


@dataclass(frozen=True)
class Course:
    """``seconds``: virtual ones of all rounds, with waits for devices. ``participants``: devices of each round."""

    seconds: float
    participants: tuple[int, ...]


def expected_course(job: Job, fleet: Fleet, round_seconds: Callable[[Sequence[int], int], float]) -> Course:
    """The rounds of a job. ``round_seconds``: how long a round of these devices lasts, by its number.

    Who takes part is computed as in the run, except that a selection which goes by losses or times, which are not known
    here, counts as a random one. After the last opening of the devices' availability nobody takes part.
    """
    may = admitted(fleet, job.fleet.where)
    every = np.arange(len(fleet.devices)) if may is None else np.array(may)
    windows = load_availability(job.fleet.availability, len(fleet.devices), job.seed)
    named = SELECTORS[job.fleet.selection]
    kind = named if named.independent_of_text else SELECTORS["random"]
    selector = kind(job.fleet.wanted, job.seed, len(fleet.devices))
    clock, participants, count = 0.0, [], job.fleet.wanted.count(len(every))
    for number in range(1, job.training.rounds + 1):
        there = every if windows is None else np.intersect1d(every, windows.at(clock))
        if windows is not None and not there.size:
            clock = windows.next_opening(clock, every) or clock
            there = np.intersect1d(every, windows.at(clock))
        if count < len(there):
            there = np.sort(selector.select(Call(number, there, count, np.full(len(there), np.nan))))
        devices = there.tolist()
        selector.observe(number, [Answer(device, False, np.nan, 0, np.nan) for device in devices])
        participants.append(len(devices))
        clock += round_seconds(devices, number) if devices else 0.0
    return Course(clock, tuple(participants))
