"""Compiles the mutants that cargo-mutants lists into one build, each behind a switch.

cargo-mutants names a token to change and its replacement, and builds each change alone. Here, both the original and
the change are compiled, and `mutant::is_on` selects one of them at run time. An operator changes in the syntax tree,
not in the text: precedence remains that of the original.
"""

import json
import subprocess
from collections import Counter
from pathlib import Path

# How a place is switched: operands are evaluated once, or, if that does not compile, repeated in each branch.
ONCE, REPEATED, NEVER = range(3)
ALLOW = b"#![allow(warnings, arithmetic_overflow, unconditional_panic, overflowing_literals, unconditional_recursion)] "
COMPARISONS = {"==", "!=", "<", "<=", ">", ">="}
ASSIGNMENTS = {"+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>="}


class Listed:
    """A mutant of cargo-mutants' list."""

    def __init__(self, number, entry):
        self.number = number
        self.file = entry["file"]
        self.genre = entry["genre"]
        self.replacement = entry["replacement"]
        function = entry.get("function") or {}
        self.function = function.get("function_name", "")
        self.returns = function.get("return_type", "")
        span = entry["span"]
        self.line, self.column = span["start"]["line"], span["start"]["column"]
        self.end = span["end"]["line"], span["end"]["column"]
        self.name = entry.get("name", "")
        # The name without the place, with the text of the line, and a number where these are ambiguous.
        self.key = ""
        # "switched", or the reason why it is not: "unviable", "constant", "inexpressible".
        self.state = "switched"
        self.error = ""

    def what(self):
        """Describes the change, without the place."""
        return self.name.split(": ", 1)[-1]


class Place:
    """A place in a file where mutants switch."""

    def __init__(self, kind, ranges, mutants):
        self.kind = kind
        self.ranges = ranges
        self.mutants = mutants
        self.how = ONCE
        # The other arms of a match.
        self.siblings = []
        start, end = ranges[1] if kind in ("binary", "unary") else ranges[0]
        if kind == "fn":
            start = end = start + 1
        elif kind == "iterator":
            start, end = ranges[0][0] + 1, ranges[0][1] - 1
        elif kind == "arm":
            start = end = ranges[1][1]
        elif kind == "guarded":
            start, end = ranges[2]
        self.start, self.end = start, end

    def living(self):
        return [mutant for mutant in self.mutants if mutant.state == "switched"]

    def parts(self, text):
        """Returns the new text: strings, ranges of the old text, and branches of mutants as pairs."""
        return getattr(self, "of_" + self.kind)(text)

    def of_fn(self, _):
        return [(mutant, [f" if {on(mutant)} {{ return {mutant.replacement}; }} "]) for mutant in self.living()]

    def of_iterator(self, _):
        tests = " || ".join(on(mutant) for mutant in self.living())
        return [" let mutant_i = {", (self.start, self.end),
                f"}}; ::std::iter::Iterator::filter(mutant_i, |_| !({tests})) "]

    def of_arm(self, _):
        return [f" if !{on(mutant)}" for mutant in self.living()]

    def of_guarded(self, _):
        parts = ["((", self.ranges[2], ")"]
        for mutant in self.living():
            if mutant.genre == "MatchArm" or mutant.replacement == "false":
                parts = [f"(!{on(mutant)} && ", *parts, ")"]
            else:
                parts = [f"({on(mutant)} || ", *parts, ")"]
        return [*parts, ")"]

    def of_struct(self, _):
        whole, *fields = self.ranges
        parts = ["("]
        for mutant, field in zip(self.living(), self.fields(fields)):
            parts += [(mutant, [f"if {on(mutant)} {{ ", (whole[0], field[0]), (field[1], whole[1]), " }"]), " else "]
        return [*parts, "{ ", whole, " })"]

    def fields(self, fields):
        return [fields[mutant.field] for mutant in self.living()]

    def of_unary(self, text):
        operator = text[slice(*self.ranges[0])].decode()
        if self.how == REPEATED:
            return self.branches(["("], [self.ranges[2]], [f"{operator}(", self.ranges[2], ")"], [")"])
        before = ["(match ", self.ranges[2], " { mutant_v => "]
        return self.branches(before, ["mutant_v"], [f"{operator}mutant_v"], [" })"])

    def of_binary(self, text):
        operator, whole, left, right = self.ranges
        operator = text[slice(*operator)].decode()
        if self.how == REPEATED:
            is_assignment = operator in ASSIGNMENTS
            old = [left, f" {operator} ", right] if is_assignment else ["(", left, f") {operator} (", right, ")"]
            before, after = ("{ ", "; }") if is_assignment else ("(", ")")
            return self.branches([before], None, old, [after], lambda new: [left, f" {new} ", right])
        if operator in ("&&", "||"):
            sign = "==" if operator == "&&" else "!="
            tests = " || ".join(on(mutant) for mutant in self.living())
            choice = f" {{ mutant_l => if mutant_l {sign} ({tests}) {{ mutant_l }} else {{ "
            return ["(match ", left, choice, right, " } })"]
        if operator in ASSIGNMENTS:
            before, old = ["match ", right, " { mutant_r => "], [left, f" {operator} mutant_r"]
            return self.branches(before, None, old, [" }"], lambda new: [left, f" {new} mutant_r"])
        star, ref = ("*", "&") if operator in COMPARISONS else ("", "")
        return self.branches(
            [f"(match ({ref}(", left, f"), {ref}(", right, ")) { (mutant_l, mutant_r) => "], None,
            [f"{star}mutant_l {operator} {star}mutant_r"], [" })"],
            lambda new: [f"{star}mutant_l {new} {star}mutant_r"])

    def branches(self, before, new, old, after, make=None):
        parts = list(before)
        for mutant in self.living():
            changed = new if make is None else make(mutant.replacement)
            parts += [f"if {on(mutant)} {{ ", (mutant, changed), " } else "]
        return [*parts, "{ ", *old, " }", *after]


