"""The Flower ClientApp: one node that serves the devices it is sent, one message a round.

A node whose configuration names a device of its own (``node/identity.py``) serves that one alone, with text that never
leaves it.
What brings torch is imported where it is needed: saying who lives here takes no seconds, and a real node, whose
process starts anew with every message, counts the time of it as work.
"""

import time
from collections.abc import Mapping

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from slimfed.clients.node.identity import HostedDevice

app = ClientApp()


@app.query()
def host(message: Message, context: Context) -> Message:
    """Say which device lives here."""
    from slimfed.clients.messages.records import encode_host

    own = HostedDevice.of(context.node_config)
    return Message(encode_host(None if own is None else own.device), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the devices of a message and reply with their updates, or with the cause where a device failed."""
    from slimfed.clients.messages.records import encode_work

    began = time.monotonic()
    content = serve(message.content, context.node_config, context.state)
    encode_work(content, time.monotonic() - began)
    return Message(content, reply_to=message)


def serve(
    content: RecordDict, config: Mapping[str, object] | None = None, state: RecordDict | None = None
) -> RecordDict:
    """The node's answer to a round's records, whatever carried them.

    ``config`` is the node's configuration, ``state`` what it remembers from one message of the run to the next.
    """
    from slimfed.clients.messages.records import decode_orders, decode_task, encode_phases, encode_results
    from slimfed.clients.messages.size_limit import oversize
    from slimfed.clients.node.error_feedback import recall, remember
    from slimfed.clients.node.runtime import open_hosted_runtime, open_runtime
    from slimfed.clients.stopwatch import Stopwatch
    from slimfed.clients.update import Failure
    from slimfed.clients.verbosity import follow_environment

    follow_environment()

    watch, task, own = Stopwatch(), decode_task(content), HostedDevice.of(config or {})
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
    results = runtime.serve(orders, watch)
    if memory is not None:
        results = [r if isinstance(r, Failure) else remember(memory, orders, r) for r in results]
    with watch.phase("encode"):
        reply = encode_results(results, task.messages.precision)
    if (cause := oversize(reply, len(results), task.message_mb)) is not None:
        return encode_results([Failure(result.device, cause) for result in results])
    encode_phases(reply, watch.seconds)
    return reply
