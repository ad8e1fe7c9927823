"""The curated mutants of curated.toml: few, spread over all areas, and killed by unit tests that take milliseconds.

They run with every change: one build of the libraries' tests with all of them, each behind a switch.
"""

import os
import re
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor

from rows import TABLE as ROWS
from rows import Mutant, exists, locate
from switched import build_switched, run_tests
from tree import ENGINE, ROOT, ROOTS, WORK, Problem, build, copy_tree, write

TABLE = "tests/mutants/curated.toml"
LEAST = 60
TREE = WORK / "curated"
# The timeout in seconds of the tests of a mutant.
LIMIT = 20


def read_table():
    table = tomllib.loads((ROOT / TABLE).read_text())
    rows = {entry["guard"]: entry for entry in tomllib.loads((ROOT / ROWS).read_text())["mutant"]}
    mutants = []
    for entry in [*table["row"], *table["mutant"]]:
        guard = entry.get("guard") or entry["change"]
        if "guard" in entry and guard not in rows:
            raise Problem(f"{TABLE}: {ROWS} has no mutant with the guard {guard!r}")
        entry = {**rows.get(entry.get("guard"), {}), **entry, "rows": [], "guard": guard}
        mutants.append(Mutant(len(mutants) + 1, entry))
        mutants[-1].tests = entry["tests"]
        mutants[-1].hangs = entry.get("hangs", False)
    return mutants


def check(mutants):
    """Returns all errors in the table, without a build."""
    problems = [] if len(mutants) >= LEAST else [f"{TABLE}: {len(mutants)} mutants, fewer than {LEAST}"]
    for mutant in mutants:
        text = (ROOT / mutant.file).read_text() if (ROOT / mutant.file).exists() else ""
        found = len(mutant.spans(text))
        if found != 1:
            problems.append(f"{mutant.guard}: {mutant.file}: text found {found} times, not once: {mutant.find!r}")
        problems += [f"{mutant.guard}: there is no test {name}" for name in mutant.tests if not exists(name)]
        problems += [f"{mutant.guard}: {name} is no unit test" for name in mutant.tests if is_far(name)]
    return problems


def is_far(name):
    return exists(name) and locate(name)[0] not in (None, ENGINE)


def write_manifest():
    """Leaves out what only other tests need, and debug information."""
    text = (ROOT / "Cargo.toml").read_text()
    text = re.sub(r"^h-realtime-test-kit = .*\n", "", text, flags=re.M)
    text = text.replace('members = ["src/engine", "tests/kit"]', 'members = ["src/engine"]')
    text = text.replace('debug = "line-tables-only"', "debug = false")
    write(TREE / "Cargo.toml", text.encode())


def run_named(names, number, paths):
    """Runs tests with a mutant, or with none; returns those that failed."""
    failed = {}
    for target in (ENGINE, None):
        tests = sorted({test for of, test in map(locate, names) if of == target})
        if tests:
            failed |= run_tests(TREE, paths[target], tests, number, LIMIT)
    return failed


def run_all():
    """Returns the numbers of mutants that were killed, and that survived or failed otherwise."""
    mutants = read_table()
    problems = check(mutants)
    if problems:
        raise Problem("\n".join(problems))
    # Dependencies are those of the tree's own build.
    target = ROOT / "target"
    since = time.monotonic()
    copy_tree(TREE, [*{mutant.file for mutant in mutants}, *ROOTS, "Cargo.toml"])
    write_manifest()
    paths = {None: build_switched(TREE, mutants, target)}
    paths[ENGINE], errors = build(TREE, ENGINE, target)
    if errors:
        raise Problem("\n".join(error["rendered"] for error in errors))
    print(f"built in {time.monotonic() - since:.0f} s", flush=True)
    failed = run_named({name for mutant in mutants for name in mutant.tests}, 0, paths)
    if failed:
        raise Problem(f"without a mutant, these tests fail: {', '.join(sorted(failed))}")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = list(pool.map(lambda mutant: run_mutant(mutant, paths), mutants))
    for mutant, problem in zip(mutants, problems):
        if problem:
            print(f"{mutant.file}: {mutant.guard}: {problem}")
    print(f"took {time.monotonic() - since:.0f} s")
    failed = sum(1 for problem in problems if problem)
    return len(mutants) - failed, failed


def run_mutant(mutant, paths):
    """Returns why a mutant does not count as killed, or None."""
    if mutant.error:
        return mutant.error
    failed = run_named(mutant.tests, mutant.number, paths)
    if not failed:
        return f"SURVIVED {', '.join(mutant.tests)}"
    if set(failed.values()) == {"timed out"} and not mutant.hangs:
        return f"{', '.join(failed)} timed out, although the mutant has no `hangs = true`"
    return None
