"""Deploying a build into a guest over SSH, with its suite and the box's root file system: once per lane."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from lab.base import scratch
from lab.base.space import A_PAYLOAD, explained
from lab.builds import FOLDER, ROOTFS, Build, payload
from lab.builds.payload import Compression
from lab.guest.session import ADMIN, SUITE, Session

HAS_ZSTD = f"command -v {Compression.ZSTD}"
# Compressed, because an emulated guest takes longer to decrypt what is not. With tar's own blocks of 10 KiB and
# its own start of the other program it took half as long again. If the other fails, so does tar.
UNPACK = (
    f"umask 022 && sudo -n install -d -o {ADMIN} {FOLDER} && cd {FOLDER} && "
    "{} -dc | tar --blocking-factor=2048 -xf -"
)
# To be changed with what `deploy` makes of the same files.
LAYOUT = "3"


def identity(build: Build, rootfs: Path) -> str:
    """A digest of all that `deploy` puts into a guest, except for what the build's kind leaves open."""
    # A layout's index names everything else in it by digest.
    parts = [build.digest, LAYOUT, (rootfs / "index.json").read_text()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def deploy(
    session: Session,
    build: Build,
    files: Mapping[str, Path],
    *,
    rootfs: Path,
    python: str,
    say: Callable[[str], None],
) -> None:
    """Put the build's files, its suite and the layout into the guest, and run the build's steps.

    `python` is the version of the guest's. `say` is told how far that is. Raises LabError.
    """
    say("deploying: packing")
    with scratch.temporary() as folder:
        with explained(folder, A_PAYLOAD):
            laid_out = build.laid_out(files, folder, python)
        contents = {
            **laid_out,
            **{f"{build.suite_folder}/{name}": file for name, file in build.suite.files.items()},
            ROOTFS: rootfs,
        }
        has_zstd = session.run(HAS_ZSTD, seconds=5, check=False).status == 0
        how = Compression.ZSTD if has_zstd else Compression.GZIP
        packed = folder / "payload.tar"
        with explained(packed, A_PAYLOAD):
            below = {name.removeprefix(f"{FOLDER}/"): path for name, path in contents.items()}
            payload.pack(below, packed, how)
        size = packed.stat().st_size
        with packed.open("rb") as source:
            session.feed(UNPACK.format(how), source, size, lambda sent: say(_progress(sent, size)))
    for step in build.steps():
        user = SUITE if step.as_suite_user else ADMIN
        session.run(step.command, seconds=step.seconds, user=user, check=step.check)


def _progress(sent: int, size: int) -> str:
    return f"deploying: {sent / 2**20:.0f} of {size / 2**20:.0f} MiB"