def on(mutant):
    return f"crate::mutant::is_on({mutant.number})"


class Source:
    """A file, its places, and where they are in the file that was written."""

    def __init__(self, name, text):
        self.name = name
        self.text = text
        self.places = []
        self.consts = []
        self.kept_consts = False
        self.marks = []

    def render(self):
        self.out, self.marks = bytearray(), []
        live = [place for place in self.places if place.how != NEVER and place.living()]
        # Whole expressions before their parts; insertions before what follows them. A guard may be one expression.
        self.order = sorted(live, key=lambda place: (place.start, place.start != place.end, -place.end,
                                                     place.kind != "guarded"))
        self.out += ALLOW if self.name.endswith("/lib.rs") else b""
        self.emit_range(0, len(self.text), None)
        return bytes(self.out)

    def emit_range(self, start, end, outer):
        at = start
        first = 0 if outer is None else self.order.index(outer) + 1
        for place in self.order[first:]:
            if place.start < at or place.end > end:
                continue
            self.emit_text(at, place.start)
            self.emit_place(place)
            at = place.end
        self.emit_text(at, end)

    def emit_text(self, start, end):
        for first, last, *_ in () if self.kept_consts else self.consts:
            if start <= first and last <= end:
                self.out += self.text[start:first] + b" " * (last - first)
                start = last
        self.out += self.text[start:end]

    def keep_consts(self):
        """Leaves functions of constants as they are; returns whether they were not."""
        was, self.kept_consts = self.kept_consts, True
        for place in self.places:
            if any(start <= place.start and place.end <= end for _, _, start, end in self.consts):
                for mutant in place.living():
                    mutant.state = "constant"
        return not was

    def emit_place(self, place):
        start = len(self.out)
        for part in place.parts(self.text):
            self.emit_part(part, place)
        self.marks.append((start, len(self.out), place, None))

    def emit_part(self, part, place):
        if isinstance(part, str):
            self.out += part.encode()
        elif isinstance(part[0], Listed):
            start = len(self.out)
            for inner in part[1]:
                self.emit_part(inner, place)
            self.marks.append((start, len(self.out), place, part[0]))
        else:
            self.emit_range(*part, place)

    def guilty(self, start, end):
        """Returns the smallest marks that contain a range of the file that was written."""
        found = [mark for mark in self.marks if mark[0] <= start and end <= mark[1]]
        return min(found, key=lambda mark: mark[1] - mark[0], default=None)


def line_offsets(text):
    offsets, at = [0], 0
    for line in text.split(b"\n"):
        at += len(line) + 1
        offsets.append(at)
    return offsets


