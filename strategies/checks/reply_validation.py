"""From the nodes' replies to the outcome of a round: every device's accepted update, or its status and the cause."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from flwr.app import Message

from slimfed.clients.messages.records import (
    decode_work,
    orders_bytes,
    read_results,
    strangers,
    time_fault,
    update_bytes,
)
from slimfed.clients.plain_text import clean
from slimfed.clients.spec import AdapterSpec
from slimfed.clients.update import Assignment, Failure, Report, Update
from slimfed.strategies.accumulation import Collector, GradedAccumulators
from slimfed.strategies.checks.agreement import UpdateSamples
from slimfed.strategies.checks.claims import CAP, largest_weight, miscounted
from slimfed.strategies.checks.outliers import ALL_GRADES, Grades
from slimfed.strategies.checks.update_checks import Finding, Inspection
from slimfed.strategies.coordinates.global_vector import GlobalVector
from slimfed.strategies.coordinates.places import device_bytes
from slimfed.strategies.planning import Plan
from slimfed.strategies.protocols import Clock, Completion, DeviceRecord, DeviceStatus, Event
from slimfed.strategies.server_state import Fleet


@dataclass(frozen=True)
class RoundOutcome:
    """The result of one attempt at a round: a record for every planned device, in device order, and the events.

    ``agreements``: of accepted updates, by device (``agreement.py``); empty unless the agent learns from them.
    """

    devices: tuple[DeviceRecord, ...]
    events: tuple[Event, ...]
    agreements: Mapping[int, float] = field(default_factory=dict)

    @property
    def accepted(self) -> list[DeviceRecord]:
        """Records of the devices whose update was accepted."""
        return [device for device in self.devices if device.report is not None]

    @property
    def reports(self) -> list[Report]:
        """Reports of the accepted updates, in device order."""
        return [device.report for device in self.devices if device.report is not None]


@dataclass(frozen=True)
class ValidationRules:
    """The job's rules for replies.

    ``straggler_seconds``: deadline for a device's completion, by the clock; None: no deadline. ``adapter``: which ranks
    a device may prune. ``real``: every node is one device, and the server measures the times. ``compare``: refuse
    outliers of the fleet; False under central privacy, where one device's update must not decide on another's.
    ``examples``: known numbers of examples by device; None if only the devices know them.
    """

    straggler_seconds: float | None = None
    adapter: AdapterSpec = field(default_factory=AdapterSpec)
    real: bool = False
    compare: bool = True
    examples: Mapping[int, int] | None = None


@dataclass(frozen=True)
class _Problem:
    """Why a device's update is not accepted: its status, and the event that tells the cause."""

    status: DeviceStatus
    event: Event


@dataclass(frozen=True)
class _Checked:
    """An update that passed its own checks, without its tensors, and its completion by the clock."""

    report: Report
    completion: Completion
    bytes_down: int
    bytes_up: int
    problem: _Problem | None


_NO_RULES = ValidationRules()


