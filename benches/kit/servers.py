"""Servers, each a process that ends with the measurement."""

import os
import subprocess
import threading
import time
import urllib.error
import urllib.request

from .machine import BUILT, SERVER, pinned


class Server:
    """h-realtime on one CPU or on all, with default settings except those given.

    Settings are variables of the environment without their prefix: {"LIMITS__EVENT": "4MiB"}.
    """

    def __init__(self, folder, listen, settings=None, certificate=None, cpu=0):
        folder.mkdir(exist_ok=True)
        self.log = open(folder / "log", "ab")
        command = [SERVER, "serve", "--admin", "127.0.0.1:0", "--data", folder / "data"]
        for url in listen:
            command += ["--listen", url]
        if certificate:
            command += ["--tls-cert", certificate[0], "--tls-key", certificate[1]]
        variables = {f"H_REALTIME_{name}": str(value) for name, value in (settings or {}).items()}
        self.process = subprocess.Popen(pinned(cpu, command), stdout=subprocess.PIPE, stderr=self.log, text=True,
                                        env={**os.environ, **variables})  # fmt: skip
        self.pid = self.process.pid
        urls = {}
        for line in self.process.stdout:
            words = line.split()
            if words[:3] == ["Real", "Time", "API"]:
                urls[words[3].split(":")[0]] = words[3]
            elif words[:1] == ["admin"]:
                urls["admin"] = words[1].rstrip("/")
            elif "Ctrl-C" in line:
                break
        if "admin" not in urls:
            self.end()
            raise SystemExit(f"the server did not start: {(folder / 'log').read_text()}")
        self.ws, self.wss, self.admin = urls.get("ws"), urls.get("wss"), urls["admin"]
        self.key_file = folder / "data/publish.key"
        # Further output is read and discarded.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def end(self):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def wait_until_ready(self, seconds=60):
        """Waits until the backend is available."""
        end = time.monotonic() + seconds
        while True:
            try:
                return self.get("/readyz")
            except urllib.error.HTTPError as error:
                if time.monotonic() > end:
                    raise SystemExit(f"the server is not ready: {error.read().decode()}") from error
            time.sleep(0.05)

    def get(self, path):
        """Returns a page of the admin interface."""
        request = urllib.request.Request(self.admin + path)
        if self.key_file.exists():
            request.add_header("Authorization", f"Bearer {self.key_file.read_text().strip()}")
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.read().decode()

    def publish(self, events):
        """Publishes events, one JSON text each."""
        request = urllib.request.Request(self.admin + "/events", "\n".join(events).encode())
        request.add_header("Authorization", f"Bearer {self.key_file.read_text().strip()}")
        urllib.request.urlopen(request, timeout=30).close()

    def metrics(self):
        lines = (line.rsplit(" ", 1) for line in self.get("/metrics").splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in lines}

    def longest_turn(self, before):
        """Returns the upper bound in seconds of the bucket that has the longest turn since earlier metrics."""
        name = "h_realtime_turn_seconds_bucket{le=\""
        counts = {key[len(name) : -2]: value - before.get(key, 0) for key, value in self.metrics().items()
                  if key.startswith(name)}  # fmt: skip
        most = max(counts.values(), default=0)
        return min((float(bound.replace("+Inf", "inf")) for bound, count in counts.items() if count >= most), default=0)


class Peer:
    """A peer on the first CPU, on a free port. Its name is that of its program."""

    def __init__(self, name, *args):
        address = "0" if name == "uws" else "127.0.0.1:0"
        command = pinned(0, [BUILT / name, address, *args])
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.pid = self.process.pid
        words = self.process.stdout.readline().split()
        if words[:2] != ["listening", "on"]:
            self.end()
            raise SystemExit(f"{name} did not start")
        self.address = words[2]

    def end(self):
        self.process.kill()
        self.process.wait()

    @staticmethod
    def is_built(name):
        return (BUILT / name).exists()
