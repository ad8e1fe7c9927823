"""Validates the schemas of docs/asyncapi.yaml against recordings of h, and against this server.

Reads the server's addresses from standard input, as JSON with the keys `url`, `admin`, `key`, `token`,
`userid`, `document`, `transcripts`, and `program`. The first failure ends the script with a traceback.
"""

import asyncio
import copy
import faulthandler
import http.server as http_server
import json
import pathlib
import queue
import subprocess
import sys
import tempfile
import threading
import urllib.parse
import urllib.request

import yaml
from jsonschema import Draft7Validator
from jsonschema.exceptions import best_match
from websockets.asyncio.client import connect

PATIENCE = 20
NOTIFICATION = "annotation-notification"
# The schema of each message from clients, and from the server.
FROM_CLIENT = {"ping": "ping", "whoami": "whoami", "client_id": "clientId", "filter": "filter"}
FROM_SERVER = {
    "pong": "pong",
    "whoyouare": "whoyouare",
    "error": "error",
    NOTIFICATION: "annotationNotification",
    "session-change": "sessionChange",
    "filter": "filterReply",
    "cursor": "cursorMark",
    "recovery": "recovery",
    "debug": "debug",
}
# A schema cannot express that a URI without a normal form is refused.
NO_URI = "http://[::1"
GROUP_JOIN = {
    "topic": "user",
    "type": "group-join",
    "session_model": {"userid": None, "groups": [{"id": "g1"}], "features": {}, "preferences": {}},
}


class Schemas:
    def __init__(self, document):
        self.document = document

    def of(self, name):
        found = {"$ref": "#/components/schemas/" + name}
        return Draft7Validator({**found, "components": self.document["components"]})

    def check(self, name, message):
        error = best_match(self.of(name).iter_errors(message))
        assert error is None, f"{name}: {error.message[:500]} at {list(error.path)} of {message}"

    def check_from_server(self, message):
        self.check(FROM_SERVER[message["type"]], message)


def examples(schemas):
    """Validates the examples of the document. Each must be invalid without any one of its required keys."""
    for name, message in schemas.document["components"]["messages"].items():
        schema = schemas.document["components"]["schemas"][name]
        Draft7Validator.check_schema(schema)
        for example in message["examples"]:
            schemas.check(name, example["payload"])
            for key in schema.get("required", []):
                less = copy.deepcopy(example["payload"])
                del less[key]
                assert not schemas.of(name).is_valid(less), (name, key)


def recorded(folder):
    """Yields all transcripts."""
    for file in sorted(pathlib.Path(folder).glob("*.jsonl")):
        for line in file.read_text().splitlines():
            yield json.loads(line)


def recorded_from_server(folder):
    for transcript in recorded(folder):
        payloads = transcript.get("payloads", [])
        for step in transcript["steps"]:
            for answer in step.get("expect", []):
                if not isinstance(answer, dict):
                    continue
                if "text" in answer:
                    yield json.loads(answer["text"])
                elif "json" in answer:
                    yield answer["json"]
                elif "payload" in answer:
                    options = {"action": answer["action"]}
                    payload = [payloads[answer["payload"]]]
                    yield {"type": NOTIFICATION, "options": options, "payload": payload}


def is_different_here(message):
    """Returns whether h and this server differ intentionally: h accepts a boolean id, and passes on any action."""
    action = message.get("options", {}).get("action", "create")
    return isinstance(message.get("reply_to"), bool) or action not in ("create", "update", "delete")


def recorded_from_clients(folder):
    """Yields each distinct message of a known type, valid or not."""
    seen = set()
    for transcript in recorded(folder):
        for step in transcript["steps"]:
            if step["op"] != "text" or step.get("data") in seen or "data" not in step:
                continue
            seen.add(step["data"])
            try:
                message = json.loads(step["data"], parse_constant=lambda name: None)
            except ValueError:
                continue
            kind = kind_of(message)
            if kind in FROM_CLIENT:
                yield FROM_CLIENT[kind], message


def kind_of(message):
    if not isinstance(message, dict):
        return None
    kind = message.get("type")
    if kind is None and "filter" in message:
        return "filter"
    if kind is None and message.get("messageType") == "client_id":
        return "client_id"
    return kind if isinstance(kind, str) else None


async def agrees_with_server(schemas, server):
    """Verifies that the server accepts all messages that the schemas allow. Like h, it accepts more, such as
    `"actions": 1` in a filter, but only in filters."""
    taken = refused = 0
    async with connect(server["url"]) as ws:
        for name, message in recorded_from_clients(server["transcripts"]):
            message["id"] = 1
            await ws.send(json.dumps(message))
            await ws.send('{"type": "ping", "id": 2}')
            errors = 0
            while True:
                answer = json.loads(await ws.recv())
                schemas.check_from_server(answer)
                if answer["reply_to"] == 2:
                    break
                errors += answer["type"] == "error"
            allowed = schemas.of(name).is_valid(message) and NO_URI not in json.dumps(message)
            assert not (allowed and errors), (name, message)
            assert allowed or errors or name == "filter", (name, message)
            taken += allowed
            refused += bool(errors)
    assert taken > 50 and refused > 10, (taken, refused)


