"""Sending a round's messages and waiting for the replies, with a deadline and an ear for a stop request."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from slimfed.clients.errors import SlimfedError

# Short enough to cost no time that counts, long enough not to burden the SuperLink.
_POLL_SECONDS = 0.05
_UNAVAILABLE = (ErrorCode.NODE_UNAVAILABLE, ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE)
# Messages that a node has at a time: one to work on, and the next one.
_AHEAD = 2


@dataclass(frozen=True)
class Replies:
    """What came back, in the order of the node ids, and after how many seconds it was there, by node."""

    replies: list[Message]
    seconds: dict[int, float]


Parcel = TypeVar("Parcel")


@dataclass(frozen=True)
class Answer(Generic[Parcel]):
    """A reply to one parcel of work, and after how many seconds it was there."""

    parcel: Parcel
    reply: Message
    seconds: float


class StopRequestedError(SlimfedError):
    """Somebody asked the run to stop while it was waiting."""


def converse(
    grid: Grid,
    parcels: Mapping[int, Sequence[Parcel]],
    message: Callable[[int, Parcel], Message],
    silence_seconds: float,
    stop_requested: Callable[[], bool],
    cause_against: Callable[[Message, Parcel], str | None] = lambda _message, _parcel: None,
) -> Iterator[Answer[Parcel]]:
    """Send every node its parcels, a few at a time, and yield the replies as they come.

    ``message`` makes the message of a parcel when it is to be sent; so neither messages nor replies pile up. A node
    that is silent for ``silence_seconds`` while it has work is sent nothing more. ``cause_against`` says why a message
    must not pass, either way: then an error with the cause stands in the place of the reply. Raises
    :class:`StopRequestedError` as soon as ``stop_requested`` says so.
    """
    lines = {node: _Line(deque(share)) for node, share in parcels.items()}
    sent: dict[str, tuple[int, Parcel, float]] = {}
    while True:
        now = time.monotonic()
        for node, line in lines.items():
            if line.under_way and now - line.heard > silence_seconds:
                line.waiting.clear()
                line.under_way.clear()
            while line.waiting and len(line.under_way) < _AHEAD:
                parcel = line.waiting.popleft()
                order = message(node, parcel)
                cause = cause_against(order, parcel)
                if cause is not None:
                    yield Answer(parcel, _refusal(order, cause), 0.0)
                    continue
                line.heard = line.heard if line.under_way else time.monotonic()
                for message_id in filter(None, grid.push_messages([order])):
                    sent[message_id] = node, parcel, time.monotonic()
                    line.under_way[message_id] = order
        under_way = {message_id for line in lines.values() for message_id in line.under_way}
        if not under_way:
            return
        fresh = sorted(grid.pull_messages(under_way), key=lambda reply: reply.metadata.src_node_id)
        for reply in fresh:
            message_id = reply.metadata.reply_to_message_id
            node, parcel, began = sent[message_id]
            lines[node].heard = time.monotonic()
            asked = lines[node].under_way.pop(message_id, None)
            if asked is not None:
                reply = _checked(reply, asked, parcel, cause_against)
            yield Answer(parcel, reply, lines[node].heard - began)  # a second one, too: whoever judges shall see it
        if stop_requested():
            raise StopRequestedError
        if not fresh:
            time.sleep(_POLL_SECONDS)


@dataclass
class _Line(Generic[Parcel]):
    """What a node still has to be sent, the messages that it has not answered, and when it last gave a sign of life."""

    waiting: deque[Parcel]
    under_way: dict[str, Message] = field(default_factory=dict)
    heard: float = 0.0


def exchange(
    grid: Grid, messages: Sequence[Message], deadline_seconds: float, stop_requested: Callable[[], bool]
) -> Replies:
    """Push ``messages`` and return the replies that came before the deadline.

    Raises :class:`StopRequestedError` as soon as ``stop_requested`` says so.
    """
    began = time.monotonic()
    deadline = began + deadline_seconds
    seconds: dict[int, float] = {}
    asked = {
        message_id: message
        for message_id, message in zip(grid.push_messages(messages), messages, strict=True)
        if message_id
    }
    waiting = set(asked)
    replies: list[Message] = []
    while waiting and time.monotonic() < deadline:
        fresh = list(grid.pull_messages(waiting))
        waiting -= {reply.metadata.reply_to_message_id for reply in fresh}
        fresh = [_named(reply, asked[reply.metadata.reply_to_message_id]) for reply in fresh]
        replies += fresh
        seconds |= {reply.metadata.src_node_id: time.monotonic() - began for reply in fresh}
        if stop_requested():
            raise StopRequestedError
        if waiting and not fresh:
            time.sleep(_POLL_SECONDS)
    return Replies(sorted(replies, key=lambda reply: reply.metadata.src_node_id), seconds)


def _checked(
    reply: Message, asked: Message, parcel: Parcel, cause_against: Callable[[Message, Parcel], str | None]
) -> Message:
    """The reply in the name of the node that was asked, or an error in its place."""
    reply = _named(reply, asked)
    cause = None if reply.has_error() else cause_against(reply, parcel)
    return reply if cause is None else _refusal(asked, cause)


def _named(reply: Message, asked: Message) -> Message:
    """The reply in the name of the node that was asked: that it has gone, the SuperLink says in its own."""
    if went_away(reply):
        reply.metadata.__dict__["_src_node_id"] = asked.metadata.dst_node_id
    return reply


def _refusal(message: Message, cause: str) -> Message:
    """As if the node that ``message`` is for had replied with an error."""
    return Message(Error(ErrorCode.UNKNOWN, cause), reply_to=message)


def went_away(reply: Message) -> bool:
    """True if no node wrote this, but the SuperLink: the node that was asked is gone, or its answer is."""
    return reply.has_error() and reply.error.code in _UNAVAILABLE


def wait_for_nodes(grid: Grid, count: int, deadline_seconds: float, stop_requested: Callable[[], bool]) -> list[int]:
    """Node ids in ascending order once ``count`` are there. Raises ``TimeoutError`` with the number that came."""
    deadline = time.monotonic() + deadline_seconds
    while True:
        nodes = sorted(grid.get_node_ids())
        if len(nodes) >= count:
            return nodes
        if stop_requested():
            raise StopRequestedError
        if time.monotonic() > deadline:
            raise TimeoutError(f"only {len(nodes)} of {count} nodes came within {deadline_seconds:.0f} s")
        time.sleep(_POLL_SECONDS)
