"""Sending a round's messages and waiting for the replies, with a deadline and an ear for a stop request."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

# Short enough to cost no time that counts, long enough not to burden the SuperLink.
_POLL_SECONDS = 0.05
_UNAVAILABLE = (ErrorCode.NODE_UNAVAILABLE, ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE)


@dataclass(frozen=True)
class Replies:
    """What came back, in the order of the node ids, and after how many seconds it was there, by node."""

    replies: list[Message]
    seconds: dict[int, float]


class StopRequestedError(Exception):
    """Somebody asked the run to stop while it was waiting."""


def exchange(
    grid: Grid,
    messages: Sequence[Message],
    deadline_seconds: float,
    stop_requested: Callable[[], bool],
    cause_against: Callable[[Message], str | None] = lambda _: None,
) -> Replies:
    """Push ``messages`` and return the replies that came before the deadline.

    ``cause_against`` says why a message must not pass, either way (a reply knows the node that it is of): then an error
    with the cause stands in its place. Raises :class:`StopRequestedError` as soon as ``stop_requested`` says so.
    """
    began = time.monotonic()
    deadline = began + deadline_seconds
    seconds: dict[int, float] = {}
    against = {message.metadata.dst_node_id: cause_against(message) for message in messages}
    sent = [message for message in messages if against[message.metadata.dst_node_id] is None]
    asked = {
        message_id: message for message_id, message in zip(grid.push_messages(sent), sent, strict=True) if message_id
    }
    waiting = set(asked)
    replies = [_refusal(m, cause) for m in messages if (cause := against[m.metadata.dst_node_id]) is not None]
    while waiting and time.monotonic() < deadline:
        fresh = list(grid.pull_messages(waiting))
        waiting -= {reply.metadata.reply_to_message_id for reply in fresh}
        fresh = [_checked(reply, asked[reply.metadata.reply_to_message_id], cause_against) for reply in fresh]
        replies += fresh
        seconds |= {reply.metadata.src_node_id: time.monotonic() - began for reply in fresh}
        if stop_requested():
            raise StopRequestedError
        if waiting:
            time.sleep(_POLL_SECONDS)
    return Replies(sorted(replies, key=lambda reply: reply.metadata.src_node_id), seconds)


def _checked(reply: Message, asked: Message, cause_against: Callable[[Message], str | None]) -> Message:
    """The reply in the name of the node that was asked, or an error in its place."""
    if went_away(reply):  # the SuperLink says so in its own name
        reply.metadata.__dict__["_src_node_id"] = asked.metadata.dst_node_id
        return reply
    cause = None if reply.has_error() else cause_against(reply)
    return reply if cause is None else _refusal(asked, cause)


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
