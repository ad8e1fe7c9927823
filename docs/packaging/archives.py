"""The files of a release: packed without anything of this machine, and kept of an earlier build: see `release`."""

import gzip
import hashlib
import json
import tarfile


def pack(folder, archive, top, epoch):
    """Packs a folder without anything of this machine: sorted, with fixed owners, modes, and times."""

    def normalize(entry):
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        entry.mtime = epoch
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        return entry

    with open(archive, "wb") as file, gzip.GzipFile("", "wb", 9, file, epoch) as zipped:
        with tarfile.open(fileobj=zipped, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for path in [folder, *sorted(folder.rglob("*"))]:
                if "target" not in path.relative_to(folder).parts[:1]:
                    tar.add(path, f"{top}/{path.relative_to(folder)}".removesuffix("/."), recursive=False, filter=normalize)


def write_checksums(dist):
    lines = [f"{sha256(path)}  {path.name}\n" for path in sorted(dist.iterdir()) if path.name != "SHA256SUMS"]
    (dist / "SHA256SUMS").write_text("".join(lines))


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_report(path):
    """Returns a report of an earlier build, or None if there is none, or it was interrupted while it was written."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def has_inputs(top, inputs):
    """Returns whether an earlier build in this folder was made of the same commit by the same tools."""
    earlier = read_report(top / "inputs")
    if earlier is None:
        return False
    if changed := [key for key in inputs if earlier.get(key) != inputs[key]]:
        print(f"built again: {top} has other {', '.join(changed)}")
    return not changed


def finished_build(top, targets):
    """Returns the report of an earlier build of these targets in this folder, if its files are complete and unchanged."""
    finished = read_report(top / "complete")
    if finished is None or not (top / "made").is_dir():
        return None
    if finished["targets"] == targets and {path.name: sha256(path) for path in (top / "made").iterdir()} == finished["sums"]:
        return finished
    print(f"packed again: {top}/made has changed, or is of other targets")
    return None
