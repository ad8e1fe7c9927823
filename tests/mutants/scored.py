"""The results of tests/mutants/score, and the report of them."""

import fnmatch
import json
import re
import subprocess
import time
import tomllib
from collections import Counter

from rows import exists
from tree import ROOT

REPORT = "tests/mutants/SCORE.md"
SURVIVORS = "tests/mutants/survivors.toml"
# The areas of the report: the first pattern that a file matches.
AREAS = {
    "WebSocket frames": ["src/engine/ws/*"],
    "HTTP": ["src/engine/http/*"],
    "connections": ["src/engine/conn/*", "src/engine/conn_set.rs"],
    "engine": ["src/engine/engine/*"],
    "sockets and TLS": ["src/engine/io/*"],
    "rest of the engine": ["src/engine/*"],
    "history and replays": ["src/realtime/history/*", "src/realtime/replay*", "src/realtime/resume*",
                            "src/realtime/remembered*", "src/realtime/recognition*", "src/realtime/timeline*"],
    "policy": ["src/backend/*"],
    "rest of realtime": ["src/realtime/*"],
}


def read(file):
    """Returns the last result of each mutant, by name. What a test has killed remains killed."""
    entries = map(json.loads, file.read_text().splitlines()) if file.exists() else ()
    results = {}
    for entry in entries:
        if results.get(entry["name"], {}).get("result") != "killed":
            results[entry["name"]] = entry
    return results


def states(mutants):
    counts = Counter(mutant.state for mutant in mutants)
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))


def area(file):
    return next(name for name, globs in AREAS.items() if any(fnmatch.fnmatch(file, glob) for glob in globs))


def steady(name):
    """Returns the name of a mutant without its line and column, which change with every edit."""
    return re.sub(r"^([^:]+):\d+:\d+: ", r"\1: ", name)


def read_groups():
    return tomllib.loads((ROOT / SURVIVORS).read_text()).get("group", []) if (ROOT / SURVIVORS).exists() else []


def group_of(name, groups):
    wanted = steady(name)
    return next((group for group in groups if any(matches(wanted, glob) for glob in group["mutants"])), None)


def matches(name, glob):
    """Only `*` is special, since names contain brackets."""
    return re.fullmatch(".*".join(map(re.escape, glob.split("*"))), name) is not None


def check():
    """Returns all errors in the table of survivors, without a build."""
    problems = []
    for group in read_groups():
        told = f"{SURVIVORS}: {group.get('reason') or group.get('tests') or group['mutants'][0]}"
        if bool(group.get("reason")) == bool(group.get("tests")):
            problems.append(f"{told}: needs either a reason or tests")
        problems += [f"{told}: there is no test {name}" for name in group.get("tests", []) if not exists(name)]
        for glob in group["mutants"]:
            file = glob.split(":")[0]
            if "*" not in file and not (ROOT / file).exists():
                problems.append(f"{told}: there is no file {file}")
    return problems


def rows(mutants, results, key):
    """Returns the numbers of each area or file: listed, viable and run, killed, survived, not covered."""
    table = {}
    for mutant in mutants:
        counts = table.setdefault(key(mutant.file), Counter())
        counts["listed"] += 1
        counts[mutant.state] += 1
        counts[results.get(mutant.name, {}).get("result", "not run") if mutant.state == "switched" else ""] += 1
    return table


def line(name, counts):
    run = counts["killed"] + counts["survived"] + counts["not covered"]
    score = f"{100 * counts['killed'] / run:.1f} %" if run else "—"
    apart = counts["constant"] + counts["inexpressible"]
    return (f"| {name} | {counts['listed']} | {counts['unviable']} | {apart} | {counts['not run']} | {run} "
            f"| {counts['killed']} | {counts['survived']} | {counts['not covered']} | {score} |")


HEAD = ("| {} | listed | unviable | not switchable | not run | run | killed | survived | not covered | killed / run |\n"
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")


def write_report(mutants, results, command):
    groups = read_groups()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    by_area = rows(mutants, results, area)
    lines = [
        "# Mutation score", "",
        f"Written by `tests/mutants/score --write` on {time.strftime('%Y-%m-%d', time.gmtime())}, at commit "
        f"`{commit.strip()}`, after", f"`{command}`. The mutants are those that `cargo mutants --list` names (operators,",
        "values of functions, arms and guards of `match`, fields), compiled into one build; each runs against the tests that",
        "reach it: the unit tests of both crates, `--test engine`, and `--test api`. *Unviable* mutants do not compile.",
        "*Not switchable* are those in constants, and values of `impl Trait`. *Not covered* are survivors that no test",
        "reaches.", "", HEAD.format("area")]
    lines += [line(name, by_area[name]) for name in AREAS if name in by_area]
    lines.append(line("**all**", sum(by_area.values(), Counter())))
    left = [mutant for mutant in mutants if results.get(mutant.name, {}).get("result") in ("survived", "not covered")]
    lines += ["", "## Survivors", "", f"[survivors.toml](survivors.toml) states a reason for each; `tests/mutants/run "
              "--check` verifies the table.", "", "| reason | mutants |", "|---|--:|"]
    counts = Counter()
    for mutant in left:
        group = group_of(mutant.name, groups)
        counts["**not examined**" if group is None else group.get("reason", "killed by a test that was added")] += 1
    lines += [f"| {reason} | {count} |" for reason, count in counts.most_common()]
    lines += ["", "## Files", "", HEAD.format("file")]
    lines += [line(f"`{name}`", counts) for name, counts in sorted(rows(mutants, results, str).items())]
    (ROOT / REPORT).write_text("\n".join(lines) + "\n")
    for mutant in left:
        if group_of(mutant.name, groups) is None:
            print(f"not examined: {mutant.name}")
