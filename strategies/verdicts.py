"""From the nodes' replies to a verdict on every device: an accepted update, or a status and an event with the cause."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from flwr.app import Message

from slimfed.clients.messages.records import decode_work, orders_bytes, read_results, strangers, update_bytes
from slimfed.clients.spec import AdapterSpec
from slimfed.clients.update import Assignment, Failure, Report, Update
from slimfed.strategies.accumulation import Harvest, Sieve
from slimfed.strategies.aggregation.coordinates import device_bytes
from slimfed.strategies.planning import Plan
from slimfed.strategies.protocols import Clock, Completion, DeviceRecord, DeviceStatus, Event
from slimfed.strategies.server_state import Fleet
from slimfed.strategies.update_checks import Finding, Grades, Inspection

NOBODY = 0
"""Where the plans of devices are that no node hosts at the moment; no node of Flower's has this id."""

_NO_SELF_PRUNING = AdapterSpec()


@dataclass(frozen=True)
class Verdict:
    """What came of one attempt at a round: a record for every planned device, in order, and the events."""

    devices: tuple[DeviceRecord, ...]
    events: tuple[Event, ...]

    @property
    def accepted(self) -> list[DeviceRecord]:
        """Records of the devices whose update counts."""
        return [device for device in self.devices if device.report is not None]


@dataclass(frozen=True)
class _Problem:
    """Why a device's part does not count."""

    status: DeviceStatus
    event: Event


@dataclass(frozen=True)
class _Result:
    """What is remembered of an update that is fit by itself, and what the clock says of it."""

    report: Report
    completion: Completion
    bytes_down: int
    bytes_up: int
    problem: _Problem | None


class Judge:
    """Decides for every planned device; nothing is learnt from an update that is not accepted.

    Replies are heard as they come, in any order, and their updates are not held: those that count go to the ``sieve``.
    ``adapter``: which ranks may be given up. ``real``: every node is a device of its own, and the server's times count.
    """

    def __init__(
        self,
        fleet: Fleet,
        plans: Iterable[Plan],
        clock: Clock,
        straggler_seconds: float | None,
        sieve: Sieve,
        adapter: AdapterSpec = _NO_SELF_PRUNING,
        *,
        real: bool = False,
    ) -> None:
        ordered = sorted((plan.assignment for plan in plans), key=lambda assignment: assignment.device)
        self._fleet = fleet
        self._assignments = {assignment.device: assignment for assignment in ordered}
        self._number = ordered[0].round
        self._clock = clock
        self._straggler_seconds = straggler_seconds
        self._sieve = sieve
        self._real = real
        grades = Grades.of(ordered, fleet.scores)
        self._inspection = Inspection(self._assignments, fleet.adapter, adapter, grades)
        self._results: dict[int, _Result] = {}
        self._problems: dict[int, _Problem] = {}
        self._events: list[Event] = []

    def hear(self, reply: Message, given: Collection[int], elapsed: float = 0.0) -> None:
        """Take in a node's reply, ``elapsed`` seconds after it was sent the devices ``given``.

        It may answer for no others.
        """
        node = reply.metadata.src_node_id
        if reply.has_error():
            cause = f"node {node}: {_last_line(reply.error.reason)} (code {reply.error.code})"
            self._problems |= {device: _failed(self._number, Failure(device, cause)) for device in given}
            return
        foreign = strangers(reply.content, given)
        if foreign:  # one event, however many there are
            others = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            cause = f"node {node} answered for device {foreign[0]}{others}, which it was not given"
            self._events.append(
                Event(self._number, "foreign-device", cause, "check what runs on that node", foreign[0])
            )
        for result in read_results(reply.content, self._fleet.blueprint, given, self._fleet.precision):
            if isinstance(result, Failure):
                self._problems[result.device] = _failed(self._number, result)
            else:
                self._weigh(_timed(result, reply, elapsed) if self._real else result)

    def _weigh(self, update: Update) -> None:
        """Look at one update and let it go."""
        finding = self._inspection.inspect(update)
        if finding is not None:
            self._refuse(update.device, finding)
            return
        device, report = update.device, update.report
        bytes_down, bytes_up = self._bytes_down(self._assignments[device]), update_bytes(update, self._fleet.precision)
        completion = self._clock.completion(report, bytes_down, bytes_up)
        problem = _too_much(self._assignments[device], completion, self._straggler_seconds)
        self._results[device] = _Result(report, completion, bytes_down, bytes_up, problem)
        if problem is None:
            self._sieve.add(update, self._inspection.grades.both(self._inspection.sizes[device]))
        report.structure.forget()

    def _bytes_down(self, assignment: Assignment) -> int:
        fleet = self._fleet
        adapter = device_bytes(fleet.adapter, assignment.structure, assignment.rank, fleet.precision)
        size = orders_bytes(assignment, adapter)
        assignment.structure.forget()
        return size

    def _refuse(self, device: int, finding: Finding) -> None:
        kind, cause, remedy = finding
        event = Event(self._number, kind, cause, remedy, device)
        if device in self._results:  # a second update of a device whose first one counts
            self._events.append(event)
        else:
            self._problems[device] = _Problem("rejected", event)

    def verdict(self, absent: Collection[int] = ()) -> tuple[Verdict, Harvest]:
        """After the last reply: a word on every device, and what the accepted updates add up to.

        ``absent``: devices that no node hosts at the moment.
        """
        outliers, highest = self._inspection.outliers()
        for device, finding in outliers.items():
            del self._results[device]
            self._refuse(device, finding)
        events = sorted(self._events, key=lambda event: (event.device or 0, event.kind))
        records = []
        for device, assignment in self._assignments.items():
            result = self._results.get(device)
            problem = result.problem if result else self._problems.get(device) or _silent(assignment, device in absent)
            records.append(self._record(assignment, result, problem))
            events += [problem.event] if problem else []
        return Verdict(tuple(records), tuple(events)), self._sieve.passed(highest)

    def _record(self, assignment: Assignment, result: _Result | None, problem: _Problem | None) -> DeviceRecord:
        status: DeviceStatus = "done" if problem is None else problem.status
        if result is None:
            return DeviceRecord(assignment, status, None, None, None, self._bytes_down(assignment), 0)
        completion, report = result.completion, result.report if problem is None else None
        bytes_up = 0 if completion.out_of_memory or completion.dropped else result.bytes_up
        return DeviceRecord(assignment, status, completion, report, None, result.bytes_down, bytes_up)


