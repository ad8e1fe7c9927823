"""websockets on uvloop, without compression. Serves /echo and /fan; see ../src/lib.rs."""

import asyncio
import resource

import uvloop
from websockets.asyncio.server import broadcast, serve

fan = set()


async def handle(socket):
    if socket.request.path != "/fan":
        async for message in socket:
            await socket.send(message)
        return
    fan.add(socket)
    try:
        async for message in socket:
            broadcast(fan - {socket}, message)
    finally:
        fan.discard(socket)


async def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    async with serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None, max_size=1 << 26, backlog=4096) as server:
        host, port = server.sockets[0].getsockname()
        print(f"listening on {host}:{port}", flush=True)
        await asyncio.get_running_loop().create_future()


uvloop.run(main())
