"""Deploying a build into a guest, with its suite and the box's root file system: once per lane."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from lab.base import scratch
from lab.base.space import A_PAYLOAD, explained
from lab.builds import FILES, FOLDER, ROOTFS, Build, payload
from lab.guest.session import ADMIN, SUITE, Session

PAYLOAD = f"{FOLDER}/payload.tar"
UNPACK = f"cd {FOLDER} && tar xf {PAYLOAD} && rm {PAYLOAD}"


def identity(build: Build, rootfs: Path) -> str:
    """A digest of all that `deploy` puts into a guest, except for what the build's kind leaves open."""
    # A layout's index names everything else in it by digest.
    parts = [build.digest, UNPACK, (rootfs / "index.json").read_text()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def deploy(
    session: Session, build: Build, files: Mapping[str, Path], *, rootfs: Path, say: Callable[[str], None]
) -> None:
    """Upload the build's files, its suite and the layout, unpack them and run the build's steps.

    `say` is told how far that is. Raises LabError.
    """
    contents = {
        **{f"{FILES}/{name}": file for name, file in files.items()},
        build.suite_folder: build.suite.folder,
        **{f"{build.suite_folder}/{name}": file for name, file in build.suite.shared_files.items()},
        ROOTFS: rootfs,
    }
    session.run(f"sudo -n install -d -o {ADMIN} {FOLDER}", seconds=5)
    with scratch.temporary() as folder:
        packed = folder / "payload.tar"
        with explained(packed, A_PAYLOAD):
            payload.pack({name.removeprefix(f"{FOLDER}/"): file for name, file in contents.items()}, packed)
        session.put(
            packed,
            PAYLOAD,
            lambda sent, total: say(f"deploying: {sent / 2**20:.0f} of {total / 2**20:.0f} MiB"),
        )
    say("deploying: unpacking")
    session.run(UNPACK, seconds=30)
    for step in build.steps():
        user = SUITE if step.as_suite_user else ADMIN
        session.run(step.command, seconds=step.seconds, user=user, check=step.check)
