"""Compiles mutants of a table into one build, each behind a switch, and runs tests of it."""

import math
import os
import re
import resource
import signal
import subprocess
import tempfile

from reach import end_group, watch
from rows import describe
from tree import ROOT, ROOTS, WORK, Problem, build, write

SWITCH = """
/// Selects one mutant by number.
#[doc(hidden)]
pub mod mutant {
    /// Whether the environment variable `MUTANT` has this number.
    pub fn is_on(number: usize) -> bool {
        static SELECTED: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
        let read = || std::env::var("MUTANT").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        *SELECTED.get_or_init(read) == number
    }
}
"""
# The timeout of a test: this many seconds, plus three times its duration without a mutant.
PATIENCE = 40
# The limit on a process's memory in bytes, since a mutant may remove a bound on memory.
MEMORY = 6 << 30
# The number of seeds of a simulation. A mutant that needs more has no specific test.
SEEDS = "32"


def switch_all(tree, mutants):
    """Inserts all mutants into the copy, each behind its switch; returns the lines of each."""
    places = {}
    for file in {mutant.file for mutant in mutants} | set(ROOTS):
        text = (ROOT / file).read_text()
        edits = {}
        for mutant in mutants:
            if mutant.file == file:
                for span in mutant.spans(text):
                    edits.setdefault(span, []).append(mutant)
        spans, parts, at, line = sorted(edits), [], 0, 1
        for before, after in zip(spans, spans[1:]):
            if before[1] > after[0]:
                both = [describe(edits[span][0]) for span in (before, after)]
                raise Problem(f"{file}: two mutants overlap; make one of them apart: {both}")
        for span in spans:
            parts.append(text[at:span[0]])
            line += parts[-1].count("\n")
            original, at = text[span[0]:span[1]], span[1]
            for mutant in edits[span]:
                original = mutant.switched(original)
            parts.append(original)
            for mutant in edits[span]:
                places.setdefault(file, []).append((line, line + original.count("\n"), mutant))
            line += original.count("\n")
        parts.append(text[at:])
        text = "".join(parts) + (SWITCH if file in ROOTS else "")
        write(tree / file, text.encode())
    return places


def build_switched(tree, mutants, target=None):
    """Builds the library with all mutants. Reports and skips those that do not compile."""
    while True:
        good = [mutant for mutant in mutants if mutant.error is None and not mutant.apart]
        places = switch_all(tree, good)
        path, errors = build(tree, None, target)
        if not errors:
            return path
        guilty = set()
        for error in errors:
            for span in error["spans"]:
                for first, last, mutant in places.get(span["file_name"], []):
                    if first <= span["line_end"] and span["line_start"] <= last:
                        guilty.add(mutant)
                        mutant.error = f"does not build: {error['message']}"
        if not guilty:
            raise Problem("the tree does not build:\n" + "\n".join(error["rendered"] for error in errors))
        for mutant in guilty:
            print(f"{describe(mutant)}: {mutant.error}", flush=True)


def run_tests(tree, path, tests, number, limit):
    """Runs tests of one binary; returns those that did not pass, each with its result. The limit is one of processor
    time, and of the time during which all threads sleep: a busy machine, or one that pauses, makes no test time out."""
    environment = os.environ | {"MUTANT": str(number), "SEEDS": SEEDS, "CARGO_MANIFEST_DIR": str(tree)}
    command = [path, "--exact", "--include-ignored", "--test-threads=2", *tests]
    limit = math.ceil(limit)

    def limits():
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))

    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, cwd=tree, env=environment, stdout=output, stderr=subprocess.STDOUT,
                                   start_new_session=True, preexec_fn=limits)
        exceeded, _, _ = watch(process, limit, limit, 10 * limit)
        end_group(process.pid)
        output.seek(0)
        said = output.read().decode(errors="replace")
    is_late = exceeded or process.returncode in (-signal.SIGKILL, -signal.SIGXCPU)
    ending = "timed out" if is_late else "aborted"
    WORK.joinpath("last.log").write_text(said)
    results = dict(re.findall(r"^test (\S+) \.\.\. (ok|FAILED)", said, re.M))
    return {test: "failed" if results.get(test) == "FAILED" else ending for test in tests if results.get(test) != "ok"}
