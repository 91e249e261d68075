"""Putting the build, the suite and the box's root file system into a guest: once per lane."""

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from lab import builds
from lab.guest.session import SUITE, Session

FOLDER = "/opt/lab"
SITE = f"{FOLDER}/site"
ROOTFS = f"{FOLDER}/rootfs"

FIRST_USE = "import boxlite, tempfile; boxlite.Boxlite(boxlite.Options(home_dir=tempfile.mkdtemp()))"

UNPACK = f"""
set -e
cd {FOLDER}
tar xf payload.tar
rm payload.tar
python3 - <<'PROGRAM'
import pathlib, zipfile
for wheel in sorted(pathlib.Path("wheels").glob("*.whl")):
    zipfile.ZipFile(wheel).extractall("site")
PROGRAM
rm -r wheels
"""


# What Python compiles on a first import is compiled here, once, and not in every cell.
COMPILE = "python3 -m pytest --quiet --collect-only"


def identity(build: builds.Build, suite: Path, rootfs: Path) -> str:
    """A digest of all that `deploy` puts into a guest, but for which releases of the runner pip chose."""
    parts = [build.name, build.version, *builds.RUNNER, UNPACK, COMPILE, FIRST_USE]
    for file in sorted(file for file in suite.glob("*") if file.is_file()):
        parts += [file.name, file.read_text()]
    # A layout's index names all else in it by digest.
    parts.append((rootfs / "index.json").read_text())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def deploy(
    session: Session,
    *,
    wheels: list[Path],
    suite: Path,
    rootfs: Path,
    say: Callable[[str], None],
) -> None:
    """Upload and unpack everything that the suite needs. `say` gets how far that is."""
    files: Mapping[str, Path] = {
        **{f"wheels/{wheel.name}": wheel for wheel in wheels},
        f"suites/{suite.name}": suite,
        "rootfs": rootfs,
    }
    session.run(f"sudo -n install -d -o lab {FOLDER}", seconds=5)
    with tempfile.TemporaryDirectory(prefix="boxlite-lab-") as folder:
        payload = Path(folder) / "payload.tar"
        builds.pack(dict(files), payload)
        session.put(
            payload,
            f"{FOLDER}/payload.tar",
            lambda sent, total: say(f"deploying: {sent / 2**20:.0f} of {total / 2**20:.0f} MiB"),
        )
    say("deploying: unpacking")
    session.run(UNPACK, seconds=30)
    session.run(
        f"cd {FOLDER}/suites/{suite.name} && LAB_ROOTFS={ROOTFS} PYTHONPATH={SITE} {COMPILE}", seconds=30
    )
    # boxlite unpacks its runtime when it is first used, and a first login starts the user's own service
    # manager. A build that cannot even do that is for the suite to find out.
    session.run(f"PYTHONPATH={SITE} python3 -c '{FIRST_USE}'", seconds=30, user=SUITE, check=False)
