"""Tests the server with Python's `websockets`.

Reads the server's addresses from standard input, as JSON with the keys `url`, `admin`, `key`, `token`, `userid`,
and `pid`. Ends the server. The first failure ends the script with a traceback.
"""

import asyncio
import faulthandler
import json
import os
import signal
import sys
import urllib.request

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

PATIENCE = 20
MESSAGE_LIMIT = 64 * 1024
URI = "https://example.org/page"


def logged_in(server):
    return connect(server["url"], additional_headers={"Authorization": "Bearer " + server["token"]})


async def ask(ws, message):
    await ws.send(json.dumps(message))
    return json.loads(await ws.recv())


async def handshake(server):
    """Verifies that the server accepts the library's offer of compression."""
    agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    offers = (
        (None, agreed),
        (ClientPerMessageDeflateFactory(server_max_window_bits=15), agreed + "; server_max_window_bits=12"),
        (ClientPerMessageDeflateFactory(server_max_window_bits=9), agreed + "; server_max_window_bits=9"),
        (ClientPerMessageDeflateFactory(server_max_window_bits=8), None),
        (ClientPerMessageDeflateFactory(client_max_window_bits=9), agreed),
    )
    for offer, answer in offers:
        choice = {"extensions": [offer], "compression": None} if offer else {}
        async with connect(server["url"], **choice) as ws:
            assert ws.response.headers.get("Sec-WebSocket-Extensions") == answer
            assert ws.subprotocol is None
            # The library compresses all its messages.
            assert (await ask(ws, {"type": "whoami", "id": 1, "more": "x" * 1000}))["userid"] is None
    async with connect(server["url"], compression=None) as ws:
        assert "Sec-WebSocket-Extensions" not in ws.response.headers
    try:
        async with connect(server["url"] + "/nowhere"):
            raise AssertionError("a WebSocket at a path where there is none")
    except InvalidStatus as refused:
        assert refused.response.status_code == 404
        assert json.loads(refused.response.body)["error"] == "not_found"


async def messages(server):
    async with logged_in(server) as ws:
        pong = await ws.ping(b"payload")
        assert await pong < PATIENCE
        assert await ask(ws, {"type": "ping", "id": 7}) == {"type": "pong", "ok": True, "reply_to": 7}
        whoyouare = await ask(ws, {"type": "whoami", "id": 8})
        assert whoyouare["userid"] == server["userid"], whoyouare
        # Binary and fragmented messages are accepted, too; the replies are text messages.
        await ws.send(b'{"type": "ping", "id": 9}')
        answer = await ws.recv()
        assert isinstance(answer, str) and json.loads(answer)["reply_to"] == 9
        await ws.send(['{"type": "p', 'ing", "id"', ": 10}"])
        assert json.loads(await ws.recv())["reply_to"] == 10


def publish(server, identifier, uri):
    annotation = {
        "id": identifier,
        "user": "acct:bob@example.org",
        "uri": uri,
        "text": "\u00fc\U0001f4dd",
        "permissions": {"read": ["group:__world__"]},
    }
    event = {"topic": "annotation", "action": "create", "annotation_id": identifier, "annotation": annotation}
    request = urllib.request.Request(
        server["admin"] + "events",
        data=json.dumps(event).encode(),
        headers={"Authorization": "Bearer " + server["key"]},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        assert response.status == 202
        return json.load(response)


async def events(server):
    clause = {"field": "/uri", "operator": "one_of", "value": [URI]}
    wanted = {"match_policy": "include_any", "clauses": [clause], "actions": {}}
    async with logged_in(server) as ws, connect(server["url"]) as other:
        await ws.send(json.dumps({"type": "filter", "filter": wanted}))
        await ask(ws, {"type": "ping", "id": 1})
        # The event is published while the client waits.
        waiting = asyncio.create_task(ws.recv())
        assert (await asyncio.to_thread(publish, server, "one", URI))["matched"] == 1
        notification = json.loads(await waiting)
        assert notification["options"] == {"action": "create"}
        assert notification["payload"][0]["id"] == "one"
        assert notification["payload"][0]["text"] == "\u00fc\U0001f4dd"
        assert (await asyncio.to_thread(publish, server, "two", URI + "/2"))["matched"] == 0
        for client in (ws, other):
            assert (await ask(client, {"type": "ping", "id": 2}))["type"] == "pong"


def ping_of(size):
    message = json.dumps({"type": "ping", "id": 1, "more": ""})
    return message.replace('""', '"' + "x" * (size - len(message)) + '"')


async def sizes(server):
    async with connect(server["url"]) as ws:
        await ws.send(ping_of(MESSAGE_LIMIT))
        assert json.loads(await ws.recv())["type"] == "pong"
    large = ping_of(MESSAGE_LIMIT + 1)
    for message in (large, [large[:40_000], large[40_000:]]):
        async with connect(server["url"]) as ws:
            await ws.send(message)
            assert await end_of(ws) == (1009, True)


async def end_of(ws):
    """Returns the close code of the server, and whether the server closed first."""
    try:
        while True:
            await ws.recv()
    except (ConnectionClosedError, ConnectionClosedOK) as closed:
        assert closed.rcvd is not None, "the connection ended without a close frame"
        return closed.rcvd.code, closed.rcvd_then_sent


async def closing(server):
    for code, reason in ((1000, ""), (1001, "leaving"), (4000, "bye")):
        async with connect(server["url"]) as ws:
            await ws.close(code, reason)
            assert (ws.close_code, ws.close_reason) == (code, reason)
            assert await end_of(ws) == (code, False)
    async with connect(server["url"]) as ws:
        await ws.send("not JSON")
        assert await end_of(ws) == (1007, True)
        assert ws.close_reason == "invalid message format"
    # The message loop ends without an exception when the client itself closes.
    async with connect(server["url"]) as ws:
        await ws.send('{"type": "ping", "id": 1}')
        async for message in ws:
            assert json.loads(message)["type"] == "pong"
            await ws.close()


async def restart(server):
    """Verifies that the message loop raises after 1012, so that the outer loop reconnects."""
    async with connect(server["url"]) as ws:
        await ask(ws, {"type": "ping", "id": 1})
        os.kill(server["pid"], signal.SIGTERM)
        try:
            async for message in ws:
                raise AssertionError(message)
            raise AssertionError("the loop ended as if the client had closed")
        except ConnectionClosedError as closed:
            assert closed.rcvd.code == 1012, closed
            assert closed.rcvd_then_sent


async def main():
    server = json.load(sys.stdin)
    for part in (handshake, messages, events, sizes, closing, restart):
        print(part.__name__, flush=True)
        async with asyncio.timeout(PATIENCE):
            await part(server)


# Ends the script if it hangs anywhere.
faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)
asyncio.run(main())
