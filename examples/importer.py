"""Mirrors annotations to a folder, one file each, including edits and deletions. It loses nothing across
its own restarts and those of the server: docs/importer.md describes the method.

    python3 -m venv venv && venv/bin/pip install 'websockets>=13'
    venv/bin/python importer.py ws://127.0.0.1:5001/ws notes --group __world__ --format md

With an access token in the environment variable H_REALTIME_TOKEN, it mirrors everything that its user may
read. With `--api`, the address of h's API, it also fetches the annotations that exist already, at the first
start and after a gap. The folder must have no other purpose.
"""

import argparse
import asyncio
import json
import os
import pathlib
import sys
import time
import urllib.parse
import urllib.request

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

TOKEN = os.environ.get("H_REALTIME_TOKEN")
HEADERS = {"Authorization": "Bearer " + TOKEN} if TOKEN else {}
# In seconds: the time after which h's search finds a new annotation. Later ones arrive as events.
SEARCH_LAG = 5
# In seconds: a server with cursors replies to the filter once it has loaded its history.
REPLY_TIMEOUT = 60


class Importer:
    def __init__(self, arguments):
        self.arguments = arguments
        self.folder = pathlib.Path(arguments.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.state = self.folder / ".cursor"
        self.is_new = not self.state.exists()
        self.since = "now" if self.is_new else self.state.read_text().strip()
        self.wanted = [("/group", group) for group in arguments.group]
        self.wanted += [("/uri", uri) for uri in arguments.uri]

    async def run(self):
        # Reconnects after a failed attempt or a lost connection, with increasing delays.
        async for socket in connect(self.arguments.url, additional_headers=HEADERS):
            try:
                await self.listen(socket)
            except ConnectionClosed as closed:
                log(closed)
                if closed.rcvd is not None and closed.rcvd.code == 3000:
                    sys.exit("the token has ended: get another one")

    async def listen(self, socket):
        clauses = [{"field": field, "operator": "equals", "value": value} for field, value in self.wanted]
        wanted = {"match_policy": "include_any", "actions": {}, "clauses": clauses}
        subscribe = {"type": "filter", "id": 1, "filter": wanted, "since": self.since}
        await socket.send(json.dumps(subscribe))
        timeout = REPLY_TIMEOUT
        while True:
            try:
                message = json.loads(await asyncio.wait_for(socket.recv(), timeout))
            except TimeoutError:
                sys.exit("the server does not support cursors")
            timeout = None
            await self.process(message)
            # The cursor is stored after its message has been processed: a crash in between repeats the
            # message, which does no harm, since files are replaced and removed by id.
            if "cursor" in message:
                self.since = message["cursor"]
                store(self.state, self.since)

    async def process(self, message):
        match message.get("type"):
            case "annotation-notification":
                for annotation in message["payload"]:
                    if message["options"]["action"] == "delete":
                        self.file(annotation["id"]).unlink(missing_ok=True)
                    else:
                        self.save(annotation)
            case "filter" if not message["recovered"]:
                await self.fetch_all(f"gap: some events after {self.since} are no longer available")
            case "filter" if self.is_new:
                await self.fetch_all("first start")
            case "session-change":
                await self.fetch_all("the user has joined or left a group")
            case "error":
                sys.exit(f"{message['error']['description']}; to start again, remove {self.state}")

    async def fetch_all(self, reason):
        self.is_new = False
        if self.arguments.api is None:
            log(f"{reason}; without --api, annotations from before this moment may be missing or outdated")
            return
        log(f"{reason}; fetching all annotations from {self.arguments.api}")
        # In a thread, so that the connection stays alive. The events of the meantime wait in the socket,
        # or are sent again after a reconnect.
        found = await asyncio.to_thread(self.search_all)
        for file in self.folder.glob("*." + self.arguments.format):
            if file not in found:
                file.unlink()
        log(f"fetched {len(found)} annotations")

    def search_all(self):
        time.sleep(SEARCH_LAG)
        return {self.save(row) for field, value in self.wanted for row in self.search(field[1:], value)}

    def search(self, name, value):
        """Yields the annotations that h's search finds: all pages, in the order of their ids."""
        query = {name: value, "sort": "id", "order": "asc", "limit": 200}
        while True:
            url = self.arguments.api.rstrip("/") + "/search?" + urllib.parse.urlencode(query)
            with urllib.request.urlopen(urllib.request.Request(url, headers=HEADERS), timeout=60) as response:
                rows = json.load(response)["rows"]
            if not rows:
                return
            yield from rows
            query["search_after"] = rows[-1]["id"]

    def save(self, annotation):
        file = self.file(annotation["id"])
        is_markdown = self.arguments.format == "md"
        store(file, markdown(annotation) if is_markdown else json.dumps(annotation, indent=2))
        return file

    def file(self, annotation_id):
        # An id must not name a file elsewhere.
        return self.folder / f"{urllib.parse.quote(annotation_id, safe='')}.{self.arguments.format}"


def markdown(annotation):
    keys = ("id", "uri", "user", "group", "created", "updated", "tags", "references")
    # JSON values are valid YAML.
    front = [f"{key}: {json.dumps(annotation[key])}" for key in keys if key in annotation]
    parts = [part for target in annotation["target"] for part in target.get("selector", [])]
    quotes = ["> " + " ".join(part["exact"].split()) for part in parts if "exact" in part]
    return "\n".join(["---", *front, "---", *quotes, "", annotation["text"], ""])


def store(path, text):
    """Replaces a file. After a crash, it has either the old text or the new one."""
    draft = path.with_name(path.name + ".tmp")
    with open(draft, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def log(line):
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Mirrors annotations to a folder, one file each.")
    parser.add_argument("url", help="the server, such as ws://127.0.0.1:5001/ws")
    parser.add_argument("folder", help="the folder for the files, and for the cursor in .cursor")
    parser.add_argument("--group", action="append", default=[], help="may be repeated, like --uri")
    parser.add_argument("--uri", action="append", default=[])
    parser.add_argument("--format", choices=("json", "md"), default="json")
    parser.add_argument("--api", help="h's API, such as https://h.example.org/api")
    arguments = parser.parse_args()
    if not arguments.group and not arguments.uri:
        parser.error("--group or --uri is missing")
    try:
        asyncio.run(Importer(arguments).run())
    except KeyboardInterrupt:
        pass
