"""A copy of the tree below target/, in which mutants are compiled, and builds of it."""

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "target/mutants"
# The crate of the engine, whose sources are below src/engine.
ENGINE = "h-realtime-engine"
ROOTS = ["src/lib.rs", "src/engine/lib.rs"]


class Problem(Exception):
    """An error in a table, in the notes, or of a build."""


def copy_tree(tree, switched=()):
    """Updates the copy. Unchanged files keep their time stamps, on which cargo relies."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout
    wanted = {name for name in listed.split("\0") if name and (ROOT / name).is_file()}
    wanted = {name for name in wanted if not name.startswith(("fuzz/", "benches/results/"))}
    if tree.exists():
        for path in [path for path in tree.rglob("*") if path.is_file()]:
            if str(path.relative_to(tree)) not in wanted:
                path.unlink()
    for name in wanted - set(switched):
        write(tree / name, (ROOT / name).read_bytes(), (ROOT / name).stat().st_mode)


def write(path, content, mode=None):
    if path.exists() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if mode is not None:
        path.chmod(mode)


def cargo(tree, arguments, target=None):
    """Runs cargo in the copy; returns the paths of test binaries, and the compiler errors."""
    environment = os.environ | {"CARGO_TARGET_DIR": str(target or WORK / "cargo")}
    process = subprocess.run(["cargo", *arguments, "--all-features", "--message-format=json"], cwd=tree,
                             env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    paths, errors = [], []
    for line in process.stdout.splitlines():
        message = json.loads(line) if line.startswith("{") else {}
        if message.get("reason") == "compiler-message" and message["message"]["level"] == "error":
            errors.append(message["message"])
        if message.get("reason") == "compiler-artifact" and message.get("executable"):
            paths.append((message["target"]["kind"], message["executable"]))
    if process.returncode != 0 and not errors:
        raise Problem(f"cargo failed:\n{process.stderr}")
    return paths, errors


def build(tree, test, target=None):
    """Builds a test target; returns its path, or the compiler errors. The target None is the library, and ENGINE is
    the library of the engine."""
    is_lib = test in (None, ENGINE)
    which = ["--package", ENGINE if test == ENGINE else "h-realtime"] + (["--lib"] if is_lib else ["--test", test])
    paths, errors = cargo(tree, ["test", "--no-run", *which], target)
    wanted = "lib" if is_lib else "test"
    return next((path for kind, path in paths if wanted in kind), None), errors
