import gzip
import hashlib
import json
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from lab.base.errors import LabError, UsageError
from lab.builds import rootfs


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rootfs.make(tmp_path_factory.mktemp("layout") / "rootfs")


def blob(layout: Path, descriptor: dict[str, Any]) -> bytes:
    """What a descriptor points at, when its digest and size are right."""
    algorithm, digest = descriptor["digest"].split(":")
    content: bytes = (layout / "blobs" / algorithm / digest).read_bytes()
    assert hashlib.sha256(content).hexdigest() == digest
    assert len(content) == descriptor["size"]
    return content


def manifest(layout: Path) -> dict[str, Any]:
    [descriptor] = json.loads((layout / "index.json").read_text())["manifests"]
    found: dict[str, Any] = json.loads(blob(layout, descriptor))
    return found


def layer(layout: Path) -> bytes:
    [descriptor] = manifest(layout)["layers"]
    return gzip.decompress(blob(layout, descriptor))


def test_it_is_an_oci_layout_by_its_own_word(layout: Path) -> None:
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert rootfs.check(layout) == layout


def test_the_config_names_the_layer_by_its_uncompressed_digest(layout: Path) -> None:
    config = json.loads(blob(layout, manifest(layout)["config"]))
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer(layout)).hexdigest()}"]
    assert (config["os"], config["architecture"]) == ("linux", "amd64")


def test_every_blob_is_pointed_at(layout: Path) -> None:
    known = {manifest(layout)["config"]["digest"], manifest(layout)["layers"][0]["digest"]}
    known |= {each["digest"] for each in json.loads((layout / "index.json").read_text())["manifests"]}
    assert {f"sha256:{file.name}" for file in (layout / "blobs" / "sha256").iterdir()} == known


def test_the_commands_of_the_suite_run(layout: Path, tmp_path: Path) -> None:
    with tarfile.open(fileobj=BytesIO(layer(layout))) as tar:
        tar.extractall(tmp_path, filter="tar")
    for name in ("sh", "echo", "sleep"):
        assert (tmp_path / "bin" / name).resolve() == tmp_path / "bin" / "busybox"
    said = subprocess.run([tmp_path / "bin" / "echo", "hi"], capture_output=True, text=True, check=True)
    assert said.stdout == "hi\n"


def test_the_same_layout_is_made_every_time(layout: Path, tmp_path: Path) -> None:
    other = rootfs.make(tmp_path / "rootfs")
    assert (other / "index.json").read_bytes() == (layout / "index.json").read_bytes()


@pytest.mark.parametrize("missing", ["oci-layout", "index.json", "blobs"])
def test_a_folder_that_is_no_layout_is_refused(tmp_path: Path, missing: str) -> None:
    for name in {"oci-layout", "index.json", "blobs"} - {missing}:
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match=f"--rootfs {tmp_path}: .* has no {missing}"):
        rootfs.check(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not an OCI image layout"):
        rootfs.check(tmp_path / "none")


def test_only_a_program_without_an_interpreter_is_static(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    (tmp_path / "cut").write_bytes(rootfs.find_busybox().read_bytes()[:100])
    programs = [
        rootfs.find_busybox(),
        Path("/bin/ls"),
        tmp_path / "script",
        tmp_path / "cut",
        tmp_path / "none",
    ]
    assert [rootfs._is_static(program) for program in programs] == [True, False, False, False, False]


def test_a_host_without_a_static_busybox_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rootfs, "_is_static", lambda _program: False)
    with pytest.raises(LabError, match="no static busybox") as error:
        rootfs.find_busybox()
    assert "install busybox-static" in (error.value.hint or "")
