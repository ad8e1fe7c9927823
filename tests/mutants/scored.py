"""The results of tests/mutants/score, the file that keeps them for other machines, and the report of them."""

import fnmatch
import hashlib
import json
import re
import subprocess
import time
import tomllib
from collections import Counter

from rows import exists
from tree import ROOT

REPORT = "tests/mutants/SCORE.md"
KEPT = "tests/mutants/score.txt"
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


KEPT_HEAD = """\
# The results of tests/mutants/score, from which it continues. For each mutant of a file: the start of the SHA-256 of its
# name and line; killed (k), survived (s), or not covered (n); the tests that have run: unit tests of the engine (E) and of
# the server (S), tests/engine (e), tests/api (a); and the seconds of tests that are left.
"""
LETTERS = {"lib engine": "E", "lib server": "S", "engine": "e", "api": "a"}


def digest(key):
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def read_kept(mutants):
    """Returns the committed results of mutants, by their keys."""
    file = ROOT / KEPT
    lines = file.read_text().splitlines() if file.exists() else ()
    kept = {words[0]: words for words in map(str.split, lines) if len(words) >= 3}
    names = {result[0]: result for result in ("killed", "survived", "not covered")}
    results = {}
    for mutant in mutants:
        _, letter, tried, *left = kept.get(digest(mutant.key), [None, None, ""])
        if letter in names:
            results[mutant.key] = {
                "key": mutant.key, "result": names[letter], "left": float(left[0]) if left else 0.0,
                "tried": sorted(name for name, initial in LETTERS.items() if initial in tried)}
    return results


def keep(mutants, results):
    """Writes the file of results."""
    text = KEPT_HEAD
    for file in sorted({mutant.file for mutant in mutants}):
        lines = []
        for mutant in mutants:
            entry = results.get(mutant.key) if mutant.file == file else None
            if entry and mutant.state == "switched":
                tried = "".join(LETTERS[name] for name in LETTERS if name in entry["tried"])
                left = f" {entry['left']:.1f}" if entry["left"] and entry["result"] != "killed" else ""
                lines.append(f"  {digest(mutant.key)} {entry['result'][0]} {tried or '-'}{left}\n")
        text += f"{file}\n{''.join(sorted(lines))}" if lines else ""
    (ROOT / KEPT).write_text(text)


def read(file, mutants):
    """Returns the last result of each mutant, by its key: the committed ones, and those in a file. What a test has killed
    remains killed."""
    entries = map(json.loads, file.read_text().splitlines()) if file.exists() else ()
    results = read_kept(mutants)
    for entry in entries:
        if results.get(entry["key"], {}).get("result") != "killed":
            results[entry["key"]] = entry
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


def group_of(mutant, groups):
    """Returns the group with a pattern for the mutant: its name without the place, and optionally ` @ ` and a part of
    its line. In names, only `*` is special, since they contain brackets."""
    name = steady(mutant.name)
    text = (ROOT / mutant.file).read_text().splitlines()[mutant.line - 1]
    for group in groups:
        for pattern in group["mutants"]:
            glob, _, part = pattern.partition(" @ ")
            if part in text and re.fullmatch(".*".join(map(re.escape, glob.split("*"))), name):
                return group
    return None


def check():
    """Returns all errors in the table of survivors, without a build."""
    problems = []
    for group in read_groups():
        told = f"{SURVIVORS}: {group.get('reason') or group.get('tests') or group['mutants'][0]}"
        if bool(group.get("reason")) == bool(group.get("tests")):
            problems.append(f"{told}: needs either a reason or tests")
        problems += [f"{told}: there is no test {name}" for name in group.get("tests", []) if not exists(name)]
        for pattern in group["mutants"]:
            glob, _, part = pattern.partition(" @ ")
            files = list(ROOT.glob(glob.split(":")[0]))
            if not any(part in file.read_text() for file in files if file.is_file()):
                problems.append(f"{told}: no file has the text of {pattern!r}")
    return problems