def publish(server, event):
    request = urllib.request.Request(
        server["admin"] + "events",
        data=json.dumps(event).encode(),
        headers={"Authorization": "Bearer " + server["key"]},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        assert response.status == 202


async def events(schemas, server):
    """Verifies that events that match the schemas are accepted, and that their notifications match them, too."""
    messages = schemas.document["components"]["messages"]
    event = messages["annotationEvent"]["examples"][0]["payload"]
    clause = {"field": "/id", "operator": "equals", "value": event["annotation"]["id"]}
    wanted = {"match_policy": "include_any", "clauses": [clause], "actions": {}}
    header = {"Authorization": "Bearer " + server["token"]}
    async with connect(server["url"], additional_headers=header) as ws:
        await ws.send(json.dumps({"type": "filter", "filter": wanted}))
        await ws.send(json.dumps({"type": "ping", "id": 1}))
        schemas.check_from_server(json.loads(await ws.recv()))
        joined = {**GROUP_JOIN, "userid": server["userid"]}
        joined["session_model"]["userid"] = server["userid"]
        schemas.check("userEvent", joined)
        for told in (event, {**event, "action": "update"}, {**event, "action": "delete"}, joined):
            await asyncio.to_thread(publish, server, told)
            message = json.loads(await ws.recv())
            schemas.check_from_server(message)
            action = message.get("action") or message["options"]["action"]
            assert action == told.get("action", told.get("type"))


async def cursors(schemas, server):
    """Verifies the messages of a connection that resumes."""
    event = schemas.document["components"]["messages"]["annotationEvent"]["examples"][0]["payload"]
    clause = {"field": "/id", "operator": "equals", "value": event["annotation"]["id"]}
    wanted = {"match_policy": "include_any", "clauses": [clause], "actions": {}}
    since = "now"
    for recovered, expected in ((True, "filter"), (True, "filter"), (False, "filter"), (None, "error")):
        async with connect(server["url"]) as ws:
            subscribe = {"type": "filter", "id": 1, "filter": wanted, "since": since}
            schemas.check("filter", subscribe)
            await ws.send(json.dumps(subscribe))
            reply = json.loads(await ws.recv())
            schemas.check_from_server(reply)
            assert (reply["type"], reply.get("recovered")) == (expected, recovered), reply
            if recovered is None:
                assert reply["error"]["type"] == "invalid_cursor"
            elif since == "now":
                since = reply["cursor"]
                await asyncio.to_thread(publish, server, event)
                message = json.loads(await ws.recv())
                schemas.check_from_server(message)
                assert list(message)[-1] == "cursor"
            elif recovered:
                again = json.loads(await ws.recv())
                assert again["payload"] == message["payload"], (again, message)
                since = "1970-01-01T00:00:00Z"
            else:
                since = "2970-01-01T00:00:00Z"


async def acknowledgements(schemas, server):
    """Verifies the server's interpretation of filters: of the examples, and of one that is too long for a reply."""
    messages = [example["payload"] for example in schemas.document["components"]["messages"]["filter"]["examples"]]
    long = {"field": "/tags", "operator": "one_of", "value": [f"{number}{'x' * 300}" for number in range(200)]}
    unknown = [{"field": "/nope", "operator": "like", "value": 1}, {"field": "/id", "operator": "like", "value": "A"}]
    for clauses in ([long], unknown):
        messages.append({"filter": {"match_policy": "include_all", "clauses": clauses, "actions": {}}})
    replies = []
    async with connect(server["url"]) as ws:
        for message in messages:
            await ws.send(json.dumps({**message, "type": "filter", "id": 1, "ack": True}))
            while (reply := json.loads(await ws.recv()))["type"] != "filter":
                schemas.check_from_server(reply)
            schemas.check_from_server(reply)
            replies.append(reply)
    assert sum("truncated" in reply for reply in replies) == 1
    assert len(replies[-1]["ignored"]) == 2, replies[-1]


def http(server, path, **fields):
    url = server["url"].replace("ws://", "http://").removesuffix("/ws") + path
    return urllib.request.urlopen(urllib.request.Request(url, headers=fields), timeout=PATIENCE)


def description(schemas, server):
    """Verifies the description of the server, and that the filter language of the schemas is the described one."""
    with http(server, "/ws", Accept="application/json") as response:
        described = json.load(response)
    schemas.check("description", described)
    clause = schemas.document["components"]["schemas"]["interpretedFilter"]["properties"]["clauses"]["items"]
    assert set(described["fields"]) == set(clause["properties"]["field"]["enum"]), described
    operators = schemas.document["components"]["schemas"]["clause"]["properties"]["operator"]["enum"]
    assert set(described["operators"]) == set(operators), described
    with http(server, described["documentation"]) as response:
        assert yaml.safe_load(response.read()) == schemas.document


def blocks(response):
    """Yields the fields of each block of an event stream."""
    block = {}
    for line in response:
        name, _, value = line.decode().rstrip("\n").partition(":")
        if not name and not value:
            yield block
            block = {}
        elif name:
            block[name] = value.removeprefix(" ")


def event_stream(schemas, server):
    """Verifies the events of a stream, and that the parameters of the schema are those of the server."""
    parameters = schemas.document["components"]["schemas"]["streamQuery"]["properties"]
    values = {"match": "any", "actions": "create,delete", "since": "now", "last_event_id": "", "access_token": None}
    patterns = {"wildcard_uri": "https://example.org/*", "not_wildcard_uri": "https://example.org/*"}
    query = {name: {**values, **patterns}.get(name, "x") for name in parameters}
    query = urllib.parse.urlencode({name: value for name, value in query.items() if value is not None})
    with http(server, "/sse?" + query):
        pass
    event = schemas.document["components"]["messages"]["annotationEvent"]["examples"][0]["payload"]
    expected = [("recovery", "recovery"), (None, "annotationNotification"), (None, "annotationNotification")]
    query = {"id": event["annotation"]["id"], "since": "1970-01-01T00:00:00Z"}
    with http(server, "/sse?" + urllib.parse.urlencode(query)) as response:
        found = blocks(response)
        position = next(block for block in found if "id" in block)
        schemas.check("cursor", position["id"])
        for action in ("create", "delete"):
            publish(server, {**event, "action": action})
        for kind, schema in expected:
            block = next(block for block in found if "data" in block)
            assert block.get("event") == kind, block
            schemas.check(schema, json.loads(block["data"]))


async def debugging(schemas, server):
    """Verifies the debug messages of a connection."""
    async with connect(server["url"] + "?debug=1") as ws:
        example = schemas.document["components"]["messages"]["filter"]["examples"][0]["payload"]
        for message, expected in (({**example, "id": None}, "filter"), ({"type": "nope"}, "rejected")):
            await ws.send(json.dumps(message))
            debug = json.loads(await ws.recv())
            schemas.check_from_server(debug)
            assert (debug["type"], debug["event"]) == ("debug", expected), debug


def explanations(schemas, server):
    """Verifies explanations: for the examples, and for an open connection."""
    examples = schemas.document["components"]["messages"]["explainRequest"]["examples"]
    url, key = server["admin"] + "explain", "Bearer " + server["key"]
    for example in examples:
        body = json.dumps(example["payload"]).encode()
        request = urllib.request.Request(url, data=body, headers={"Authorization": key})
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            schemas.check("explanation", json.load(response))


def webhooks(schemas, server):
    """Verifies the requests of h-realtime forward."""
    received = queue.Queue()

    class Receiver(http_server.BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["Content-Length"])
            received.put((dict(self.headers), json.loads(self.rfile.read(length))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    receiver = http_server.HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{receiver.server_port}/hook"
    folder = tempfile.TemporaryDirectory()
    state = str(pathlib.Path(folder.name) / "state")
    command = [server["program"], "forward", server["url"], "--group", "__world__", "--url", url, "--state", state]
    event = schemas.document["components"]["messages"]["annotationEvent"]["examples"][0]["payload"]
    properties = schemas.document["components"]["messages"]["webhookEvent"]["headers"]["properties"]
    program = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        for line in program.stderr:
            if line.startswith("connected"):
                break
        for action in ("create", "update", "delete"):
            publish(server, {**event, "action": action})
            fields, payload = received.get(timeout=PATIENCE)
            schemas.check("webhookEvent", payload)
            assert payload["type"] == f"annotation.{action}d", payload
            names = {name.lower() for name in fields}
            assert set(properties) - {"webhook-signature"} <= names, names
    finally:
        program.kill()
        program.wait()
        receiver.shutdown()
        folder.cleanup()


async def main():
    server = json.load(sys.stdin)
    schemas = Schemas(yaml.safe_load(pathlib.Path(server["document"]).read_text()))
    examples(schemas)
    count = 0
    for message in recorded_from_server(server["transcripts"]):
        if not is_different_here(message):
            schemas.check_from_server(message)
            count += 1
    assert count > 400, count
    async with asyncio.timeout(PATIENCE):
        await agrees_with_server(schemas, server)
        await events(schemas, server)
        await cursors(schemas, server)
        await acknowledgements(schemas, server)
        await asyncio.to_thread(description, schemas, server)
        await asyncio.to_thread(event_stream, schemas, server)
        await debugging(schemas, server)
        await asyncio.to_thread(explanations, schemas, server)
        await asyncio.to_thread(webhooks, schemas, server)


# Ends the script if it hangs anywhere.
faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)
asyncio.run(main())
