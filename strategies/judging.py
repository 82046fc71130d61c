"""From the nodes' replies to a verdict on every device: an accepted update, or a status and an event with the cause."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from flwr.app import Message

from slimfed.clients.messages import Failure, decode_results, decode_work, orders_bytes, strangers, update_bytes
from slimfed.clients.spec import AdapterSpec
from slimfed.clients.update import Assignment, Update
from slimfed.strategies.aggregation.coordinates import device_bytes
from slimfed.strategies.fitness import find_unfit
from slimfed.strategies.fleet import Fleet
from slimfed.strategies.planning import Plan
from slimfed.strategies.protocols import Clock, Completion, DeviceRecord, DeviceStatus, Event

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
        return [device for device in self.devices if device.update is not None]


@dataclass(frozen=True)
class _Problem:
    """Why a device's part does not count."""

    status: DeviceStatus
    event: Event


def judge(
    fleet: Fleet,
    shares: Mapping[int, Sequence[Plan]],
    replies: Iterable[Message],
    clock: Clock,
    straggler_seconds: float | None,
    elapsed: Mapping[int, float] | None = None,
    adapter: AdapterSpec = _NO_SELF_PRUNING,
) -> Verdict:
    """Decide for every planned device; nothing is learnt from an update that is not accepted.

    ``shares`` says which node was given which devices: only that node may answer for them. ``elapsed``: seconds from
    send to receipt by node, where every node is a real device of its own. ``adapter``: which ranks may be given up.
    """
    plans = sorted((plan for share in shares.values() for plan in share), key=lambda plan: plan.assignment.device)
    number = plans[0].assignment.round
    assignments = {plan.assignment.device: plan.assignment for plan in plans}
    updates, problems, events = _read(fleet, shares, replies, number, elapsed)
    absent = {plan.assignment.device for plan in shares.get(NOBODY, ())}
    unfit = find_unfit(updates, assignments, fleet.adapter, adapter)
    refused = {reason.index for reason in unfit}
    fit = {update.device: update for index, update in enumerate(updates) if index not in refused}
    for reason in unfit:
        event = Event(number, reason.kind, reason.cause, reason.remedy, reason.device)
        if reason.device in fit:  # a second update of a device whose first one counts
            events.append(event)
        else:
            problems[reason.device] = _Problem("rejected", event)
    records = []
    for device, assignment in assignments.items():
        update = fit.get(device)
        problem = None if update is not None else problems.get(device) or _silent(assignment, device in absent)
        completion = None
        bytes_down = orders_bytes(assignment, _adapter_bytes(fleet, assignment))
        bytes_up = 0 if update is None else update_bytes(update, fleet.precision)
        if update is not None:
            completion = clock.completion(update, bytes_down, bytes_up)
            problem = _too_much(assignment, completion, straggler_seconds)
            if completion.out_of_memory or completion.dropped:
                bytes_up = 0
        accepted = update if problem is None else None
        status: DeviceStatus = "done" if problem is None else problem.status
        records.append(DeviceRecord(assignment, status, completion, accepted, None, bytes_down, bytes_up))
        events += [problem.event] if problem else []
    events += [problem.event for device, problem in problems.items() if device not in assignments]
    return Verdict(tuple(records), tuple(events))


def _read(
    fleet: Fleet,
    shares: Mapping[int, Sequence[Plan]],
    replies: Iterable[Message],
    number: int,
    elapsed: Mapping[int, float] | None,
) -> tuple[list[Update], dict[int, _Problem], list[Event]]:
    """Updates as they were sent, problems by device, and events that belong to no device."""
    updates: list[Update] = []
    problems: dict[int, _Problem] = {}
    events: list[Event] = []
    for reply in replies:
        node = reply.metadata.src_node_id
        given = {plan.assignment.device for plan in shares.get(node, ())}
        if reply.has_error():
            cause = f"node {node}: {_last_line(reply.error.reason)} (code {reply.error.code})"
            problems |= {device: _failed(number, Failure(device, cause)) for device in given}
            continue
        foreign = strangers(reply.content, given)
        if foreign:  # one event, however many there are
            others = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            cause = f"node {node} answered for device {foreign[0]}{others}, which it was not given"
            events.append(Event(number, "foreign-device", cause, "check what runs on that node", foreign[0]))
        for result in decode_results(reply.content, fleet.blueprint, given, fleet.precision):
            if isinstance(result, Update):
                updates.append(result if elapsed is None else _timed(result, reply, elapsed[node]))
            else:
                problems[result.device] = _failed(number, result)
    return sorted(updates, key=lambda update: update.device), problems, events


def _adapter_bytes(fleet: Fleet, assignment: Assignment) -> int:
    return device_bytes(fleet.adapter, assignment.structure, assignment.rank, fleet.precision)


def _timed(update: Update, reply: Message, elapsed: float) -> Update:
    """With times that the server measured, as far as it can: only their division into work and link is the node's."""
    worked = min(decode_work(reply.content), elapsed)
    memory = float(update.measured_memory_bytes) or update.workload.peak_memory_bytes
    workload = replace(update.workload, peak_memory_bytes=memory)
    return replace(update, seconds=worked, link_seconds=elapsed - worked, workload=workload)


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
