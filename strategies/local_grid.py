"""A Flower Grid whose nodes are this process or its children: for tests, notebooks and machines without Ray.

The same ClientApp and strategy run on it as on Flower's runtimes; only the transport differs.
"""

import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor, Future
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from slimfed.clients.clientapp import serve


class LocalGrid(Grid):
    """``nodes`` nodes with ids 1.., served by ``executor`` (spawned processes), or in turn if there is none.

    ``config``: the configuration of each.
    """

    def __init__(
        self, nodes: int, executor: Executor | None = None, config: Mapping[str, object] | None = None
    ) -> None:
        # Flower asks for these when a message is made; a SuperLink would have set them.
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 0, 0, 0
        self._nodes = list(range(1, nodes + 1))
        self._executor = executor
        self._config = config
        self._sent: dict[str, tuple[Message, Future[RecordDict] | None]] = {}

    def set_run(self, run: Any) -> None:
        """No run is registered anywhere."""

    @property
    def run(self) -> Any:
        """There is none."""
        raise LookupError("a LocalGrid belongs to no SuperLink run")

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a local node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes, always."""
        return self._nodes

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand the messages to their nodes."""
        ids = []
        for message in messages:
            message_id = uuid.uuid4().hex
            message.metadata.__dict__["_message_id"] = message_id
            future = self._executor.submit(serve, message.content, self._config) if self._executor else None
            self._sent[message_id] = (message, future)
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that are there; without an executor the work is done now, one message at a time."""
        replies = []
        for message_id in [each for each in self._sent if each in set(message_ids)]:
            message, future = self._sent.get(message_id, (None, None))
            if message is not None and (future is None or future.done()):
                content = future.result() if future else serve(message.content, self._config)
                replies.append(Message(content, reply_to=message))
                del self._sent[message_id]
                if self._executor is None:
                    break
        return replies

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push and wait for all replies."""
        waiting = set(self.push_messages(messages))
        replies: list[Message] = []
        while waiting:
            fresh = list(self.pull_messages(waiting))
            waiting -= {reply.metadata.reply_to_message_id for reply in fresh}
            replies += fresh
        return replies
