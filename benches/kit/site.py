"""PostgreSQL and RabbitMQ as h uses them, from Debian's packages: in a temporary folder, on free ports, on loopback."""

import base64
import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import time
import uuid

from .amqp import Publisher
from .machine import ROOT, pinned

# Durability is not needed.
SETTINGS = ["fsync=off", "full_page_writes=off", "synchronous_commit=off", "shared_buffers=64MB", "max_connections=200"]
RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"


USED = set()


def free_port():
    """Returns a free port, another one at each call, below those that the kernel assigns to clients."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as found:
            try:
                found.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in USED:
            USED.add(port)
            return port


def as_user(user, command, cpu):
    """Returns a command that runs as this user, on one CPU."""
    words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"] if os.getuid() == 0 else []
    return pinned(cpu, words + [str(word) for word in command])


def give_to(user, folder):
    if os.getuid() == 0:
        shutil.chown(folder, user, user)
        folder.chmod(0o755)


class Process:
    """A program that runs until the end of the measurement."""

    def __init__(self, command, folder, environment=None):
        self.log = folder / "log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})},
                                            start_new_session=True)  # fmt: skip

    def wait_until(self, seconds, is_ready):
        end = time.monotonic() + seconds
        while not is_ready():
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{self.process.args} did not start: {self.log.read_text()}")
            time.sleep(0.1)

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class RabbitMq:
    """A broker with the virtual hosts v0 and v1."""

    def __init__(self, folder, cpu=None):
        folder = pathlib.Path(folder) / "rabbitmq"
        folder.mkdir()
        self.port, node, epmd = free_port(), free_port(), free_port()
        vhosts = [{"name": f"v{number}"} for number in range(2)]
        every = {"user": "guest", "configure": ".*", "write": ".*", "read": ".*"}
        definitions = {
            "users": [{"name": "guest", "password": "guest", "tags": ""}], "vhosts": vhosts,
            "permissions": [{**every, "vhost": vhost["name"]} for vhost in vhosts],
        }  # fmt: skip
        (folder / "definitions.json").write_text(json.dumps(definitions))
        (folder / "enabled_plugins").write_text("[].")
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\nload_definitions = {folder}/definitions.json\n"
            "log.file.level = warning\nheartbeat = 0\n"
        )
        give_to("rabbitmq", folder)
        environment = {
            "HOME": str(folder), "ERL_EPMD_PORT": str(epmd), "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null", "RABBITMQ_NODENAME": "bench@localhost",
            "RABBITMQ_DIST_PORT": str(node), "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins", "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log.d", "RABBITMQ_PID_FILE": f"{folder}/pid", "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput -kernel inet_dist_use_interface {127,0,0,1}",
        }  # fmt: skip
        # The port mapper would be started as a daemon that outlives the broker.
        mapper = folder / "epmd"
        mapper.mkdir()
        command = ["epmd", "-address", "127.0.0.1", "-port", epmd]
        self.epmd = Process(as_user("rabbitmq", command, cpu), mapper, environment)
        self.broker = Process(as_user("rabbitmq", [RABBITMQ], cpu), folder, environment)
        self.broker.wait_until(120, lambda: "completed with" in self.broker.log.read_text())

    def url(self, number=0):
        return f"amqp://guest:guest@127.0.0.1:{self.port}/v{number}"

    def publisher(self, number=0):
        return Publisher(self.port, f"v{number}")

    def end(self):
        self.broker.end()
        self.epmd.end()


class Postgres:
    """A database with h's tables and the rows of the tests (tests/data/h)."""

    def __init__(self, folder, cpu=None):
        folder = pathlib.Path(folder) / "postgresql"
        folder.mkdir()
        give_to("postgres", folder)
        self.port = free_port()
        words = ["--no-sync", "--no-instructions", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]
        command = as_user("postgres", [program("initdb"), *words, folder / "data"], cpu)
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        words = ["-D", folder / "data", "-k", folder, "-h", "127.0.0.1", "-p", self.port]
        settings = [word for setting in SETTINGS for word in ("-c", setting)]
        self.server = Process(as_user("postgres", [program("postgres"), *words, *settings], cpu), folder)
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self.server.wait_until(30, lambda: self.psql("-c", "SELECT 1").returncode == 0)
        files = [f"--file={ROOT}/tests/data/h/{name}.sql" for name in ("schema", "seed")]
        made = self.psql("--single-transaction", *files)
        if made.returncode != 0:
            raise SystemExit(made.stderr)
        command = [program("psql"), *PSQL, self.url]
        self.session = subprocess.Popen(as_user("postgres", command, cpu), cwd=folder, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)  # fmt: skip

    def psql(self, *words):
        return subprocess.run([program("psql"), *PSQL, self.url, *words], capture_output=True, text=True)

    def run(self, sql):
        """Runs statements in a session that stays open."""
        self.session.stdin.write(sql + "\n\\echo done\n")
        self.session.stdin.flush()
        if self.session.stdout.readline() != "done\n":
            raise SystemExit("a statement failed")

    def end(self):
        self.session.stdin.close()
        self.session.wait()
        self.server.end()


PSQL = ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", "--dbname"]


def program(name):
    """Returns a program of the newest installed PostgreSQL. Debian keeps them out of the PATH."""
    found = pathlib.Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
    newest = max(found, key=lambda path: int(path.parts[-3]), default=None)
    return newest or name


class H:
    """Both, and annotations as h's web application creates them."""

    def __init__(self, folder, cpu=None):
        self.database = Postgres(folder, cpu)
        self.broker = RabbitMq(folder, cpu)
        self.publisher = None

    def settings(self):
        """Returns the settings of a server of h-realtime for this installation."""
        return {"BACKEND": "h", "H__DATABASE_URL": self.database.url, "AMQP__URL": self.broker.url()}

    def annotate(self, number, uri, text="x" * 400):
        """Creates a public annotation and publishes its event. Returns when it was published, in nanoseconds."""
        if self.publisher is None:
            self.publisher = self.broker.publisher()
        name = uuid.uuid4()
        row = f"('{name}', 'acct:alice@localhost', '__world__', 'event-{number:06} {text}', true, '{uri}', 1, "
        columns = "id, userid, groupid, text, shared, target_uri, document_id, moderation_status, created, updated"
        now = "'APPROVED', now() AT TIME ZONE 'utc', now() AT TIME ZONE 'utc')"
        self.database.run(f"INSERT INTO annotation ({columns}) VALUES {row}{now};")
        event = {"action": "create", "annotation_id": url_safe(name), "src_client_id": None}
        published = time.monotonic_ns()
        self.publisher.publish("annotation", json.dumps(event).encode())
        return published

    def end(self):
        self.database.end()
        self.broker.end()


def url_safe(name):
    """Returns a UUID as h writes it in URLs and events."""
    return base64.urlsafe_b64encode(name.bytes).decode().rstrip("=")
