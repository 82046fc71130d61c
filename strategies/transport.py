"""Sending messages to nodes and waiting for the replies, until a deadline or until the run is asked to stop."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from slimfed.clients.errors import SlimfedError

# Polling interval: short compared with a round, and long enough not to load the SuperLink.
_POLL_SECONDS = 0.05
_UNAVAILABLE = (ErrorCode.NODE_UNAVAILABLE, ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE)
# Messages that a node has at a time: the current one and the next one.
_AHEAD = 2


Part = TypeVar("Part")
"""Content of one message to a node, such as the plans of some devices."""


@dataclass(frozen=True)
class PartReply(Generic[Part]):
    """The reply to one part of a node's work, and seconds from its send to its receipt."""

    part: Part
    reply: Message
    seconds: float


class StopRequestedError(SlimfedError):
    """The run was asked to stop while it was waiting."""


def stream_replies(
    grid: Grid,
    parts: Mapping[int, Sequence[Part]],
    message: Callable[[int, Part], Message],
    silence_seconds: float,
    stop_requested: Callable[[], bool],
    refusal: Callable[[Message, Part], str | None] = lambda _message, _part: None,
) -> Iterator[PartReply[Part]]:
    """Send every node its parts of work, at most two at a time, and yield the replies as they come.

    ``parts``: by node id, in the order in which they are sent. ``message`` builds the message of a part when it is
    sent, so neither messages nor replies accumulate. A node that does not answer for ``silence_seconds`` while it has
    work gets no more messages. ``refusal`` gives the cause for which a message to or from a node is refused, or None;
    an error with the cause then replaces the reply. Raises :class:`StopRequestedError` as soon as ``stop_requested``
    returns True.
    """
    queues = {node: _NodeQueue(deque(share)) for node, share in parts.items()}
    sent: dict[str, tuple[int, Part, float]] = {}
    while True:
        now = time.monotonic()
        for node, queue in queues.items():
            if queue.unanswered and now - queue.heard > silence_seconds:
                queue.waiting.clear()
                queue.unanswered.clear()
            while queue.waiting and len(queue.unanswered) < _AHEAD:
                part = queue.waiting.popleft()
                order = message(node, part)
                cause = refusal(order, part)
                if cause is not None:
                    yield PartReply(part, _error_reply(order, cause), 0.0)
                    continue
                queue.heard = queue.heard if queue.unanswered else time.monotonic()
                for message_id in filter(None, grid.push_messages([order])):
                    sent[message_id] = node, part, time.monotonic()
                    queue.unanswered[message_id] = order
        unanswered = {message_id for queue in queues.values() for message_id in queue.unanswered}
        if not unanswered:
            return
        fresh = sorted(grid.pull_messages(unanswered), key=lambda reply: reply.metadata.src_node_id)
        for reply in fresh:
            message_id = reply.metadata.reply_to_message_id
            node, part, began = sent[message_id]
            queues[node].heard = time.monotonic()
            asked = queues[node].unanswered.pop(message_id, None)
            if asked is not None:
                reply = _checked(reply, asked, part, refusal)
            yield PartReply(part, reply, queues[node].heard - began)  # repeated ones, too
        if stop_requested():
            raise StopRequestedError
        if not fresh:
            time.sleep(_POLL_SECONDS)


@dataclass
class _NodeQueue(Generic[Part]):
    """Parts still to send to a node, unanswered messages by id, and the time of the node's last reply."""

    waiting: deque[Part]
    unanswered: dict[str, Message] = field(default_factory=dict)
    heard: float = 0.0


def _checked(reply: Message, asked: Message, part: Part, refusal: Callable[[Message, Part], str | None]) -> Message:
    """The reply in the name of the node that was asked, or an error in its place."""
    reply = _named(reply, asked)
    cause = None if reply.has_error() else refusal(reply, part)
    return reply if cause is None else _error_reply(asked, cause)


def _named(reply: Message, asked: Message) -> Message:
    """The reply with the asked node as its source; for a node that has gone, the SuperLink replies in its own name."""
    if went_away(reply):
        reply.metadata.__dict__["_src_node_id"] = asked.metadata.dst_node_id
    return reply


def _error_reply(message: Message, cause: str) -> Message:
    """An error with this cause, as the reply of the node that ``message`` is for."""
    return Message(Error(ErrorCode.UNKNOWN, cause), reply_to=message)


def went_away(reply: Message) -> bool:
    """True if the SuperLink wrote this reply because the asked node, or its reply, is gone."""
    return reply.has_error() and reply.error.code in _UNAVAILABLE


def wait_for_nodes(grid: Grid, count: int, deadline_seconds: float, stop_requested: Callable[[], bool]) -> list[int]:
    """Node ids in ascending order once ``count`` nodes are connected.

    Raises ``TimeoutError`` with the number that came, or :class:`StopRequestedError`.
    """
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