def _timed(update: Update, reply: Message, elapsed: float) -> Update:
    """With times that the server measured, as far as it can: only their division into work and link is the node's."""
    worked = min(decode_work(reply.content), elapsed)
    report = update.report
    memory = float(report.measured_memory_bytes) or report.workload.peak_memory_bytes
    workload = replace(report.workload, peak_memory_bytes=memory)
    return update.with_report(seconds=worked, link_seconds=elapsed - worked, workload=workload)


def _last_line(reason: str | None) -> str:
    """What went wrong, without the traceback that leads there."""
    lines = [line.strip() for line in (reason or "no reason given").splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def _failed(number: int, failure: Failure) -> _Problem:
    remedy = "the device keeps its state and takes part in the next round; read the node's log if it fails again"
    return _Problem("failed", Event(number, "device-failed", failure.cause, remedy, failure.device))


def _silent(assignment: Assignment, absent: bool) -> _Problem:
    if absent:
        remedy = "start its node; it takes part again as soon as it is there"
        return _Problem("failed", Event(assignment.round, "absent", "no node hosts it", remedy, assignment.device))
    remedy = "raise deadlines.reply_seconds if its node needs longer"
    event = Event(assignment.round, "no-reply", "no update came before the deadline", remedy, assignment.device)
    return _Problem("failed", event)


def _too_much(assignment: Assignment, completion: Completion, straggler_seconds: float | None) -> _Problem | None:
    """What the clock says of a fit update: memory that did not suffice, a lost device, a late one."""
    number, device = assignment.round, assignment.device
    if completion.out_of_memory:
        remedy = "the agent may choose a smaller rank; lower training.batch_size, data.max_length or bandit.ranks"
        cause = "training does not fit the device's memory"
        return _Problem("out-of-memory", Event(number, "out-of-memory", cause, remedy, device))
    if completion.dropped:
        cause, remedy = "the device dropped out of the round", "none needed; it takes part in the next round"
        return _Problem("dropout", Event(number, "dropout", cause, remedy, device))
    if straggler_seconds is not None and completion.seconds > straggler_seconds:
        cause = f"completion took {completion.seconds:.1f} s, the deadline is {straggler_seconds:.1f} s"
        return _Problem("late", Event(number, "late", cause, "raise deadlines.straggler_seconds", device))
    return None
