"""The tables of docs/SECURITY.md, and the mutants of their rows in rows.toml."""

import re
import tomllib
from pathlib import Path

from tree import ENGINE, ROOT, Problem

NOTES = "docs/SECURITY.md"
TABLE = "tests/mutants/rows.toml"


class Row:
    def __init__(self, ids, held_by):
        self.ids = ids
        self.names = re.findall(r"`([\w/]+\.rs::\w+)`", held_by)
        for file in re.findall(r"(?:^|, )`([\w/]+\.rs)`(?=,|$)", held_by):
            path = ROOT / "tests" / file
            if path.exists():
                found = re.findall(r"#\[test\]\n(?:\s*#\[.*\n)*\s*fn (\w+)", path.read_text())
                self.names += [f"{file}::{name}" for name in found]
        # A row that refers to another row has the mutants of that row.
        self.refers = held_by.strip() == "the same" or held_by.strip().startswith("as ")

    @property
    def name(self):
        return self.ids[0]


class Mutant:
    def __init__(self, number, entry):
        self.number = number
        self.rows = entry["rows"]
        self.guard = entry["guard"]
        self.file = entry["file"]
        self.find = entry["find"]
        self.replace = entry["replace"]
        self.count = entry.get("count", 1)
        self.form = entry.get("form", "expression")
        self.apart = entry.get("apart", False)
        self.error = None
        self.failed = []

    def spans(self, text):
        """Returns the ranges to change: the search text, or the part of it between « and »."""
        before, found = "", self.find
        after = ""
        if "«" in found:
            before, rest = found.split("«")
            found, after = rest.split("»")
        whole = before + found + after
        spans, at = [], text.find(whole)
        while at >= 0:
            spans.append((at + len(before), at + len(before) + len(found)))
            at = text.find(whole, at + len(whole))
        return spans

    def alone(self, original):
        if self.form == "raw":
            return self.replace.replace("MUTANT", "true")
        return self.replace

    def switched(self, original):
        on = f"crate::mutant::is_on({self.number})"
        if self.form == "raw":
            return self.replace.replace("MUTANT", on)
        if self.form == "statement":
            return f"if {on} {{ {self.replace} }} else {{ {original} }}"
        return f"(if {on} {{ {self.replace} }} else {{ {original} }})"


def read_rows():
    rows, is_table = [], False
    for line in (ROOT / NOTES).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            is_table = False
        elif cells[-1] == "tested by":
            is_table = True
        elif is_table and not line.startswith("|---"):
            ids = cells[0].split(" (")[0].split(", ")
            rows.append(Row(ids, cells[-1]))
    return rows


def read_table():
    table = tomllib.loads((ROOT / TABLE).read_text())
    mutants = [Mutant(number, entry) for number, entry in enumerate(table["mutant"], 1)]
    reasons = {row: entry["reason"] for entry in table.get("without", []) for row in entry["rows"]}
    return mutants, reasons


def locate(name):
    """Returns the test target of a test named in the notes, and the path within the target. The target None is the
    library, and ENGINE is the library of the engine."""
    file, test = name.split("::")
    path = Path(file).with_suffix("")
    if (ROOT / "tests" / file).exists():
        modules = [part for part in path.parts[1:] if part != "mod"]
        return path.parts[0], "::".join([*modules, *inline_module(ROOT / "tests" / file, test), test])
    if not (ROOT / "src" / file).exists():
        raise Problem(f"{name}: there is no such file below tests/ or src/")
    parts = [part for part in path.parts if part != "mod"]
    if "tests" not in parts:
        parts.append("tests")
    if parts[0] == "engine":
        return ENGINE, "::".join([*parts[1:], test])
    return None, "::".join([*parts, test])


def inline_module(path, test):
    """Returns the name of the module within the file that contains an indented test, as a list."""
    before, _, after = path.read_text().partition(f"    fn {test}(")
    return re.findall(r"^mod (\w+) \{", before, re.M)[-1:] if after else []


def exists(name):
    file, test = name.split("::")
    for folder in ["tests", "src"]:
        path = ROOT / folder / file
        if path.exists():
            return re.search(rf"\bfn {test}\(", path.read_text()) is not None
    return False


def check(rows, mutants, reasons):
    """Returns all errors in the table, without a build."""
    problems = []
    by_id = {row_id: row for row in rows for row_id in row.ids}
    for mutant in mutants:
        text = (ROOT / mutant.file).read_text() if (ROOT / mutant.file).exists() else ""
        found = len(mutant.spans(text))
        if found != mutant.count:
            mutant.error = f"text found {found} times, not {mutant.count}"
            problems.append(f"{describe(mutant)}: {mutant.file}: {mutant.error}: {mutant.find!r}")
        problems += [f"{describe(mutant)}: there is no row {row}" for row in mutant.rows if row not in by_id]
    covered = {row_id for mutant in mutants for row_id in mutant.rows}
    for row in rows:
        has_mutant = any(row_id in covered for row_id in row.ids)
        has_reason = any(row_id in reasons for row_id in row.ids)
        if not row.refers and has_mutant == has_reason:
            problems.append(f"{row.name}: " + ("a mutant, and a reason for having none" if has_mutant
                            else "no mutant, and no reason for having none"))
        if has_mutant and not row.names:
            problems.append(f"{row.name}: a mutant, and no test")
        problems += [f"{row.name}: there is no test {name}" for name in row.names if not exists(name)]
    problems += [f"{row}: a reason for a row that does not exist" for row in reasons if row not in by_id]
    return problems


def describe(mutant):
    return f"{', '.join(mutant.rows) or mutant.file}: {mutant.guard}"
