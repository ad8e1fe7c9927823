"""A client that prints the events of one document's annotations. Whenever its connection ends, it
reconnects, and receives the events that it has missed. importer.py also survives its own restarts.

    python3 -m venv venv && venv/bin/pip install 'websockets>=13'
    venv/bin/python client.py ws://127.0.0.1:5001/ws https://example.org/

The document may be a pattern, such as 'https://example.org/*', if the server is h-realtime.
With an access token in the environment variable H_REALTIME_TOKEN, it receives everything that its
user may read.
"""

import asyncio
import json
import os
import sys
import uuid

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def main(url, document):
    token = os.environ.get("H_REALTIME_TOKEN")
    headers = {"Authorization": "Bearer " + token} if token else {}
    # Events with this client id (`X-Client-Id` in h's API) are not sent to this client.
    client_id = uuid.uuid4().hex
    # The position in the server's history: the newest cursor. Only the server knows its meaning.
    since = "now"
    # Reconnects after a failed attempt or a lost connection, with increasing delays.
    async for socket in connect(url, additional_headers=headers):
        try:
            async for since in listen(socket, document, client_id, since):
                pass
        except ConnectionClosed as closed:
            print(closed, file=sys.stderr)
            if closed.rcvd is not None and closed.rcvd.code == 3000:
                sys.exit("the token has ended: get another one")


async def listen(socket, document, client_id, since):
    """Processes the messages of a connection, and yields the cursor of each."""
    # The order does not matter. A new connection has neither a filter nor a client id.
    field = "/wildcard_uri" if "*" in document else "/uri"
    clause = {"field": field, "operator": "one_of", "value": [document]}
    wanted = {"match_policy": "include_any", "actions": {}, "clauses": [clause]}
    for message in (
        {"type": "client_id", "value": client_id},
        {"type": "filter", "id": 1, "filter": wanted, "since": since},
        {"type": "whoami", "id": 2},
    ):
        await socket.send(json.dumps(message))
    # The library answers the server's pings, and sends its own.
    while True:
        message = json.loads(await socket.recv())
        show(message)
        # A server without cursors sends none.
        if "cursor" in message:
            yield message["cursor"]


def show(message):
    match message.get("type"):
        case "whoyouare":
            tell("connected as", message["userid"])
        case "annotation-notification":
            for annotation in message["payload"]:
                # A deleted annotation has only an id.
                tell(message["options"]["action"], annotation["id"], annotation.get("text"))
        case "session-change":
            tell("groups", message["model"]["groups"])
        case "filter":
            # Clauses that this server does not know have no effect.
            for clause in message.get("ignored", []):
                tell("ignored", clause["field"], clause["reason"])
            # The server no longer has all events after the cursor, and continues with new ones.
            if not message["recovered"]:
                tell("gap", message["oldest"])
        case "error":
            tell("error", message["error"]["description"])
        # Future versions may add message types.


def tell(word, *values):
    print(word, *map(json.dumps, values), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: client.py URL DOCUMENT")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass
