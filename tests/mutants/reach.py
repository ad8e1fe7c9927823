"""Runs tests of a build with switchable mutants: which mutants each test reaches, and which tests a mutant fails."""

import json
import math
import os
import re
import resource
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

# The limit on a process's memory in bytes, since a mutant may remove a bound on memory.
MEMORY = 3 << 30
# A process may use this many seconds of processor time more than ten times those that its tests use without a mutant,
# and at most LONG seconds more than three times those.
PROCESSOR = 0.5
LONG = 2.0
# A server that a test has started may use this many seconds more.
SERVER = 5
# Threads may all sleep for this many seconds more than three times the duration of the tests without a mutant, and for
# three times as long when the test runs alone.
IDLE = 5
# A process ends after this time in any case.
LONGEST = 400
# The number of seeds of a simulation.
SEEDS = "8"
# Tests that run for longer without a mutant are not used.
SLOW = 20.0
# The durations of the tests, in seconds, that run for a mutant as one batch.
BATCHES = [0.03, 0.1, 0.3, 1.0, 3.0]
STEP = 8.0


@dataclass
class Test:
    binary: str
    name: str
    seconds: float = 0.0
    processor: float = 0.0
    passed: bool = False
    reached: set = field(default_factory=set)


@dataclass
class Outcome:
    said: str
    # "passed", "failed", "aborted", "busy" (exceeded the processor time), or "late" (slept, or ran for too long).
    ending: str
    seconds: float
    processor: float

    def failed(self, tests):
        """Returns the names of the tests that failed, or did not end."""
        results = dict(re.findall(r"^test (\S+)(?: - should panic)? \.\.\. (?:.*?)\b(ok|FAILED)$", self.said, re.M))
        failed = [test.name for test in tests if results.get(test.name) == "FAILED"]
        return failed or [test.name for test in tests if self.ending != "passed" and results.get(test.name) != "ok"]


def is_asleep(pid):
    """Whether no thread of the process runs or could run. A stopped thread could."""
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] in "RDTt":
                    return False
    except OSError:
        return False
    return True


