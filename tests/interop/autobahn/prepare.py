"""Creates a private copy of Autobahn's test suite that runs on Python 3, in the given folder.

The suite is written for Python 2. Its cases store bytes in `str`; here, each character represents the byte
of the same value, and fuzz.py translates at the edge of the protocol. After lib2to3, repairs are needed only
for the suite's own conversions between text and bytes, and for features that Python 3 removed.
This repository contains no part of the suite. A complete copy is not changed.

Needs Python 3.10 or later with venv, and PyPI.

Usage: prepare.py FOLDER
"""

import glob
import os
import shutil
import subprocess
import sys
import tarfile
import venv

SUITE = "autobahntestsuite==25.10.1"
# The last series of clients with the interface for which the suite was written.
CLIENT = "autobahn==0.10.9"
LIBRARIES = ["twisted==26.*", "txaio==25.*", "six==1.*", "pyopenssl", "service_identity"]
# A fork of Python's lib2to3, which Python 3.13 removed.
CONVERTER = "fissix==24.4.24"

# (files, text to find, replacement). Each must be found; another version of the suite may need other repairs.
REPAIRS = [
    ("case/*.py", "(object, Case, )", "(Case,)"),
    ("case/__init__.py", "from .case9_9_1 import *", ""),
    ("case/case.py", "pickle.dumps(obj1) == pickle.dumps(obj2)", "obj1 == obj2"),
    ("case/case10_1_1.py", "len(self.payload) / ", "len(self.payload) // "),
    ("case/case6_x_x.py", "v.validate(vss[:i])", "v.validate(vss[:i].encode('latin-1'))"),
    ("case/*.py", "import binascii", "from autobahntestsuite import python2 as binascii"),
    ("case/*.py", "import copy, os, pkg_resources, hashlib, binascii",
     "import copy, os, hashlib\nfrom autobahntestsuite import python2 as binascii\npkg_resources = binascii"),
    ("fuzzing.py", "import os, json, binascii, time, textwrap, pkg_resources",
     "import os, json, time"),
    # The HTML report would need more libraries.
    ("fuzzing.py", "from .report import", "from .python2 import"),
]

PYTHON2 = '''
import binascii, os


def b2a_hex(data):
    data = data.encode("latin-1") if isinstance(data, str) else data
    return binascii.b2a_hex(data).decode()


hexlify = b2a_hex
CSS_COMMON = CSS_DETAIL_REPORT = CSS_MASTER_REPORT = JS_MASTER_REPORT = ""


def resource_filename(package, name):
    return os.path.join(os.path.dirname(__file__), name)
'''


def main(folder):
    with open(__file__, encoding="utf-8") as script:
        this = script.read()
    made_by = os.path.join(folder, "made-by")
    environment = os.path.join(folder, "python")
    python = os.path.join(environment, "bin", "python")
    if is_whole(made_by, this, python):
        return
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(environment, with_pip=True)
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.check_call([*pip, "install", *LIBRARIES, CONVERTER])
    sources = os.path.join(folder, "sources")
    subprocess.check_call(
        [*pip, "download", "--no-deps", "--no-binary", "autobahn,autobahntestsuite", "--dest", sources, SUITE, CLIENT]
    )
    for archive in glob.glob(os.path.join(sources, "*.tar.gz")):
        unpack(archive, folder)
    # The converter caches its grammar below the user's home directory; this keeps the cache in the folder.
    cache = {**os.environ, "XDG_CACHE_HOME": os.path.abspath(os.path.join(folder, "cache"))}
    suite = os.path.join(folder, "autobahntestsuite")
    subprocess.check_call([python, "-W", "ignore", __file__, "--convert", suite], env=cache)
    # Written last, so that an interrupted run starts over.
    with open(made_by, "w", encoding="utf-8") as script:
        script.write(this)


def is_whole(made_by, this, python):
    """Returns whether a complete copy exists, made by this version of the script for an existing Python."""
    try:
        with open(made_by, encoding="utf-8") as script:
            return script.read() == this and subprocess.call([python, "-c", "import twisted"]) == 0
    except OSError:
        return False


def unpack(archive, folder):
    """Extracts the package only, without the top-level folder with the version in its name."""
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            package, _, path = member.name.partition("/")[2].partition("/")
            if package in ("autobahn", "autobahntestsuite") and path and member.isfile():
                member.name = os.path.join(package, path)
                tar.extract(member, folder)


def convert(suite):
    from fissix.refactor import RefactoringTool, get_fixers_from_package

    with open(os.path.join(suite, "python2.py"), "w", encoding="utf-8") as file:
        file.write(PYTHON2)
    # The original imports the whole suite. Only the fuzzing client and its cases are needed.
    with open(os.path.join(suite, "__init__.py"), "w", encoding="utf-8") as file:
        file.write("from ._version import __version__ as version\n")
    tool = RefactoringTool(get_fixers_from_package("fissix.fixes"))
    found = set()
    for path in [os.path.join(suite, name) for name in ("fuzzing.py", "caseset.py")] + glob.glob(
        os.path.join(suite, "case", "*.py")
    ):
        # As Latin-1: non-ASCII characters in literals represent bytes, too.
        with open(path, encoding="latin-1") as file:
            text = file.read()
        text = str(tool.refactor_string(text.rstrip() + "\n", path))
        for repair in REPAIRS:
            pattern, old, new = repair
            if path in glob.glob(os.path.join(suite, pattern)) and old in text:
                text = text.replace(old, new)
                found.add(repair)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    missed = [repair[:2] for repair in REPAIRS if repair not in found]
    if missed:
        raise SystemExit(f"the suite has changed: {missed}")


if __name__ == "__main__":
    if sys.argv[1] == "--convert":
        convert(sys.argv[2])
    else:
        main(sys.argv[1])
