"""The box's root file system: an OCI image layout whose one layer holds a static busybox. It needs no registry.

Format: https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md
"""

import gzip
import hashlib
import json
import shlex
import shutil
import tarfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

from lab.base import process
from lab.base.architecture import Architecture
from lab.base.errors import LabError, UsageError
from lab.base.files import read_regular
from lab.base.notices import ANNOUNCED_TASK
from lab.base.paths import Paths
from lab.builds import elf, wheels

APPLETS = ("sh", "echo", "sleep", "cat", "ls", "id", "mount", "true")
FOLDERS = ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "var")
SYSTEMS_BUSYBOX = Path("/bin/busybox")
# Where busybox comes from for an architecture that is not the host's.
BUSYBOX_SUITE = "trixie"
FETCH_SECONDS = 300.0
# An index has some 100 bytes for each image; registries take documents of up to 4 MiB.
MOST_INDEX_BYTES = 4 * 2**20


def make_layouts(folder: Path, paths: Paths, architectures: Iterable[Architecture]) -> dict[str, Path]:
    """The lab's own layout for each architecture, by its name, below `folder`. Raises LabError."""
    return {
        kind.name: make(
            folder / kind.name, kind, find_busybox() if kind.is_hosts else fetch_busybox(paths, kind)
        )
        for kind in set(architectures)
    }


def make(folder: Path, architecture: Architecture, busybox: Path) -> Path:
    """Write the lab's own layout, with this static busybox, into `folder` and return it."""
    layer = _layer(busybox.read_bytes())
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    compressed = gzip.compress(layer, mtime=0)
    config = {
        "architecture": architecture.debian,
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    oci = "application/vnd.oci.image"
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{oci}.manifest.v1+json",
        "config": _blob(blobs, f"{oci}.config.v1+json", _json(config)),
        "layers": [_blob(blobs, f"{oci}.layer.v1.tar+gzip", compressed)],
    }
    descriptor = _blob(blobs, f"{oci}.manifest.v1+json", _json(manifest))
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    index = {"schemaVersion": 2, "mediaType": f"{oci}.index.v1+json", "manifests": [descriptor]}
    (folder / "index.json").write_bytes(_json(index))
    (folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    return folder


def check_layout(folder: Path) -> Path:
    """Return the user's own layout. Raises UsageError if the folder is not an OCI image layout."""
    for name in ("oci-layout", "index.json", "blobs"):
        if not (folder / name).exists():
            raise UsageError(
                f"--rootfs {folder}: not an OCI image layout: it has no {name}",
                hint="make one with: skopeo copy docker://IMAGE oci:DIR",
            )
    return folder


def read_index(folder: Path) -> str:
    """Read a layout's index, which names all its other files by digest; empty if there is none.

    The layout may be one that somebody else's record names. Raises UsageError.
    """
    try:
        return read_regular(folder / "index.json", MOST_INDEX_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UsageError(
            f"--rootfs {folder}: the index of the layout cannot be read: {error.strerror}: {error.filename}",
            hint="make a layout with: skopeo copy docker://IMAGE oci:DIR",
        ) from error


def find_busybox() -> Path:
    """The host's static busybox; the layer holds no libraries. Raises LabError if there is none."""
    for candidate in (SYSTEMS_BUSYBOX, Path(shutil.which("busybox") or SYSTEMS_BUSYBOX)):
        # What is static asks for no version of glibc.
        if candidate.exists() and any(needs.glibc is None for needs in elf.read_needs(candidate)):
            return candidate
    raise LabError("no static busybox on this host", hint="install busybox-static (Fedora: busybox)")


def fetch_busybox(paths: Paths, architecture: Architecture) -> Path:
    """Debian's static busybox of an architecture that is not the host's, kept in the cache. Raises LabError."""

    def fill(folder: Path) -> None:
        # An ordinary user's mmdebstrap unpacks as another user, who can write to no folder of this one.
        words = ["--variant=extract", f"--architectures={architecture.debian}", "--include=busybox-static"]
        take = f"--extract-hook=copy-out /usr/bin/busybox {shlex.quote(str(folder))}"
        process.run_command(
            ["mmdebstrap", "--format=null", *words, take, BUSYBOX_SUITE, "/dev/null"], timeout=FETCH_SECONDS
        )

    folder = wheels.get_wheel_store(paths) / f"busybox-{architecture.name}"
    doing = f"fetching busybox for {architecture.name}"
    return wheels.fetch_once(folder, doing, fill, ANNOUNCED_TASK) / "busybox"


def _layer(busybox: bytes) -> bytes:
    stream = BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in FOLDERS:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        _add_file(tar, "bin/busybox", busybox, 0o755)
        for name in APPLETS:
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        _add_file(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", 0o644)
        _add_file(tar, "etc/group", b"root:x:0:\n", 0o644)
    return stream.getvalue()


def _add_file(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = mode, len(content)
    tar.addfile(entry, BytesIO(content))


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _blob(folder: Path, media_type: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    (folder / digest).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}