def offset(text, offsets, line, column):
    """Returns the byte at a line and a column, which counts characters from one."""
    start = offsets[line - 1]
    return start + len(text[start:offsets[line]].decode()[:column - 1].encode())


def read_spans(program, root, files):
    """Returns the places of each file, as kinds and ranges."""
    said = subprocess.run([program, *files], cwd=root, check=True, capture_output=True, text=True).stdout
    spans = {}
    for line in said.splitlines():
        kind, *rest = line.split(" ")
        if kind == "file":
            current = spans.setdefault(rest[0], [])
        else:
            numbers = [int(number) for number in rest]
            current.append((kind, list(zip(numbers[::2], numbers[1::2]))))
    return spans


def read_sources(root, mutants, program):
    """Returns the files with their places; a mutant without a place there is not switched."""
    by_file = {}
    for mutant in mutants:
        by_file.setdefault(mutant.file, []).append(mutant)
    spans = read_spans(program, root, sorted(by_file))
    sources = {}
    for file, of_file in by_file.items():
        source = sources[file] = Source(file, (root / file).read_bytes())
        name_keys(of_file, source.text.decode().splitlines())
        offsets = line_offsets(source.text)
        found = {}
        for mutant in of_file:
            start = offset(source.text, offsets, mutant.line, mutant.column)
            end = offset(source.text, offsets, *mutant.end)
            key, place = locate(mutant, start, end, spans[file], source.text)
            if place is None:
                mutant.state = key
                continue
            if key not in found:
                found[key] = Place(*place, [])
                source.places.append(found[key])
            found[key].mutants.append(mutant)
        join_arms(source, spans[file])
        for kind, ranges in spans[file]:
            if kind == "fn" and ranges[1][1]:
                source.consts.append((*ranges[1], *ranges[0]))
    return sources


def name_keys(mutants, lines):
    """Gives each mutant of a file the same key while its line is the same, wherever the line is."""
    counts = Counter()
    for mutant in mutants:
        key = f"{mutant.file}: {mutant.what()} @ {lines[mutant.line - 1].strip()}"
        counts[key] += 1
        mutant.key = key if counts[key] == 1 else f"{key} #{counts[key]}"


def join_arms(source, spans):
    arms = {place.ranges[1]: place for place in source.places if place.kind == "arm"}
    for kind, patterns in spans:
        if kind == "match":
            joined = [arms[pattern] for pattern in patterns if pattern in arms]
            for place in joined:
                place.siblings = joined


def locate(mutant, start, end, spans, text):
    """Returns the place of a mutant, or the reason for having none."""
    wanted = {"FnValue": ["fn"], "BinaryOperator": ["binary", "chain", "const"], "UnaryOperator": ["unary", "const"],
              "MatchArm": ["arm", "guarded"], "MatchArmGuard": ["guarded"], "StructField": ["struct"]}
    found = [(kind, ranges) for kind, ranges in spans
             if kind in wanted.get(mutant.genre, ()) and matches(mutant, kind, start, end, ranges)]
    # The innermost function.
    for kind, ranges in sorted(found, key=lambda item: item[1][0][1] - item[1][0][0]):
        if kind in ("chain", "const"):
            return {"chain": "unviable", "const": "constant"}[kind], None
        if kind == "fn" and mutant.returns.startswith("-> impl "):
            if mutant.replacement != "::std::iter::empty()":
                return "inexpressible", None
            kind = "iterator"
        return (kind, ranges[1] if kind in ("binary", "unary") else ranges[0]), (kind, ranges)
    return "inexpressible", None


def matches(mutant, kind, start, end, ranges):
    if kind == "fn":
        return ranges[0][0] < start and end < ranges[0][1]
    if mutant.genre == "MatchArmGuard":
        return ranges[2] == (start, end)
    if kind == "struct":
        for index, field in enumerate(ranges[1:]):
            if field[0] <= start < field[1]:
                mutant.field = index
                return True
        return False
    return ranges[0] == (start, end)


def read_list(text):
    """Returns the mutants. cargo-mutants also lists tests that are compiled for a model checker."""
    mutants = [Listed(number, entry) for number, entry in enumerate(json.loads(text), 1)]
    return [mutant for mutant in mutants if "tests::" not in mutant.function]
