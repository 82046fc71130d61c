"""The assignment of real devices to nodes. Every node is asked once; a device stays with its first node."""

import time
from collections.abc import Callable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from slimfed.clients.messages.records import MalformedMessageError, decode_host
from slimfed.strategies.protocols import Event
from slimfed.strategies.transport import StopRequestedError, exchange, went_away

# The node starts a process for the question, which takes long on a small or busy machine; asking again would not be
# faster. For a dead node the SuperLink replies after a minute.
_ASK_SECONDS = 120.0
# Seconds that a fleet above the quorum waits for missing devices.
_LATECOMERS_SECONDS = 10.0
_POLL_SECONDS = 0.5


class Roster:
    """Which node hosts which of ``devices`` real devices, by the nodes' own answers; kept for the whole run."""

    def __init__(self, devices: int) -> None:
        self._devices = devices
        self._claims: dict[int, int] = {}
        self._asked: set[int] = set()
        self._present: set[int] = set()
        self._given_up: set[int] = set()

    @property
    def hosts(self) -> dict[int, int]:
        """Node id by device, in device order, of the nodes that are connected."""
        return {device: node for device, node in sorted(self._claims.items()) if node in self._present}

    def gather(
        self, grid: Grid, number: int, needed: int, deadline_seconds: float, stop_requested: Callable[[], bool]
    ) -> list[Event]:
        """Ask new nodes for their devices, and wait for devices for round ``number``; the events on wrong answers.

        Waits 10 s for all devices (once for each that is missing, so that one which stays away delays no later round)
        and until the deadline for ``needed`` ones; with fewer it returns, too, and the round misses its quorum. Raises
        ``StopRequestedError``.
        """
        events: list[Event] = []
        began = time.monotonic()
        while True:
            events += self._ask_new_nodes(grid, number, stop_requested)
            waited, missing = time.monotonic() - began, set(range(self._devices)) - self.hosts.keys()
            late = waited >= _LATECOMERS_SECONDS or missing <= self._given_up
            if (late and self._devices - len(missing) >= needed) or waited >= deadline_seconds:
                self._given_up = missing
                return events
            if stop_requested():
                raise StopRequestedError
            time.sleep(_POLL_SECONDS)

    def _ask_new_nodes(self, grid: Grid, number: int, stop_requested: Callable[[], bool]) -> list[Event]:
        """Note which nodes are connected, and ask those that have not answered yet."""
        self._present = set(grid.get_node_ids())
        new = sorted(self._present - self._asked)
        if not new:
            return []
        questions = [Message(RecordDict(), node, "query", ttl=_ASK_SECONDS, group_id=str(number)) for node in new]
        replies = exchange(grid, questions, _ASK_SECONDS, stop_requested).replies
        claims: dict[int, list[int]] = {}
        events = []
        for reply in replies:
            if went_away(reply):
                continue
            node = reply.metadata.src_node_id
            self._asked.add(node)
            try:
                device = None if reply.has_error() else decode_host(reply.content)
            except MalformedMessageError:
                device = None
            if device is None or device >= self._devices:
                said = "no device" if device is None else f"device {device}, the fleet has {self._devices}"
                remedy = "start the node with --node-config 'device=NUMBER data=\"FOLDER\"'"
                events.append(Event(number, "foreign-node", f"node {node} hosts {said}", remedy))
            else:
                claims.setdefault(device, []).append(node)
        for device, nodes in claims.items():
            events += self._claim(device, nodes, number)
        return events

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
