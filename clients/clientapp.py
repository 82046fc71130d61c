"""The Flower ClientApp: one node that serves the devices it is sent, one message a round."""

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from slimfed.clients.messages import decode_orders, decode_task, encode_results
from slimfed.clients.workplace import open_workplace

app = ClientApp()


@app.train()
def train(message: Message, _context: Context) -> Message:
    """Train the devices of a message and reply with their updates, or with the cause where a device failed."""
    return Message(serve(message.content), reply_to=message)


def serve(content: RecordDict) -> RecordDict:
    """The node's answer to a round's records, whatever carried them."""
    workplace = open_workplace(decode_task(content))
    return encode_results(workplace.serve(decode_orders(content, workplace.blueprint)))
