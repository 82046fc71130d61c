"""Nodes are sent their parts a few at a time, and what comes back is judged before more is sent."""

from collections import Counter
from collections.abc import Iterable

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from slimfed.strategies.local_grid import LocalGrid
from slimfed.strategies.transport import StopRequestedError, stream_replies


class Desk(LocalGrid):
    """Every node answers its oldest message at each look, but for those that are deaf; answers may come twice."""

    def __init__(self, deaf: tuple[int, ...] = (), twice: bool = False) -> None:
        super().__init__(3)
        self.deaf, self.twice = deaf, twice
        self.outstanding: Counter[int] = Counter()
        self.most = 0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        self.outstanding.update(message.metadata.dst_node_id for message in messages)
        self.most = max(self.most, *self.outstanding.values())
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        wanted, replies, served = set(message_ids), [], set(self.deaf)
        for message_id, (message, _) in list(self._sent.items()):
            node = message.metadata.dst_node_id
            if message_id in wanted and node not in served:
                served.add(node)
                replies += [Message(message.content, reply_to=message) for _ in range(1 + self.twice)]
                self.outstanding[node] -= 1
                del self._sent[message_id]
        return replies


def order(node: int, part: str) -> Message:
    return Message(RecordDict({"part": ConfigRecord({"name": part})}), node, "train")


PARTS = {1: ["a", "b", "c", "d", "e"], 2: ["f"], 3: ["g", "h", "i"]}


def talk(desk: Desk, silence: float = 5.0, stop=lambda: False, **checks) -> list[tuple[str, str]]:
    """What was asked, and what was answered or why not."""
    answers = stream_replies(desk, PARTS, order, silence, stop, **checks)
    return [
        (a.part, a.reply.error.reason if a.reply.has_error() else str(a.reply.content["part"]["name"])) for a in answers
    ]


def test_every_part_is_answered_and_no_node_is_ever_sent_more_than_two() -> None:
    desk = Desk()
    heard = talk(desk)
    assert sorted(heard) == [(name, name) for name in "abcdefghi"]
    assert [part for part, _ in heard if part in PARTS[1]] == PARTS[1], "in order"
    assert desk.most == 2


def test_a_silent_node_is_sent_nothing_more_and_holds_up_nobody() -> None:
    desk = Desk(deaf=(1,))
    assert sorted(talk(desk, silence=0.2)) == [(name, name) for name in "fghi"]
    assert desk.outstanding[1] == 2


def test_an_answer_that_comes_twice_is_heard_twice() -> None:
    assert Counter(talk(Desk(twice=True))) == {(name, name): 2 for name in "abcdefghi"}


def test_what_must_not_pass_is_an_error_in_place_of_the_reply_both_ways() -> None:
    def against(message: Message, part: str) -> str | None:
        back = bool(message.metadata.reply_to_message_id)
        return f"{part} back" if back and part == "h" else f"{part} out" if part in "ab" else None

    desk = Desk()
    expected = {name: name for name in "cdefgi"} | {"a": "a out", "b": "b out", "h": "h back"}
    assert dict(talk(desk, refusal=against)) == expected


def test_a_stop_is_heard_between_answers() -> None:
    with pytest.raises(StopRequestedError):
        talk(Desk(), stop=lambda: True)
