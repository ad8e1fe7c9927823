"""Checks of the programs and packages of a release, and the reports about them in its evidence: see `release`."""

import filecmp
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zlib
from pathlib import Path

from archives import sha256

HERE = Path(__file__).resolve().parent
# The tools from crates.io that make a release.
TOOLS = ["cargo-auditable", "cargo-cyclonedx", "cargo-deb", "cargo-about"]
PACKAGES = ["gcc", "binutils", "libc6-dev", "musl-dev", "musl-tools", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross",
            "musl-dev:arm64", "libc6:arm64", "libgcc-s1:arm64", "openssl", "lintian"]
# The units that systemd finds in the Debian package.
UNITS = ["h-realtime.service", "h-realtime.socket", "h-realtime-forward@.service"]


def tool_versions():
    """Returns the versions on which the bytes depend."""
    commands = [["rustc", "-vV"], ["cargo", "--version"], ["cc", "--version"], ["ld", "--version"], ["dpkg-deb", "--version"]]
    found = {" ".join(command): first_lines(command) for command in commands}
    found |= {tool: installed_version(tool) for tool in TOOLS}
    # Packages that are not installed are left out.
    found["packages"] = first_lines(["dpkg-query", "--show", *PACKAGES])
    found["system"] = platform.platform()
    return found


def installed_version(tool):
    """Returns the version of a tool in the list of the programs that cargo has installed, or else its checksum.
    cargo-auditable passes `--version` on to cargo."""
    program = shutil.which(tool)
    if program is None:
        return None
    listed = first_lines(["cargo", "install", "--list", "--root", Path(program).resolve().parents[1]], None)
    versions = [line.rstrip(":") for line in listed if line.startswith(f"{tool} ")]
    return versions[0] if versions else sha256(Path(program))


def first_lines(command, most=len(PACKAGES)):
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[:most]


def can_run(program):
    """Returns whether this machine runs the program: of its own architecture, or by an emulator such as QEMU's."""
    try:
        return subprocess.run([program, "--version"], capture_output=True).returncode == 0
    except OSError:
        return False


def smoke(program, static):
    """Returns the output of the smoke test of a program."""
    return output([HERE / "smoke", *(["--static"] if static else []), program])


def conformance(program):
    """Returns the output of the conformance program, which compares the server with recordings of h."""
    return output([HERE / "conformance", program])


def check_package(root, unpacked, program):
    """Compares the files of the package with the list in Cargo.toml, and its program with that of the archive."""
    if not filecmp.cmp(unpacked / "usr/bin/h-realtime", program, shallow=False):
        sys.exit("the program in the Debian package is not that of the archive")
    count = 0
    manifest = tomllib.loads((root / "Cargo.toml").read_text())
    for source, folder, _ in manifest["package"]["metadata"]["deb"]["assets"]:
        if folder.endswith("/"):
            name = Path(source).name.replace("[", "[[]")
            # Manual pages are compressed, and so are large documents.
            found = [path for pattern in [name, f"{name}.gz"] for path in (unpacked / folder).glob(pattern)]
        else:
            found = [path for path in [unpacked / folder, unpacked / f"{folder}.gz"] if path.exists()]
        if not found:
            sys.exit(f"the Debian package has no {folder}{Path(source).name}")
        count += len(found)
    for unit in UNITS:
        if not (unpacked / "usr/lib/systemd/system" / unit).exists():
            sys.exit(f"the Debian package has no unit {unit}")
    return f"ok: {count} files as listed in Cargo.toml, the units, and the program of the archive\n"


def check_depends(deb):
    """Ends with an error if a package does not state the version of the C library that its program needs."""
    depends = output(["dpkg-deb", "--field", deb, "Depends"]).strip()
    if not re.search(r"\blibc6 \(>= ", depends):
        sys.exit(f"{deb} needs no version of libc6, only {depends!r}: install libc6 for its architecture, such as libc6:arm64")
    return f"needs {depends}\n"


def check_folders(program, folders):
    """Ends with an error if the program contains the path of a folder of this machine."""
    data = program.read_bytes()
    if found := sorted({str(folder) for folder in folders if f"{folder}/".encode() in data}):
        sys.exit(f"{program} contains paths of this machine: {', '.join(found)}")


def crates_in(program):
    """Returns the crates that cargo-auditable has listed in a program, as pairs of name and version."""
    with tempfile.TemporaryDirectory() as folder:
        section = Path(folder) / "section"
        # The generic format: binutils need not know the architecture of the program.
        output(["objcopy", "-I", "elf64-little", "--dump-section", f".dep-v0={section}", program, Path(folder) / "copy"])
        listed = json.loads(zlib.decompress(section.read_bytes()))["packages"]
    return {(crate["name"], crate["version"]) for crate in listed if crate.get("kind", "runtime") == "runtime"}


def check_sbom(program, document):
    """Compares the components of a CycloneDX document with the crates that the program itself lists."""
    document = json.loads(document)
    listed = crates_in(program)
    components = [document["metadata"]["component"], *document["components"]]
    described = {(component["name"], component["version"]) for component in components}
    if not listed or (missing := listed - described):
        sys.exit(f"the SBOM of {program} lacks crates of the program: {sorted(missing) if listed else 'it lists none'}")
    if unlicensed := [component["name"] for component in components if not component.get("licenses")]:
        sys.exit(f"the SBOM of {program} has no licenses for {', '.join(unlicensed)}")
    return {"crates in the program": len(listed), "components": len(described)}


def audit(source, programs):
    """Returns the known vulnerabilities of the crates that each program itself lists, and of those that build and test
    it, by the newest available database."""
    if not shutil.which("cargo-audit"):
        return "not checked: cargo-audit is not installed (cargo install --locked cargo-audit)\n"
    locks = [path for path in sorted(source.rglob("Cargo.lock")) if "target" not in path.relative_to(source).parts]
    subjects = {target: ["bin", program] for target, program in programs.items()}
    subjects |= {str(path.relative_to(source)): ["--file", path] for path in locks}
    options, text = [], ""
    if "error: couldn't fetch" in cargo_audit([], subjects["Cargo.lock"]).stderr:
        database = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo")) / "advisory-db"
        if not (database / "crates").is_dir():
            return "not checked: the database of advisories is unavailable\n"
        options = ["--no-fetch", "--stale"]
        date = output(["git", "-C", database, "log", "-1", "--format=%cs (%h)"]).strip()
        text = f"The database is that of {date}: it could not be updated.\n"
    for name, subject in subjects.items():
        result = cargo_audit(options, subject)
        found = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout + result.stderr)
        # Without the folders of this machine, and the progress.
        found = re.sub(r"(?m)^ +(Loaded|Found|Scanning|Fetching|Updating) .*\n", "", found.replace(f"{source}/", ""))
        state = "no known vulnerability" if result.returncode == 0 else f"FOUND (status {result.returncode})"
        text += f"{name}: {state}, {crates_of(result)}\n{found}"
    return text


def crates_of(result):
    """Returns the number of crates that cargo-audit has examined, as it prints it."""
    number = re.search(r"\((\d+) (?:crate )?dependencies\)", result.stdout + result.stderr)
    return f"{number[1]} crates" if number else "no crates"


def cargo_audit(options, subject):
    return subprocess.run(["cargo", "audit", *options, *subject], capture_output=True, text=True)


def output(command):
    """Returns the output of a command; an error ends this program."""
    print("+", *command, file=sys.stderr, flush=True)
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
