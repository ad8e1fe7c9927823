"""picows on uvloop. Serves /echo and /fan; see ../src/lib.rs."""

import asyncio
import resource

import uvloop
from picows import WSListener, WSMsgType, ws_create_server

fan = set()


class Echo(WSListener):
    def on_ws_frame(self, transport, frame):
        if frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY):
            transport.send(frame.msg_type, frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()


class Fan(WSListener):
    def on_ws_connected(self, transport):
        fan.add(transport)

    def on_ws_disconnected(self, transport):
        fan.discard(transport)

    def on_ws_frame(self, transport, frame):
        if frame.msg_type == WSMsgType.TEXT:
            payload = frame.get_payload_as_bytes()
            for other in fan:
                if other is not transport:
                    other.send(WSMsgType.TEXT, payload)
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()


def choose(request):
    path = request.path
    path = path.decode() if isinstance(path, bytes) else path
    return Fan() if path == "/fan" else Echo()


async def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = await ws_create_server(choose, "127.0.0.1", 0, backlog=4096)
    host, port = server.sockets[0].getsockname()
    print(f"listening on {host}:{port}", flush=True)
    await server.serve_forever()


uvloop.run(main())
