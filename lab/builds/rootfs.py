"""The box's root file system: an OCI image layout whose one layer holds a static busybox. It needs no registry.

Format: https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md
"""

import gzip
import hashlib
import json
import shutil
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

from lab.base.errors import LabError, UsageError

APPLETS = ("sh", "echo", "sleep", "cat", "ls", "id", "mount", "true")
FOLDERS = ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "var")


def make(folder: Path) -> Path:
    """Write the lab's own layout into `folder` and return it. Raises LabError as `find_busybox` does."""
    layer = _layer(find_busybox().read_bytes())
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    compressed = gzip.compress(layer, mtime=0)
    config = {
        "architecture": "amd64",
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


def check(folder: Path) -> Path:
    """Return the user's own layout. Raises UsageError if the folder is not an OCI image layout."""
    for name in ("oci-layout", "index.json", "blobs"):
        if not (folder / name).exists():
            raise UsageError(
                f"--rootfs {folder}: not an OCI image layout: it has no {name}",
                hint="make one with: skopeo copy docker://IMAGE oci:DIR",
            )
    return folder


def find_busybox() -> Path:
    """The host's static busybox; the layer holds no libraries. Raises LabError if there is none."""
    for candidate in ("/bin/busybox", shutil.which("busybox")):
        if candidate and Path(candidate).exists() and _is_static(Path(candidate)):
            return Path(candidate)
    raise LabError("no static busybox on this host", hint="install busybox-static (Fedora: busybox)")


def _is_static(program: Path) -> bool:
    """Whether an ELF program names no interpreter, and so has no segment of type PT_INTERP."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        with program.open("rb") as stream:
            return all(segment["p_type"] != "PT_INTERP" for segment in ELFFile(stream).iter_segments())
    except (OSError, ELFError):
        return False


def _layer(busybox: bytes) -> bytes:
    stream = BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in FOLDERS:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        entry = tarfile.TarInfo("bin/busybox")
        entry.mode, entry.size = 0o755, len(busybox)
        tar.addfile(entry, BytesIO(busybox))
        for name in APPLETS:
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        _add_text(tar, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        _add_text(tar, "etc/group", "root:x:0:\n")
    return stream.getvalue()


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = 0o644, len(text)
    tar.addfile(entry, BytesIO(text.encode()))


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _blob(folder: Path, media_type: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    (folder / digest).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}
