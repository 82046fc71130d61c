"""The assignment of real devices to nodes, by the nodes' own answers. A device stays with its first node.

A node is asked once. While it does not answer, rounds go on without its device; its answer counts whenever it comes.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from slimfed.clients.messages.records import MalformedMessageError, decode_facts, decode_host
from slimfed.strategies.protocols import Event
from slimfed.strategies.transport import StopRequestedError, went_away
from slimfed.strategies.where import Facts, Where

# The node starts a process for the question, which takes long on a small or busy machine; asking again would not be
# faster. For so long a fleet with missing devices waits for a new node's answer, once.
_ANSWER_SECONDS = 60.0
# For so long an answer is accepted. For a dead node the SuperLink replies after a minute.
_OPEN_SECONDS = 600.0
# A silent node is asked again after so long, in case it has been repaired; one that went away when it is back.
_AGAIN_SECONDS, _BACK_SECONDS = 1800.0, 5.0
# Seconds that a fleet above the quorum waits for missing devices.
_LATECOMERS_SECONDS = 10.0
_POLL_SECONDS = 0.5


@dataclass
class _Question:
    """An open question to a node. ``first``: it was not asked before. ``told``: the silence has been recorded."""

    node: int
    asked: float
    first: bool
    told: bool = False


class Roster:
    """Which node hosts which of ``devices`` real devices, by the nodes' own answers; kept for the whole run.

    ``now``: seconds of a clock that never goes back. ``where``: which devices may be asked; None: all.
    """

    def __init__(self, devices: int, now: Callable[[], float] = time.monotonic, where: Where | None = None) -> None:
        self._devices = devices
        self._where = where
        self.refused: set[int] = set()
        """Devices that may not be asked, by what their nodes tell of themselves."""
        self._now = now
        self._claims: dict[int, int] = {}
        self._open: dict[str, _Question] = {}
        self._not_before: dict[int, float] = {}
        self._present: set[int] = set()
        self._given_up: set[int] = set()

    @property
    def hosts(self) -> Mapping[int, int]:
        """Node id by device, in device order, of the nodes that are connected and whose device may be asked."""
        claims = sorted(self._claims.items())
        return {device: node for device, node in claims if node in self._present and device not in self.refused}

    def gather(
        self, grid: Grid, number: int, needed: int, deadline_seconds: float, stop_requested: Callable[[], bool]
    ) -> list[Event]:
        """Ask new nodes for their devices, and wait for devices for round ``number``; the events on wrong answers.

        Waits 10 s for all devices (once for each that is missing, so that one which stays away delays no later round),
        up to 60 s for the first answer of a new node while devices are missing, and until the deadline for ``needed``
        devices; with fewer it returns, too, and the round misses its quorum. Raises ``StopRequestedError``.
        """
        events: list[Event] = []
        began = self._now()
        while True:
            events += self._look(grid, number)
            waited, missing = self._now() - began, set(range(self._devices)) - self.hosts.keys() - self.refused
            late = waited >= _LATECOMERS_SECONDS or missing <= self._given_up
            settled = not missing or (late and not self._expecting())
            if (settled and len(self.hosts) >= needed) or waited >= deadline_seconds:
                self._given_up = missing
                return events
            if stop_requested():
                raise StopRequestedError
            time.sleep(_POLL_SECONDS)

    def _expecting(self) -> bool:
        """True while a connected node has been asked for the first time, less than a minute ago."""
        return any(each.first and not each.told and each.node in self._present for each in self._open.values())

    def _look(self, grid: Grid, number: int) -> list[Event]:
        """Note which nodes are connected, ask new ones, and read the answers that have come; never waits."""
        self._present = set(grid.get_node_ids())
        self._ask(grid, number)
        answers = {} if not self._open else self._answers(grid)
        events, claims, told = [], dict[int, list[int]](), dict[int, Facts]()
        for node, reply in sorted(answers.items()):
            device, facts = _named(reply)
            if device is None or device >= self._devices:
                said = "no device" if device is None else f"device {device}, the fleet has {self._devices}"
                remedy = "start the node with --node-config 'device=NUMBER data=\"FOLDER\"'"
                events.append(Event(number, "foreign-node", f"node {node} hosts {said}", remedy))
            else:
                claims.setdefault(device, []).append(node)
                told[node] = facts
        for device, nodes in claims.items():
            events += self._claim(device, nodes, number)
            if self._claims.get(device) in told:
                events += self._admit(device, told[self._claims[device]], number)
        return events + self._silent(number)

    def _ask(self, grid: Grid, number: int) -> None:
        """Ask the connected nodes that may be asked now; old questions are given up before."""
        now = self._now()
        self._open = {key: each for key, each in self._open.items() if now - each.asked < _OPEN_SECONDS}
        asked = {each.node for each in self._open.values()}
        new = [node for node in sorted(self._present - asked) if self._not_before.get(node, 0.0) <= now]
        questions = [Message(RecordDict(), node, "query", ttl=_OPEN_SECONDS, group_id=str(number)) for node in new]
        if not questions:
            return
        for node, message_id in zip(new, grid.push_messages(questions), strict=True):
            if message_id:
                self._open[message_id] = _Question(node, now, first=node not in self._not_before)
            self._not_before[node] = now + _AGAIN_SECONDS

    def _answers(self, grid: Grid) -> dict[int, Message]:
        """Answers by node; a node that answered is not asked again."""
        answers: dict[int, Message] = {}
        for reply in grid.pull_messages(list(self._open)):
            question = self._open.pop(reply.metadata.reply_to_message_id, None)
            if question is None:
                continue
            if went_away(reply):
                if not question.told:
                    self._not_before[question.node] = self._now() + _BACK_SECONDS
                continue
            self._not_before[question.node] = float("inf")
            answers[question.node] = reply
        return answers

    def _silent(self, number: int) -> list[Event]:
        """Events on nodes that have been silent for a minute, once for each question."""
        now, events = self._now(), []
        for each in self._open.values():
            if not each.told and now - each.asked >= _ANSWER_SECONDS:
                each.told = True
                cause = (
                    f"node {each.node} has not said within {_ANSWER_SECONDS:.0f} s which device it hosts; rounds go on "
                    "without it"
                )
                remedy = f"restart the node; it is asked again after {_AGAIN_SECONDS / 60:.0f} minutes"
                events.append(Event(number, "silent-node", cause, remedy))
        return events

    def _admit(self, device: int, facts: Facts, number: int) -> list[Event]:
        """Note whether a device may be asked; the event if not."""
        if self._where is None or self._where.admits({"device": float(device), **facts}):
            self.refused.discard(device)
            return []
        self.refused.add(device)
        told = ", ".join(f"{name} = {_shown(value)}" for name, value in facts.items()) or "nothing"
        cause = f"its node does not fit fleet.where ({self._where.text}); it tells {told}"
        remedy = "none needed, it is not asked; tags are set by the node's --node-config 'tags=\"...\"'"
        return [Event(number, "filtered", cause, remedy, device)]

    def _claim(self, device: int, nodes: list[int], number: int) -> list[Event]:
        """The first node keeps the device; of two that claim it at once neither gets it, since at most one is right."""
        owner = self._claims.get(device)
        if owner is None and len(nodes) == 1:
            self._claims[device] = nodes[0]
            return []
        others = [node for node in nodes if node != owner]
        cause = f"nodes {', '.join(map(str, others))} say that they host device {device}" + (
            f", which node {owner} hosts" if owner is not None else ": neither is believed"
        )
        remedy = "give every node a device number of its own; a device that moved to another node needs a resumed run"
        return [Event(number, "device-claimed", cause, remedy, device)]


def _named(reply: Message) -> tuple[int | None, Facts]:
    """The device in a node's answer, None if it names none, and what the node tells of itself."""
    try:
        return (None, {}) if reply.has_error() else (decode_host(reply.content), decode_facts(reply.content))
    except MalformedMessageError:
        return None, {}


def _shown(value: object) -> str:
    return ", ".join(value) or "none" if isinstance(value, tuple) else f"{value:g}"
