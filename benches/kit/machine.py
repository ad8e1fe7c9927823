"""Building, CPU assignment, processes, and tables."""

import os
import pathlib
import signal
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# BENCH_SERVER in the environment names another build, for comparisons.
SERVER = pathlib.Path(os.environ.get("BENCH_SERVER", ROOT / "target/release/h-realtime"))
BUILT = ROOT / "target/benches/cargo/release"
LOAD = BUILT / "load"


# The end of a measurement always ends its servers.
signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))


def build(*features):
    """Builds the server and the load generator, unless BENCH_BUILD=0 is in the environment."""
    if os.environ.get("BENCH_BUILD", "1") == "0":
        return
    for words in (
        ["--bin", "h-realtime", *features],
        ["--locked", "--manifest-path", "benches/load/Cargo.toml", "--target-dir", "target/benches/cargo"],
    ):
        subprocess.run(["cargo", "build", "--release", "--quiet", *words], cwd=ROOT, check=True)


def pinned(cpu, command):
    """Returns a command that runs on one CPU, if there are two, or on all (None).

    As root, it has the highest priority of ordinary programs, so that others on this machine disturb it less.
    """
    words = ["taskset", "-c", str(cpu)] if cpu is not None and (os.cpu_count() or 1) >= 2 else []
    words += ["nice", "-n", "-20"] if os.getuid() == 0 else []
    return words + [str(word) for word in command]


def certificate(folder):
    """Creates a certificate for localhost, and returns its file and that of its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(["openssl", *words.split(), *names, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


def scheduled(pid):
    """Returns the seconds of CPU time of a process, and those for which its threads waited for a CPU."""
    totals = [0, 0]
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        words = (task / "schedstat").read_text().split()
        totals = [total + int(word) for total, word in zip(totals, words)]
    return [total / 1e9 for total in totals]


def resident(pid):
    """Returns the resident memory of a process in bytes, exact to a page."""
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/{pid}/smaps_rollup has no Rss")


def table(head, rows):
    """Prints a table: the first and the last column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        first, *middle = (word.rjust(width) for word, width in zip(row[:-1], widths))
        print("  ".join([first.strip().ljust(widths[0]), *middle, row[-1]]).rstrip())
    print()


def progress(text):
    if sys.stderr.isatty():
        print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)
