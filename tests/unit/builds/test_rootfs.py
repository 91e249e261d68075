"""The box's root file system: the OCI image layout that is made, that is checked, and the busybox in it."""

import gzip
import hashlib
import json
import os
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from lab.base.architecture import AARCH64, X86_64
from lab.base.errors import LabError, UsageError
from lab.base.paths import Paths
from lab.builds import rootfs
from tests.builders.facts import executable

# As an ordinary user's: it unpacks as another user, who can make no folder in one of this user's.
MMDEBSTRAP = """#!/bin/sh
for word; do
    case $word in "--extract-hook=copy-out /usr/bin/busybox "*) echo static >"${word##* }/busybox" ;; esac
done
[ "$word" = /dev/null ] || { echo "E: cannot create $word: Permission denied" >&2; exit 25; }
"""


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rootfs.make(tmp_path_factory.mktemp("layout") / "rootfs", X86_64, rootfs.find_busybox())


def blob(layout: Path, descriptor: dict[str, Any]) -> bytes:
    """What a descriptor points at, when its digest and size are right."""
    algorithm, digest = descriptor["digest"].split(":")
    content: bytes = (layout / "blobs" / algorithm / digest).read_bytes()
    assert hashlib.sha256(content).hexdigest() == digest
    assert len(content) == descriptor["size"]
    return content


def test_it_is_an_oci_layout_whose_commands_run_and_the_same_every_time(layout: Path, tmp_path: Path) -> None:
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert rootfs.check_layout(layout) == layout
    [manifest_blob] = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = json.loads(blob(layout, manifest_blob))
    [layer_blob] = manifest["layers"]
    layer = gzip.decompress(blob(layout, layer_blob))
    # The config names the layer by its uncompressed digest.
    config = json.loads(blob(layout, manifest["config"]))
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    assert (config["os"], config["architecture"]) == ("linux", "amd64")
    # Every blob is pointed at.
    digests = {descriptor["digest"] for descriptor in (manifest_blob, layer_blob, manifest["config"])}
    assert {f"sha256:{file.name}" for file in (layout / "blobs" / "sha256").iterdir()} == digests
    with tarfile.open(fileobj=BytesIO(layer)) as tar:
        tar.extractall(tmp_path, filter="tar")
    for name in ("sh", "echo", "sleep"):
        assert (tmp_path / "bin" / name).resolve() == tmp_path / "bin" / "busybox"
    echo = subprocess.run([tmp_path / "bin" / "echo", "hi"], capture_output=True, text=True, check=True)
    assert echo.stdout == "hi\n"
    again = rootfs.make(tmp_path / "rootfs", X86_64, rootfs.find_busybox())
    assert (again / "index.json").read_bytes() == (layout / "index.json").read_bytes()


@pytest.mark.parametrize("missing", ["oci-layout", "index.json", "blobs"])
def test_a_folder_that_is_no_layout_is_refused(tmp_path: Path, missing: str) -> None:
    for name in {"oci-layout", "index.json", "blobs"} - {missing}:
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match=f"--rootfs {tmp_path}: .* has no {missing}"):
        rootfs.check_layout(tmp_path)
    with pytest.raises(UsageError, match="not an OCI image layout"):
        rootfs.check_layout(tmp_path / "none")


def test_a_program_without_interpreter_is_static(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busybox = rootfs.find_busybox()
    (tmp_path / "script").write_text("#!/bin/sh\n")
    (tmp_path / "cut").write_bytes(busybox.read_bytes()[:100])
    monkeypatch.setattr(rootfs, "SYSTEMS_BUSYBOX", tmp_path / "none")
    monkeypatch.setattr("shutil.which", lambda _name: str(busybox))
    assert rootfs.find_busybox() == busybox
    for other in (Path("/bin/ls"), tmp_path / "script", tmp_path / "cut", tmp_path / "none", None):
        monkeypatch.setattr("shutil.which", lambda _name, other=other: other and str(other))
        with pytest.raises(LabError, match="no static busybox") as error:
            rootfs.find_busybox()
        assert "install busybox-static" in (error.value.hint or "")


def test_another_architecture_s_busybox_comes_from_debian_for_an_ordinary_user_too(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable(tmp_path / "bin/mmdebstrap", MMDEBSTRAP)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    assert rootfs.fetch_busybox(paths, AARCH64).read_text() == "static\n"
