"""socketify: uWebSockets under Python. Serves /echo and /fan; see ../src/lib.rs."""

import resource

from socketify import App, CompressOptions, OpCode

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

behaviour = {
    "compression": CompressOptions.DISABLED,
    "max_payload_length": 1 << 26,
    "max_backpressure": 1 << 26,
    "idle_timeout": 120,
}
app = App()
app.ws("/echo", {**behaviour, "message": lambda ws, message, code: ws.send(message, code)})
app.ws(
    "/fan",
    {
        **behaviour,
        "open": lambda ws: ws.subscribe("fan"),
        "message": lambda ws, message, code: ws.publish("fan", message, OpCode.TEXT),
    },
)
app.listen({"host": "127.0.0.1", "port": 0}, lambda config: print(f"listening on 127.0.0.1:{config.port}", flush=True))
app.run()
