"""Measure what programs say under each cause: `lab/repro/measured.json`, which `lab repro` reads.

    python -m benchmarks.witnesses [-g GUEST]... [-v VARIANT]... [--file FILE]

Each guest is put into the state of a cell, with each variant that leads to a cause, and in it small programs
ask the kernel for what sandboxes ask. A row is one program that failed: its version, the guest, its kernel, the
variant and the cause that it leads to, the exit status, the words with what varies replaced, and the audit
lines that it left. Rows of the same guest and variant are replaced. A row with a `source` was added by hand,
and is kept. What fails under `stock` too is left out.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lab import builds, catalog
from lab.base.activity import UNWATCHED
from lab.base.errors import LabError
from lab.base.files import clean_text
from lab.base.paths import Paths
from lab.catalog import Guest, Variant
from lab.catalog.abilities import can_have
from lab.lane import shell
from lab.machine.connection import get_default_uri
from lab.plan import Cell
from lab.repro import judging

# Seconds that all witnesses of a guest may take, which an emulated processor stretches.
LONGEST = 1500
WHOLE = "--ro-bind / / --dev /dev --proc /proc"
BOXLITE = f"--unshare-user --unshare-pid --unshare-ipc --unshare-uts {WHOLE} --clearenv"
FLATPAK = f"--unshare-all --share-net {WHOLE}"
CODEX = f"--new-session --die-with-parent --unshare-user --unshare-pid --unshare-net {WHOLE}"
# Python's error alone, without the lines of code above it.
SHORT = "import sys; sys.tracebacklimit = 0; "
OPEN_KVM = f"{SHORT}import fcntl, os; fcntl.ioctl(os.open('/dev/kvm', os.O_RDWR), 0xAE01, 0)"
THREADS = "import threading, time; [threading.Thread(target=time.sleep, args=(3,)).start() for _ in range(500)]"
DERIVATION = 'derivation { name = "w"; system = "x86_64-linux"; builder = "/bin/sh"; args = ["-c" "true"]; }'
MAPS = f"{SHORT}import os; os.unshare(os.CLONE_NEWUSER); open('/proc/self/setgroups', 'w').write('deny')"
# By the name of each witness: a command for a shell. One whose program the guest lacks is left out.
WITNESSES = {
    "unshare -U": "unshare -U true",
    "unshare -Ur": "unshare -Ur true",
    "unshare -Urn": "unshare -Urn true",
    "unshare -Urm": "unshare -Urm true",
    "bwrap as an ordinary user": "bwrap --unshare-user --ro-bind / / true",
    "bwrap without a network": "bwrap --unshare-user --unshare-net --ro-bind / / true",
    "bwrap as boxlite": f"bwrap {BOXLITE} true",
    "bwrap as Flatpak": f"bwrap {FLATPAK} /usr/bin/true",
    "bwrap as Codex": f"bwrap {CODEX} true",
    "bwrap as pressure-vessel": "bwrap --ro-bind / / --dev-bind /dev /dev --tmpfs /tmp true",
    "python3 os.unshare": f'python3 -c "{SHORT}import os; os.unshare(os.CLONE_NEWUSER)"',
    "python3 writing its maps": f'python3 -c "{MAPS}"',
    "python3 threads": f'python3 -c "{THREADS}"',
    "python3 opening KVM": f'python3 -c "{OPEN_KVM}"',
    "sh forking": "sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do sleep 2 & done; wait'",
    "a program below the home": "cp /bin/true ~/witness && ~/witness",
    "podman": "podman unshare true",
    "buildah": "buildah unshare true",
    "firejail": "firejail --noprofile true",
    "apptainer": "apptainer exec --userns / true",
    "runsc": "runsc --rootless --network=none do true",
    "rootlesskit": "rootlesskit true",
    "chromium": "chromium --headless --no-first-run --dump-dom about:blank",
    "nix": f"nix-build --store /tmp/nix-witness --option substitute false -E '{DERIVATION}'",
    "qemu": "qemu-system-x86_64 -accel kvm -display none -no-reboot -kernel /dev/null",
}
# What guests that are built from Debian's packages get for them, without what a package only recommends.
PACKAGES = (
    *("podman", "crun", "buildah", "runsc", "rootlesskit"),
    *("firejail", "chromium", "nix-bin", "qemu-system-x86"),
)
# Runs the witnesses in the guest: one at a time, each with its program's version.
PROGRAM = r"""
import json, subprocess, sys, tempfile
def run(command, seconds):
    # A file, which nobody waits for: what a program leaves behind would hold a pipe open.
    with tempfile.TemporaryFile("w+") as said:
        words = ["timeout", "--kill-after=5", str(seconds), "sh", "-c", command]
        status = subprocess.call(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
        said.seek(0)
        return status, said.read(20000)
for name, command in json.load(sys.stdin).items():
    program = command.split()[0]
    if run("command -v " + program, 20)[0]:
        continue
    version = run(program + " --version >&2", 10)[1].splitlines()[:1]
    status, said = run(command, 20)
    print(json.dumps({"witness": name, "version": "".join(version), "status": status, "said": said}))
"""
# What differs each time the same is said.
VARIES = (
    (re.compile(r"\b0x[0-9a-f]+\b"), "ADDRESS"),
    (re.compile(r"/proc/\d+/"), "/proc/PID/"),
    (re.compile(r"\bpid=\d+"), "pid=PID"),
    (re.compile(r"/home/\w+"), "/home/USER"),
    (re.compile(r"\[ *\d+\.\d+\] "), ""),
    (re.compile(r"audit\(\d+\.\d+:\d+\)"), "audit(TIME)"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z?"), "TIME"),
)
AUDIT = re.compile(r"apparmor=\"(?:DENIED|AUDIT|ALLOWED)\"|avc:\s+denied")
# Fields of an audit line that tell what was refused.
TELLING = ("apparmor", "operation", "class", "info", "error", "profile", "comm", "capname", "target", "name")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-g", dest="guests", action="append", default=[], help="default: debian-13")
    parser.add_argument(
        "-v", dest="variants", action="append", default=[], help="default: all that lead to a cause"
    )
    parser.add_argument("--file", type=Path, default=judging.MEASURED)
    options = parser.parse_args()
    known = catalog.load_catalog()
    rows = json.loads(options.file.read_text()) if options.file.exists() else []
    for name in options.guests or ["debian-13"]:
        guest = known.guest(name)
        if guest.image.kind == "debian":
            guest = guest.with_packages(*PACKAGES)
        named = [known.variant(name) for name in options.variants]
        always: set[tuple[str, ...]] = set()
        for variant in [known.variant("stock"), *(named or leading(guest, known.variants.values()))]:
            try:
                measured = list(measure(guest, variant))
            except LabError as error:
                print(f"{guest.name}/{variant.name}: {error.args[0]}", file=sys.stderr)
                continue
            if variant.name == "stock":
                always = {(row["program"], *row["words"]) for row in measured}
                continue
            measured = [row for row in measured if (row["program"], *row["words"]) not in always]
            here = (guest.name, variant.name)
            rows = [row for row in rows if "source" in row or (row["guest"], row["variant"]) != here]
            rows += measured
            write(options.file, rows)
            print(f"{guest.name}/{variant.name}: {len(measured)} programs fail", flush=True)
    return 0


def leading(guest: Guest, candidates: Iterable[Variant]) -> list[Variant]:
    """The variants that lead a guest to a cause, as far as its definition tells."""
    return [variant for variant in candidates if variant.leads_to and can_have(guest, variant)]


def measure(guest: Guest, variant: Variant) -> Iterator[dict[str, Any]]:
    """Yield a row for each witness that fails in a guest with a variant. Raises LabError."""
    cell = Cell(guest, variant, builds.resolve_build(None))
    with shell.enter_guest(cell, Paths.default(), get_default_uri(), UNWATCHED) as opened:

        def run(*words: str, user: Any, given: str = "") -> str:
            command = opened.entrance.command(list(words), user=user, stdin=True)
            done = subprocess.run(
                command, input=given, capture_output=True, text=True, timeout=LONGEST, check=False
            )
            return done.stdout

        before = len(run("dmesg", user="root").splitlines())
        kernel = run("uname", "-r", user="root").strip()
        lines = run("python3", "-c", PROGRAM, user="tester", given=json.dumps(WITNESSES)).splitlines()
        log = run("dmesg", user="root").splitlines()[before:]
    audit = sorted({_audit(line) for line in log if AUDIT.search(line)})
    for line in lines:
        result = json.loads(clean_text(line))
        if result["status"] in (0, 124, 137):  # It worked, or was ended at its limit.
            continue
        comm = result["witness"].split()[0]
        yield {
            "program": result["witness"],
            "version": result["version"],
            "guest": guest.name,
            "kernel": kernel,
            "variant": variant.name,
            "cause": variant.leads_to,
            "status": result["status"],
            "words": [_template(said) for said in result["said"].splitlines() if said.strip()][-3:],
            "audit": [said for said in audit if f"comm={comm}" in said],
        }


def _template(line: str) -> str:
    for pattern, word in VARIES:
        line = pattern.sub(word, line)
    return line.strip()[:400]


def _audit(line: str) -> str:
    fields = dict(re.findall(r'(\w+)="?((?<=")[^"]*|[^\s"]+)', _template(line)))
    return " ".join(f"{name}={fields[name]}" for name in TELLING if name in fields)


def write(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows, each on a line of its own, so that git shows what changed."""
    ordered = sorted(rows, key=lambda row: (row["guest"], row["variant"], row["program"]))
    file.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in ordered) + "\n]\n")


if __name__ == "__main__":
    sys.exit(main())
