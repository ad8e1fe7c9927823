"""A client that prints what happens to the annotations of one document, and comes back whenever
its connection ends.

    python3 -m venv venv && venv/bin/pip install 'websockets>=13'
    venv/bin/python client.py ws://127.0.0.1:5001/ws https://example.org/

With an access token in the environment variable H_REALTIME_TOKEN it hears of all that its user
may see.
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
    # Events that are caused with this client id (`X-Client-Id` in h's API) are not sent here.
    client_id = uuid.uuid4().hex
    # A connection that cannot be made, or that ends, is tried again, after ever longer delays.
    async for socket in connect(url, additional_headers=headers):
        try:
            await listen(socket, document, client_id)
        except ConnectionClosed as closed:
            print(closed, file=sys.stderr)
            if closed.rcvd is not None and closed.rcvd.code == 3000:
                sys.exit("the token has ended: get another one")


async def listen(socket, document, client_id):
    # They may come in any order. Each connection begins with nothing: neither filter nor client id
    # is remembered.
    clause = {"field": "/uri", "operator": "one_of", "value": [document]}
    wanted = {"match_policy": "include_any", "actions": {}, "clauses": [clause]}
    for message in (
        {"type": "client_id", "value": client_id},
        {"type": "filter", "id": 1, "filter": wanted},
        {"type": "whoami", "id": 2},
    ):
        await socket.send(json.dumps(message))
    # The library answers the server's pings, and sends some of its own.
    while True:
        show(json.loads(await socket.recv()))


def show(message):
    match message.get("type"):
        case "whoyouare":
            tell("connected as", message["userid"])
        case "annotation-notification":
            for annotation in message["payload"]:
                # Of a deleted annotation nothing is told but its id.
                tell(message["options"]["action"], annotation["id"], annotation.get("text"))
        case "session-change":
            tell("groups", message["model"]["groups"])
        case "error":
            tell("error", message["error"]["description"])
        # There may be more kinds of messages one day.


def tell(word, *values):
    print(word, *map(json.dumps, values), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: client.py URL DOCUMENT")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass
