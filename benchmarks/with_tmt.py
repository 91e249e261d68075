"""tmt with testcloud, measured by `peers.py`: a machine is booted for each cell."""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import usage
from benchmarks.same_cells import SCRIPT, Bench, Measured
from lab.base.paths import Paths
from lab.images import store

PEERS = ("tmt==1.78.0", "testcloud==0.12.0")
# What they start beside QEMU and libvirt, and its Debian package.
PROGRAMS = {
    "genisoimage": "genisoimage",
    "ip": "iproute2",
    "rsync": "rsync",
    "setfacl": "acl",
    "unshare": "util-linux",
}
APART = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
ISOLATED = Path(__file__).with_name("isolated.sh")
PLAN = """discover: {{how: shell, tests: [{{name: cell, test: sh cell.sh}}]}}
provision:
    how: virtual
    image: file://{disk}
    connection: session
    memory: {memory}
    disk: {disk_gib}
    hardware: {{cpu: {{processors: 1}}}}
execute: {{how: tmt}}
"""
# Not `prepare`: it looks up a package that holds flock, though the guest has it, and there is nobody to ask.
STEPS = ("discover", "provision", "execute", "report", "finish", "cleanup")
# For each cell: a slow host took 195.
SECONDS = 600.0


def tmt(bench: Bench) -> Measured:
    """Let tmt run as many plans, each of which boots a machine of its own. Raises SystemExit if one fails."""
    program = _installed(bench.paths)
    found = Measured()
    with tempfile.TemporaryDirectory(prefix="lab-peers-") as name:
        folder = Path(name)
        write_plans(bench, folder)
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, "nobody", "nogroup")
        environment = {
            "HOME": name,
            # Nobody may enter all folders of root's.
            "PATH": f"{program.parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            # A libvirt of its own, inside its namespaces.
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "TMT_WORKDIR_ROOT": str(folder / "work"),
        }
        begun = time.monotonic()
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(
                [*APART, str(ISOLATED), str(program), "run", *STEPS],
                cwd=folder / "tree",
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            with usage.sampled(usage.below(process.pid)) as used:
                try:
                    status: int | str = process.wait(SECONDS * bench.cells)
                except subprocess.TimeoutExpired:
                    status = f"nothing after {SECONDS * bench.cells:.0f} s"
                finally:
                    process.kill()
        found.wall, found.cpu, found.peak_mib = time.monotonic() - begun, used.seconds, used.peak_mib
        said = (folder / "output").read_text(errors="replace")
    passed = f"total: {bench.cells} test{'s' if bench.cells != 1 else ''} passed"
    if status != 0 or passed not in said:
        raise SystemExit(f"tmt ended with {status}:\n{said[-4000:]}")
    return found


def _installed(paths: Paths) -> Path:
    """The program tmt in a folder of its own, installed if it is not there. Raises SystemExit."""
    if missing := {package for program, package in PROGRAMS.items() if not shutil.which(program)}:
        raise SystemExit(f"tmt with testcloud needs the packages {', '.join(sorted(missing))}")
    folder = paths.make(paths.cache) / "benchmarks" / "-".join(each.replace("==", "-") for each in PEERS)
    program = folder / "bin" / "tmt"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", *PEERS], check=True)
    return program


def write_plans(bench: Bench, folder: Path) -> None:
    """A tree of tmt's with a plan for each cell, and the folders that are not made by themselves."""
    tree = folder / "tree"
    for made in (tree / ".fmf", folder / "run", folder / "work"):
        made.mkdir(parents=True)
    (folder / "run").chmod(0o700)
    (tree / ".fmf" / "version").write_text("1\n")
    (tree / "cell.sh").write_text(SCRIPT)
    disk_gib = store.cloud_image(bench.guest).disk_gib
    text = PLAN.format(disk=bench.disk, memory=bench.guest.memory_mib, disk_gib=disk_gib)
    text += "".join(f"/cell-{number}: {{summary: Cell {number}}}\n" for number in range(1, bench.cells + 1))
    (tree / "cells.fmf").write_text(text)