class ReplyValidation:
    """Checks the replies of one attempt at a round; an update that is not accepted has no effect.

    Call :meth:`receive` for every reply when it arrives, in any order, then :meth:`finish` once. Updates are not kept:
    accepted ones are added to ``sums``. If the numbers of examples are not known, updates are kept until all claims are
    there, since the median limits their weights. ``space``: the global adapter that was sent. ``samples``: looks at
    accepted updates too.
    """

    def __init__(
        self,
        fleet: Fleet,
        plans: Iterable[Plan],
        clock: Clock,
        sums: GradedAccumulators,
        space: GlobalVector,
        rules: ValidationRules = _NO_RULES,
        samples: UpdateSamples | None = None,
    ) -> None:
        ordered = sorted((plan.assignment for plan in plans), key=lambda assignment: assignment.device)
        self._fleet = fleet
        self._assignments = {assignment.device: assignment for assignment in ordered}
        self._number = ordered[0].round
        self._clock = clock
        self._rules = rules
        self._sums = sums
        self._samples = samples
        grades = Grades.of(ordered, fleet.scores)
        self._inspection = Inspection(self._assignments, space, rules.adapter, grades)
        self._checked: dict[int, _Checked] = {}
        self._held: dict[int, Update] = {}
        self._problems: dict[int, _Problem] = {}
        self._events: list[Event] = []

    def receive(self, reply: Message, given: Collection[int], elapsed: float) -> None:
        """Check a node's reply, received ``elapsed`` seconds after the work for the devices ``given`` was sent.

        Entries for other devices are ignored.
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
        fault = time_fault(reply.content, elapsed)
        if fault is not None:
            remedy = "none needed, times are not believed; check what runs on that node"
            self._events.append(Event(self._number, "node-times", f"node {node}: {fault}", remedy))
        for result in read_results(reply.content, self._fleet.blueprint, given, self._fleet.precision):
            if isinstance(result, Failure):
                self._problems[result.device] = _failed(self._number, result)
            else:
                self._check(result, _Worked(decode_work(reply.content), elapsed) if self._rules.real else None)

    def _check(self, update: Update, measured: "_Worked | None") -> None:
        """Check one update and its time by the clock, and add it to the sums if both are accepted.

        ``measured``: the times of a real device, which replace those that it reports.
        """
        finding = self._miscount(update.report) or self._inspection.inspect(update)
        if finding is not None:
            self._refuse(update.device, finding)
            return
        device, report = update.device, update.report
        if measured is not None:
            report = measured.timed(report)
        bytes_down, bytes_up = self._bytes_down(self._assignments[device]), update_bytes(update, self._fleet.precision)
        completion = self._clock.completion(report, bytes_down, bytes_up)
        problem = _ruled_out(self._assignments[device], completion, self._rules.straggler_seconds)
        self._checked[device] = _Checked(report, completion, bytes_down, bytes_up, problem)
        if problem is None and self._weighs_claims:
            self._held[device] = update
        elif problem is None:
            self._sum(update)
        report.structure.forget()

    @property
    def _weighs_claims(self) -> bool:
        """True if weights are what devices claim; under central privacy all weights are 1."""
        return self._rules.examples is None and self._rules.compare

    def _miscount(self, report: Report) -> Finding | None:
        known = None if self._rules.examples is None else self._rules.examples.get(report.device)
        return None if known is None else miscounted(report.examples, known)

    def _sum(self, update: Update) -> None:
        """Add an accepted update to the sums."""
        self._sums.add(update, self._inspection.grades.both(self._inspection.sizes[update.device]))
        if self._samples is not None:
            self._samples.add(update)

    def _sum_held(self) -> None:
        """Add the updates that were kept, with weights of at most a multiple of the median claim."""
        claims = {device: update.report.examples for device, update in self._held.items()}
        most = largest_weight(claims)
        for device, claimed in sorted(claims.items()):
            update = self._held.pop(device)
            if claimed > most:
                cause = f"claims {claimed} examples, counts as {most}: {CAP} times the median of the fleet"
                remedy = "none needed; if the device has so many texts, give them to several devices"
                self._events.append(Event(self._number, "weight-capped", cause, remedy, device))
                update = update.with_report(examples=most)
                known = self._checked[device]
                self._checked[device] = replace(known, report=replace(known.report, examples=most))
            self._sum(update)

    def _bytes_down(self, assignment: Assignment) -> int:
        fleet = self._fleet
        adapter = device_bytes(fleet.adapter, assignment.structure, assignment.rank, fleet.precision)
        size = orders_bytes(assignment, adapter)
        assignment.structure.forget()
        return size

    def _refuse(self, device: int, finding: Finding) -> None:
        event = Event(self._number, finding.kind, finding.cause, finding.remedy, device)
        if device in self._checked:  # a second update of a device whose first one was accepted
            self._events.append(event)
        else:
            self._problems[device] = _Problem("rejected", event)

    def finish(self, absent: Collection[int] = ()) -> tuple[RoundOutcome, Collector]:
        """After the last reply: the outcome of every device, and what the accepted updates were added to.

        Outliers of the fleet are refused only here. ``absent``: devices that no node hosts at the moment.
        """
        outliers, highest = self._inspection.outliers() if self._rules.compare else ({}, ALL_GRADES)
        for device, finding in outliers.items():
            del self._checked[device]
            self._held.pop(device, None)
            self._refuse(device, finding)
        self._sum_held()
        events = sorted(self._events, key=lambda event: (event.device or 0, event.kind))
        records = []
        for device, assignment in self._assignments.items():
            checked = self._checked.get(device)
            if checked is not None:
                problem = checked.problem
            else:
                problem = self._problems.get(device) or _unanswered(assignment, device in absent)
            records.append(self._record(assignment, checked, problem))
            events += [problem.event] if problem else []
        accepted = [record.assignment.device for record in records if record.report is not None]
        agreements = {} if self._samples is None else self._samples.agreements(accepted)
        return RoundOutcome(tuple(records), tuple(events), agreements), self._sums.merged(highest)

    def _record(self, assignment: Assignment, checked: _Checked | None, problem: _Problem | None) -> DeviceRecord:
        status: DeviceStatus = "done" if problem is None else problem.status
        if checked is None:
            return DeviceRecord(assignment, status, None, None, None, self._bytes_down(assignment), 0)
        completion, report = checked.completion, checked.report if problem is None else None
        bytes_up = 0 if completion.out_of_memory or completion.dropped else checked.bytes_up
        return DeviceRecord(assignment, status, completion, report, None, checked.bytes_down, bytes_up)


@dataclass(frozen=True)
class _Worked:
    """``said``: seconds that a node says it worked; ``elapsed``: seconds from the server's send to its receipt."""

    said: float
    elapsed: float

    def timed(self, report: Report) -> Report:
        """The report with the times that the server measured; the node reports only the part that was its work.

        Its peak memory is the measured one, if the node measured any.
        """
        worked = min(self.said, self.elapsed)
        memory = float(report.measured_memory_bytes) or report.workload.peak_memory_bytes
        workload = replace(report.workload, peak_memory_bytes=memory)
        return replace(report, seconds=worked, link_seconds=self.elapsed - worked, workload=workload)


def _last_line(reason: str | None) -> str:
    """The last line of an error's text, which says what went wrong, without the traceback above it."""
    lines = [line.strip() for line in (reason or "no reason given").splitlines() if line.strip()]
    return clean(lines[-1]) if lines else "no reason given"


def _failed(number: int, failure: Failure) -> _Problem:
    remedy = "the device keeps its state and takes part in the next round; read the node's log if it fails again"
    return _Problem("failed", Event(number, "device-failed", failure.cause, remedy, failure.device))


def _unanswered(assignment: Assignment, absent: bool) -> _Problem:
    if absent:
        remedy = "start its node; it takes part again as soon as it is there"
        return _Problem("failed", Event(assignment.round, "absent", "no node hosts it", remedy, assignment.device))
    remedy = "raise deadlines.reply_seconds if its node needs longer"
    event = Event(assignment.round, "no-reply", "no update came before the deadline", remedy, assignment.device)
    return _Problem("failed", event)


def _ruled_out(assignment: Assignment, completion: Completion, straggler_seconds: float | None) -> _Problem | None:
    """The problem with a device that the clock rules out: out of memory, dropped out, or late; else None."""
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