def processor_time(pid):
    """Returns the seconds of processor time that a process has used."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            user, system = file.read().rsplit(")", 1)[1].split()[11:13]
    except OSError:
        return 0.0
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def watch(process, processor_limit, idle_limit, longest=LONGEST):
    """Waits for a process; returns the limit that it exceeded, if any ("busy": processor time, "late": it slept, or ran
    for too long), the processor time that it used, and its duration on an idle machine: that time, and the time during
    which it slept. Time during which this program was stopped is not counted."""
    idle = asleep = total = 0.0
    step = 0.002
    exceeded = None
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            used = usage.ru_utime + usage.ru_stime
            return exceeded, used, used + asleep
        time.sleep(step)
        total += step
        step = min(step * 1.3, 0.2)
        is_idle = is_asleep(process.pid)
        asleep += step * is_idle
        idle = idle + step if is_idle else 0.0
        if processor_time(process.pid) > processor_limit:
            exceeded = "busy"
        elif idle > idle_limit or total > longest:
            exceeded = "late"
        if exceeded:
            # Unlike `process.kill`, this never waits for the process.
            os.kill(process.pid, signal.SIGKILL)


def run(tree, path, tests, number, trace=None, patience=1):
    """Runs tests of one binary in a process. Limits of time are multiplied by `patience`."""
    known = sum(test.processor for test in tests), sum(test.seconds for test in tests)
    processor = min(PROCESSOR + 10 * known[0], LONG + 3 * known[0]) if known[1] else LONGEST
    environment = os.environ | {"MUTANT": str(number), "SEEDS": SEEDS, "CARGO_MANIFEST_DIR": str(tree),
                                "RUST_BACKTRACE": "0"}
    if trace is not None:
        environment |= {"MUTANT": "trace", "MUTANT_TRACE": str(trace)}

    def limit():
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        # This also ends servers that a test has started.
        most = math.ceil(processor) + SERVER
        resource.setrlimit(resource.RLIMIT_CPU, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    command = [path, "--exact", "--test-threads=1", *[test.name for test in tests]]
    # Unit tests remain in the group of this program, and stop with it.
    starts_servers = not tests[0].binary.startswith("lib")
    with open(tree.parent / f"said.{os.getpid()}.{threading.get_ident()}", "w+b") as said:
        process = subprocess.Popen(command, cwd=tree, env=environment, stdout=said, stderr=subprocess.STDOUT,
                                   stdin=subprocess.DEVNULL, start_new_session=starts_servers, preexec_fn=limit)
        exceeded, used, took = watch(process, processor, patience * (IDLE + 3 * known[1]))
        if starts_servers:
            end_group(process.pid)
        said.seek(0)
        text = said.read().decode(errors="replace")
    ending = exceeded or {0: "passed", 101: "failed"}.get(process.returncode, "aborted")
    if ending == "aborted" and process.returncode in (-signal.SIGKILL, -signal.SIGXCPU):
        ending = "busy"
    return Outcome(text, ending, took, used)


def end_group(number):
    """Ends servers that a test has left running."""
    try:
        os.killpg(number, signal.SIGKILL)
    except ProcessLookupError:
        pass


def list_tests(tree, path):
    def names(*options):
        command = [path, "--list", "--format=terse", *options]
        said = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True).stdout
        return re.findall(r"^(\S+): test$", said, re.M)

    ignored = set(names("--ignored"))
    return [name for name in names() if name not in ignored]


def trace(tree, binary, path, name):
    """Runs one test with and without the trace."""
    file = tree.parent / f"trace.{os.getpid()}.{threading.get_ident()}"
    file.write_bytes(b"")
    test = Test(binary, name)
    outcome = run(tree, path, [test], 0, file)
    test.reached = {int(line) for line in file.read_text().split()}
    # A test may notice the file that the trace writes; its threads may share the processor with others'.
    for _ in range(2):
        if outcome.ending == "passed" and not test.seconds:
            test.passed = True
        else:
            outcome = run(tree, path, [test], 0)
            test.passed = outcome.ending == "passed"
        if test.passed:
            break
    test.seconds, test.processor = outcome.seconds, outcome.processor
    return test


def trace_all(tree, paths, jobs, told):
    """Returns all tests that pass."""
    names = [(binary, path, name) for binary, path in paths.items() for name in list_tests(tree, path)]
    with ThreadPoolExecutor(jobs) as pool:
        tests = []
        for test in pool.map(lambda item: trace(tree, *item), names):
            tests.append(test)
            if not test.passed:
                told(f"without a mutant, {test.binary} {test.name} fails; it is left out")
            elif len(tests) % 100 == 0:
                told(f"{len(tests)} of {len(names)} tests traced")
    return [test for test in tests if test.passed]


def save(tests, file, of):
    entries = [test.__dict__ | {"reached": sorted(test.reached)} for test in tests]
    file.write_text(json.dumps({"digest": of, "tests": entries}))


def digest(file):
    """Returns the digest of the binary whose tests were traced."""
    return json.loads(file.read_text())["digest"]


def load(file):
    return [Test(**(entry | {"reached": set(entry["reached"])})) for entry in json.loads(file.read_text())["tests"]]


class Hunter:
    """Runs the tests that reach a mutant, the quickest first, until one fails."""

    def __init__(self, tree, paths, tests, budget):
        self.tree = tree
        self.paths = paths
        self.budget = budget
        self.by_mutant = {}
        for test in tests:
            for number in test.reached:
                self.by_mutant.setdefault(number, []).append(test)

    def batches(self, mutant, tests):
        """Yields groups of tests of one binary. Those beside the code come first."""
        stem = mutant.file.removeprefix("src/").removesuffix(".rs").removesuffix("/mod").removeprefix("engine/")
        module = stem.replace("/", "::") + "::"
        tests = sorted((test for test in tests if test.seconds <= SLOW),
                       key=lambda test: (max(test.seconds, 0.01) * (0.2 if test.name.startswith(module) else 1)
                                         * (1 if test.binary.startswith("lib") else 2)))
        sizes, group, filled = iter(BATCHES), [], 0.0
        size = next(sizes)
        for test in tests:
            group.append(test)
            filled += max(test.seconds, 0.005)
            if filled >= size:
                yield group
                group, filled, size = [], 0.0, next(sizes, STEP)
        if group:
            yield group

    def hunt(self, mutant, tried):
        """Returns the result, the test that failed and how, and the seconds of tests that were not run. The tests of
        binaries that were tried before do not run again."""
        tests = [test for test in self.by_mutant.get(mutant.number, ()) if test.binary not in tried]
        if not tests:
            return "not covered", "", "", 0.0
        spent, left = 0.0, 0.0
        for group in self.batches(mutant, tests):
            if self.budget and spent >= self.budget:
                left += sum(test.seconds for test in group)
                continue
            for binary in dict.fromkeys(test.binary for test in group):
                tests = [test for test in group if test.binary == binary]
                found = self.fails(mutant, binary, tests)
                if found:
                    return "killed", *found, 0.0
            spent += sum(test.seconds for test in group)
        return "survived", "", "", left

    def fails(self, mutant, binary, tests):
        """Returns the test that fails and how, or None. A failure counts if the test then fails alone, too, with longer
        limits: otherwise, the machine may have been busy. Processor time is spent only by the process itself."""
        path = self.paths[binary]
        while tests:
            outcome = run(self.tree, path, tests, mutant.number)
            if outcome.ending == "passed":
                return None
            failed = outcome.failed(tests)
            name = failed[0] if failed else tests[0].name
            suspect = next(test for test in tests if test.name == name)
            if outcome.ending != "busy":
                outcome = run(self.tree, path, [suspect], mutant.number, patience=3)
            if outcome.ending != "passed":
                return f"{binary} {name}", outcome.ending
            tests = [test for test in tests if test is not suspect]
        return None