def outcome(mutant, results, binaries):
    """Returns the column of a mutant. A mutant is open while some of the tests that may reach it have not run."""
    if mutant.state != "switched":
        return mutant.state
    result = results.get(mutant.key)
    if result is None:
        return "not run"
    is_open = result["left"] or set(binaries) - set(result.get("tried", ()))
    return "open" if is_open and result["result"] != "killed" else result["result"]


def tally(mutants, results, binaries, key):
    """Returns the numbers of mutants with each outcome, for each area or file."""
    table = {}
    for mutant in mutants:
        table.setdefault(key(mutant.file), Counter())[outcome(mutant, results, binaries)] += 1
    return table


COLUMNS = ["unviable", "not run", "open", "survived", "not covered", "killed"]


def line(name, counts):
    total = sum(counts.values())
    apart = counts["constant"] + counts["inexpressible"]
    viable = total - counts["unviable"] - apart
    score = f"{100 * counts['killed'] / viable:.1f} %" if counts["killed"] else "—"
    if counts["not run"] + counts["open"] and counts["killed"]:
        score = f"≥ {score}"
    numbers = " | ".join(str(counts[column]) for column in COLUMNS)
    return f"| {name} | {total} | {apart} | {numbers} | {score} |"


def head(name):
    return [f"| {name} | listed | not switchable | {' | '.join(COLUMNS)} | killed / viable |",
            "|---|" + "--:|" * (len(COLUMNS) + 3)]


INTRODUCTION = """# Mutation score

Written by `tests/mutants/score --write` on {date}, for the sources of commit `{commit}`.

The mutants are those that `cargo mutants --list` names: operators, values of functions, arms and guards of `match`, and
fields. They are compiled into one build, and each runs against the tests that reach it: the unit tests of both crates,
`--test engine`, and `--test api`. The command is `tests/mutants/score`, or for a part of it
`tests/mutants/score --file GLOB`; it continues from the results in [score.txt](score.txt), and keeps a result while the
line of the mutant is the same.

A mutant is killed if a test fails with it, and fails once more when it runs alone; or if a test needs much more
processor time than without it, which a busy machine does not change.

- *not switchable*: in a constant, or a value of `impl Trait`; *unviable*: does not compile
- *not run*: no test of the mutant has run yet; *open*: survived the tests that have run, and others remain
- *survived*: survived all tests that reach it; *not covered*: no test reaches it
- *killed / viable*: the score, or a lower bound of it while mutants are open or not run
"""


def write_report(mutants, results, binaries):
    keep(mutants, results)
    groups = read_groups()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    by_area = tally(mutants, results, binaries, area)
    lines = [INTRODUCTION.format(date=time.strftime("%Y-%m-%d", time.gmtime()), commit=commit.strip()), *head("area")]
    lines += [line(name, by_area[name]) for name in AREAS if name in by_area]
    lines.append(line("**all**", sum(by_area.values(), Counter())))
    left = [mutant for mutant in mutants if outcome(mutant, results, binaries) in ("survived", "not covered", "open")]
    counts = Counter()
    for mutant in left:
        group = group_of(mutant, groups)
        counts["not examined" if group is None else group.get("reason", "killed by a test added since")] += 1
        if group is None:
            print(f"not examined: {mutant.name}")
    lines += ["", "## Open and surviving mutants", "", "[survivors.toml](survivors.toml) groups them by their reasons;",
              "`tests/mutants/run --check` verifies that table. Open mutants count here, too.", "",
              "| reason | mutants |", "|---|--:|"]
    lines += [f"| {reason} | {count} |" for reason, count in counts.most_common()]
    lines += ["", "## Files", "", *head("file")]
    by_file = tally(mutants, results, binaries, str)
    lines += [line(f"`{name}`", counts) for name, counts in sorted(by_file.items())]
    (ROOT / REPORT).write_text("\n".join(lines) + "\n")
