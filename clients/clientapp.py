"""The Flower ClientApp: one node that serves the devices it is sent, one message a round.

A node whose configuration names a device (``node/identity.py``) serves only this device, with text that stays on the
node. Torch is imported only where it is needed, so that a question for the node's device is answered at once. A real
node starts a process for every message, and its import time counts as work.
"""

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from slimfed.clients.node.identity import HostedDevice

if TYPE_CHECKING:
    from slimfed.clients.spec import TaskSpec

app = ClientApp()

_log = logging.getLogger(__name__)
_NOT_TOLD = "not told under local privacy; read the node's log"


@app.query()
def host(message: Message, context: Context) -> Message:
    """Reply with the number of the device that this node hosts, and with its memory, processor cores and tags."""
    from slimfed.clients.messages.records import encode_host
    from slimfed.clients.node.machine import this_machine

    own = HostedDevice.of(context.node_config)
    if own is None:
        return Message(encode_host(None), reply_to=message)
    return Message(encode_host(own.device, this_machine(own.tags)), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the devices of a message and reply with their updates, or with the cause of a failed device."""
    from slimfed.clients.messages.records import decode_task, encode_work

    began = time.monotonic()
    content = serve(message.content, context.node_config, context.state)
    if decode_task(message.content).privacy.kind != "local":
        encode_work(content, time.monotonic() - began)
    return Message(content, reply_to=message)


def serve(
    content: RecordDict, config: Mapping[str, object] | None = None, state: RecordDict | None = None
) -> RecordDict:
    """The node's reply to the records of a round, independent of the transport.

    ``config`` is the node's configuration, ``state`` its memory between messages of a run. Under local privacy an error
    is told without its cause and times are not told, since both depend on the text; the cause is in the node's log.
    """
    from slimfed.clients.messages.records import assigned_devices, decode_task, encode_results
    from slimfed.clients.update import Failure
    from slimfed.clients.verbosity import follow_environment

    follow_environment()
    task = decode_task(content)
    if task.privacy.kind != "local":
        return _served(task, content, config, state)
    try:
        reply = _served(task, content, config, state)
    except Exception:
        _log.exception("the devices of this node lose the round")
        return encode_results([Failure(device, _NOT_TOLD) for device in assigned_devices(content)])
    reply.pop("phases", None)
    reply["failures"] = ConfigRecord(dict.fromkeys(reply["failures"], _NOT_TOLD))
    return reply


def _served(
    task: "TaskSpec", content: RecordDict, config: Mapping[str, object] | None, state: RecordDict | None
) -> RecordDict:
    """The node's reply with all that it has to tell."""
    from slimfed.clients.messages.records import decode_orders, encode_phases, encode_results
    from slimfed.clients.messages.size_limit import oversize
    from slimfed.clients.node.error_feedback import recall, remember
    from slimfed.clients.node.runtime import open_hosted_runtime, open_runtime
    from slimfed.clients.telemetry.stopwatch import Stopwatch
    from slimfed.clients.telemetry.telling import folder_of, telling
    from slimfed.clients.update import Failure

    watch, own = Stopwatch(), HostedDevice.of(config or {})
    with watch.phase("open"):
        runtime = open_runtime(task) if own is None else open_hosted_runtime(task, own)
    with watch.phase("decode"):
        orders = decode_orders(content, runtime.blueprint)
    strangers = [each.device for each in orders.assignments if own is not None and each.device != own.device]
    if strangers:
        return encode_results([Failure(device, "its node hosts another device") for device in strangers])
    memory = state if own is not None and task.messages.precision != "fp32" else None
    if memory is not None:
        orders = recall(memory, orders)
    with telling(None if own else folder_of(config or {}), orders.assignments) as meter:
        results = runtime.serve(orders, watch, meter)
    if memory is not None:
        results = [r if isinstance(r, Failure) else remember(memory, orders, r) for r in results]
    with watch.phase("encode"):
        reply = encode_results(results, task.messages.precision)
    if (cause := oversize(reply, len(results), task.message_mb)) is not None:
        return encode_results([Failure(result.device, cause) for result in results])
    encode_phases(reply, watch.seconds)
    return reply
