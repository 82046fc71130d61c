"""Who hosts what: a fleet of real nodes, on a grid in this process."""

from collections.abc import Iterable

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from slimfed.clients.messages.machine import Machine
from slimfed.clients.messages.records import encode_host
from slimfed.strategies import roster as roster_module
from slimfed.strategies.local_grid import LocalGrid
from slimfed.strategies.roster import Roster
from slimfed.strategies.transport import StopRequestedError
from slimfed.strategies.where import parse_where


class Nodes(LocalGrid):
    """Nodes that answer a query with what ``hosted`` says of them; one that is not in it stays silent."""

    def __init__(self, hosted: dict[int, RecordDict]) -> None:
        super().__init__(0)
        self.hosted = hosted
        self.questions = 0
        self.looks = 0

    def get_node_ids(self) -> Iterable[int]:
        self.looks += 1
        return list(self.hosted)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = []
        for message_id in list(message_ids):
            message, _ = self._sent.pop(message_id)
            self.questions += 1
            replies.append(Message(self.hosted[message.metadata.dst_node_id], reply_to=message))
        return replies


def hosting(**devices: int | None) -> Nodes:
    return Nodes({int(name.removeprefix("n")): encode_host(device) for name, device in devices.items()})


def gather(roster: Roster, grid: Nodes, needed: int = 1, deadline: float = 0.0) -> list[str]:
    return [event.kind for event in roster.gather(grid, 1, needed, deadline, lambda: False)]


def test_every_node_is_asked_once_and_the_whole_fleet_does_not_wait() -> None:
    roster, grid = Roster(3), hosting(n11=2, n12=0, n13=1)
    assert gather(roster, grid, deadline=60.0) == []
    assert roster.hosts == {0: 12, 1: 13, 2: 11}
    assert gather(roster, grid, deadline=60.0) == []
    assert grid.questions == 3


def test_a_node_that_joins_later_brings_its_device() -> None:
    roster, grid = Roster(2), hosting(n11=0)
    gather(roster, grid)
    assert roster.hosts == {0: 11}
    grid.hosted[12] = encode_host(1)
    gather(roster, grid)
    assert roster.hosts == {0: 11, 1: 12}


def test_a_node_that_leaves_takes_its_device_along_and_brings_it_back() -> None:
    roster, grid = Roster(2), hosting(n11=0, n12=1)
    gather(roster, grid)
    kept = grid.hosted.pop(12)
    gather(roster, grid)
    assert roster.hosts == {0: 11}
    grid.hosted[12] = kept
    gather(roster, grid)
    assert roster.hosts == {0: 11, 1: 12}


def test_a_device_that_stays_away_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster_module, "_LATECOMERS_SECONDS", 0.2)
    monkeypatch.setattr(roster_module, "_POLL_SECONDS", 0.05)
    roster, grid = Roster(3), hosting(n11=0, n12=1)
    looks = []
    for _round in range(2):
        gather(roster, grid, deadline=60.0)
        looks.append(grid.looks)
    assert looks[0] > 2
    assert looks[1] == looks[0] + 1
    del grid.hosted[12]
    gather(roster, grid, deadline=60.0)
    assert grid.looks > looks[1] + 2, "one that was there is waited for"


class Time:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Deaf(Nodes):
    """Nodes of which some are asked and do not answer. A look at the nodes takes a second."""

    def __init__(self, hosted: dict[int, RecordDict], deaf: set[int], clock: Time) -> None:
        super().__init__(hosted)
        self.deaf, self.clock = deaf, clock
        self.asked: list[int] = []

    def get_node_ids(self) -> Iterable[int]:
        self.clock.seconds += 1.0
        return super().get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        self.asked += [message.metadata.dst_node_id for message in messages]
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        heard = [each for each in message_ids if self._sent[each][0].metadata.dst_node_id not in self.deaf]
        return super().pull_messages(heard)


