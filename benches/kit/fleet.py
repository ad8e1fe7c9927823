"""More connections than one process has descriptors: several servers on one port, and several load processes."""

import json
import pathlib
import subprocess
import time

from .machine import LOAD, pinned, resident, scheduled
from .servers import Server
from .site import free_port

# The number of connections of one process, whose limit is 20,000 descriptors. The kernel distributes connections over
# the servers at random, so that a server has some more than the average.
MOST = 18_500
CLIENT_ID = '{"messageType":"client_id","value":"00000000000000000000000000{n}"}'
WHOAMI = '{"type":"whoami","id":1}'
PAGE = "https://example.org/a/page/of/its/own/"
ALL = "https://example.org/all"
CACHES = ["TCP", "sock_inode_cache", "filp", "eventpoll_epi", "eventpoll_pwq", "ep_head"]


def subscription(*uris):
    """Returns a message that subscribes to these addresses as h's client does."""
    clause = {"field": "/uri", "operator": "one_of", "value": uris, "case_sensitive": False}
    actions = {"create": True, "update": True, "delete": True}
    return json.dumps({"filter": {"match_policy": "include_any", "actions": actions, "clauses": [clause]}})


class Fleet:
    """Servers on one port, and clients in processes of their own."""

    def __init__(self, folder, connections, settings, server_cpu, load_cpu, shares_data=False):
        self.connections, self.load_cpu = connections, load_cpu
        count = max(1, -(-connections // MOST))
        self.port = free_port()
        self.servers, self.watchers = [], []
        settings = {**settings, "REUSE_PORT": "true"}
        for number in range(count):
            place = pathlib.Path(folder) / ("server" if shares_data else f"server-{number}")
            server = Server(place, [f"ws://127.0.0.1:{self.port}"], settings, cpu=server_cpu)
            self.servers.append(server)
        for server in self.servers:
            server.wait_until_ready()

    def connect(self, hello):
        """Connects all clients, each of which sends these messages. Returns how many seconds that took."""
        count, began = len(self.servers), time.monotonic()
        for number in range(count):
            first = self.connections * number // count
            some = self.connections * (number + 1) // count - first
            words = [LOAD, "watch", f"ws://127.0.0.1:{self.port}/ws", "-n", some, "--first", first, "--opening", 256]
            words += ["--sources", 200, "--deadline", 3600, "--hello-answers", 1, "--json", "-"]
            for message in [*hello, WHOAMI]:
                words += ["--hello", message]
            command = pinned(self.load_cpu, words)
            self.watchers.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        for watcher in self.watchers:
            line = watcher.stdout.readline()
            if not line.startswith("ready "):
                raise SystemExit("a load process did not connect all its clients")
        return time.monotonic() - began

    def memory(self):
        """Returns the resident memory of all servers."""
        return sum(resident(server.pid) for server in self.servers)

    def cpu(self):
        """Returns the seconds of CPU time of all servers, and those for which they waited for a CPU."""
        return [sum(parts) for parts in zip(*(scheduled(server.pid) for server in self.servers))]

    def arrivals(self):
        """Ends the clients, and returns for each event the arrival times at all of them, in nanoseconds."""
        found = {}
        for watcher in self.watchers:
            watcher.stdin.close()
        for watcher in self.watchers:
            report = json.loads(watcher.stdout.read())
            for number, times in report["arrivals_ns"].items():
                found.setdefault(int(number), []).extend(times)
            watcher.wait()
        return found

    def end(self):
        for watcher in self.watchers:
            watcher.kill()
            watcher.wait()
        for server in self.servers:
            server.end()


def kernel_memory():
    """Returns the kernel's memory for sockets in bytes: all slabs, those of sockets alone, and pages of TCP buffers."""
    slabs = 0
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Slab:"):
            slabs = int(line.split()[1]) * 1024
    caches = {}
    try:
        for line in pathlib.Path("/proc/slabinfo").read_text().splitlines()[2:]:
            words = line.split()
            # The objects in use, and the size of one.
            caches[words[0]] = int(words[1]) * int(words[3])
    except PermissionError:
        pass
    pages = 0
    for line in pathlib.Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            pages = int(line.split()[-1]) * 4096
    return {"slab": slabs, "buffers": pages, **{name: caches.get(name, 0) for name in CACHES}}


def descendants_cpu(pids):
    """Returns the seconds of CPU time of these processes and their running descendants."""
    parents = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
        except OSError:
            continue
        parents[int(folder.name)] = int(stat.rsplit(")", 1)[1].split()[1])
    wanted, more = set(pids), True
    while more:
        more = {pid for pid, parent in parents.items() if parent in wanted} - wanted
        wanted |= more
    total = 0
    for pid in wanted:
        try:
            total += scheduled(pid)[0]
        except OSError:
            continue
    return total


def delays(arrivals, published, numbers):
    """Returns for each event the milliseconds until its last arrival, and the number of its arrivals."""
    found = []
    for number in numbers:
        times = arrivals.get(number, [])
        last = max(times, default=None)
        found.append((None if last is None else (last - published[number]) / 1e6, len(times)))
    return found


def median(values):
    values = sorted(value for value in values if value is not None)
    return values[len(values) // 2] if values else None