def test_a_node_that_never_says_whom_it_hosts_is_asked_once_named_and_costs_one_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(roster_module.time, "sleep", lambda _seconds: None)
    clock = Time()
    grid = Deaf({11: encode_host(0), 12: encode_host(1), 13: encode_host(2)}, {13}, clock)
    roster, waits, events = Roster(3, clock), [], []
    for number in range(1, 6):
        began = clock.seconds
        events += roster.gather(grid, number, 2, 600.0, lambda: False)
        waits.append(clock.seconds - began)
        assert roster.hosts == {0: 11, 1: 12}, "the others go on"
    assert grid.asked == [11, 12, 13]
    assert waits[0] <= 62, "a new node gets a minute to answer, once"
    assert max(waits[1:]) <= 1, "later rounds do not wait"
    [event] = events
    assert (event.kind, event.round) == ("silent-node", 1)
    assert "node 13 has not said within 60 s which device it hosts" in event.cause
    clock.seconds += 1800.0
    roster.gather(grid, 6, 2, 600.0, lambda: False)
    assert grid.asked == [11, 12, 13, 13], "asked again, seldom"
    grid.deaf.clear()
    assert roster.gather(grid, 7, 2, 600.0, lambda: False) == []
    assert roster.hosts == {0: 11, 1: 12, 2: 13}


def test_an_answer_that_comes_late_counts_when_it_comes() -> None:
    clock = Time()
    grid = Deaf({11: encode_host(0), 12: encode_host(1)}, {12}, clock)
    roster = Roster(2, clock)
    roster.gather(grid, 1, 1, 0.0, lambda: False)
    assert roster.hosts == {0: 11}
    grid.deaf.clear()
    roster.gather(grid, 2, 1, 0.0, lambda: False)
    assert roster.hosts == {0: 11, 1: 12}
    assert grid.asked == [11, 12]


def test_nobody_takes_over_the_device_of_a_node_that_is_away() -> None:
    roster, grid = Roster(2), hosting(n11=0, n12=1)
    gather(roster, grid)
    del grid.hosted[12]
    grid.hosted[13] = encode_host(1)
    assert gather(roster, grid) == ["device-claimed"]
    assert roster.hosts == {0: 11}


def test_of_two_that_claim_a_device_at_once_neither_is_believed() -> None:
    roster, grid = Roster(2), hosting(n11=0, n12=0, n13=1)
    (event,) = roster.gather(grid, 4, 1, 0.0, lambda: False)
    assert (event.kind, event.round, event.device) == ("device-claimed", 4, 0)
    assert "nodes 11, 12" in event.cause
    assert roster.hosts == {1: 13}


@pytest.mark.parametrize(
    "answer",
    [
        encode_host(None),
        encode_host(7),
        RecordDict(),
        RecordDict({"host": encode_host(1)["host"].__class__({"device": "1"})}),
        RecordDict({"host": encode_host(1)["host"].__class__({"device": -1})}),
    ],
)
def test_a_node_without_a_device_of_this_fleet_is_named_and_given_nothing(answer: RecordDict) -> None:
    roster = Roster(2)
    assert gather(roster, Nodes({11: answer})) == ["foreign-node"]
    assert roster.hosts == {}


def test_waiting_for_a_fleet_ends_when_somebody_asks_for_a_stop() -> None:
    with pytest.raises(StopRequestedError):
        Roster(2).gather(hosting(n11=0), 1, 2, 60.0, lambda: True)


def test_a_filter_leaves_devices_out_by_what_their_nodes_tell() -> None:
    """A node of an older version tells nothing of its machine, so that no comparison of it holds."""
    wide, small = Machine(16.0, 8, ("lab",)), Machine(4.0, 2)
    told = {11: encode_host(0, wide), 12: encode_host(1, small), 13: encode_host(2), 14: encode_host(3, wide)}
    roster, grid = Roster(4, where=parse_where('memory_gib >= 8 and "lab" in tags')), Nodes(told)
    events = roster.gather(grid, 1, 2, 60.0, lambda: False)
    assert roster.hosts == {0: 11, 3: 14}
    assert roster.refused == {1, 2}
    assert [(event.kind, event.device) for event in events] == [("filtered", 1), ("filtered", 2)]
    assert "it tells memory_gib = 4, cores = 2, tags = none" in events[0].cause
    assert "it tells nothing" in events[1].cause
    assert gather(roster, grid, 2, 60.0) == [], "told once, and not waited for"


def test_a_node_that_lies_about_the_form_of_its_machine_hosts_nothing() -> None:
    odd = encode_host(0, Machine(16.0, 8))
    odd["host"] = ConfigRecord({"device": 0, "memory_gib": float("inf"), "tags": ["fine"]})
    long = encode_host(1, Machine(16.0, 8, ("x" * 61,)))
    assert gather(Roster(3), Nodes({11: odd, 12: long})) == ["foreign-node", "foreign-node"]
