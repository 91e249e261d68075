"""What the jailer's suite does for each release of boxlite: the default it expects, the registry it serves."""

import json
import runpy
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import pytest

from lab import catalog
from lab.base.architecture import X86_64
from lab.base.files import hash_file
from lab.builds import rootfs

SUITE = catalog.load_catalog().suite.folder
SHARED = SUITE.parent / "_shared"
# What the suite imports of boxlite; 0.9 has AdvancedBoxOptions in the module below alone.
EXPORTED = ["Boxlite", "BoxOptions", "ImageRegistry", "NetworkSpec", "Options", "SecurityOptions"]
ASK = "import json, python_api as api; print(json.dumps([api.JAILER_BY_DEFAULT, api.NEEDS_REGISTRY]))"


@pytest.mark.parametrize(
    ("release", "jailer", "registry"),
    [
        ("0.9.5", False, True),
        ("0.9.7", True, True),
        ("0.10.0rc1", True, False),
        ("0.10.8", True, False),
    ],
)
def test_a_release_has_its_expectation(tmp_path: Path, release: str, jailer: bool, registry: bool) -> None:
    package = tmp_path / "boxlite"
    package.mkdir()
    classes = [f"class {name}: pass\n" for name in EXPORTED]
    (package / "__init__.py").write_text(f"__version__ = '{release}'\n" + "".join(classes))
    (package / "boxlite.py").write_text("class AdvancedBoxOptions: pass\n")
    program = f"import sys; sys.path[:0] = {[str(SUITE), str(SHARED), str(tmp_path)]}; {ASK}"
    command = [sys.executable, "-B", "-c", program]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == [jailer, registry]


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"\x7fELF")
    return rootfs.make(tmp_path / "layout", X86_64, busybox)


@pytest.fixture
def address(layout: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("LAB_ROOTFS", str(layout))
    serving: Any = runpy.run_path(str(SHARED / "registry.py"))["serving"]
    with cast(AbstractContextManager[str], serving(needed=True)) as host:
        yield f"http://{host}/v2/"


def fetched(url: str, method: str = "GET") -> tuple[dict[str, str], bytes]:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as answer:
        return dict(answer.headers), answer.read()


def test_every_image_is_the_layout(address: str, layout: Path) -> None:
    assert address.startswith("http://127.0.0.1:")
    assert fetched(address)[1] == b"{}"
    [entry] = json.loads((layout / "index.json").read_text())["manifests"]
    for image in ("library/debian/manifests/bookworm-slim", f"library/alpine/manifests/{entry['digest']}"):
        headers, manifest = fetched(address + image)
        assert headers["Content-Type"] == entry["mediaType"]
        assert headers["Docker-Content-Digest"] == entry["digest"]
        assert len(manifest) == entry["size"]
        for blob in [json.loads(manifest)["config"], *json.loads(manifest)["layers"]]:
            _, content = fetched(f"{address}library/debian/blobs/{blob['digest']}")
            (layout / "got").write_bytes(content)
            assert f"sha256:{hash_file(layout / 'got')}" == blob["digest"]
    headers, content = fetched(f"{address}library/debian/manifests/bookworm-slim", "HEAD")
    assert (content, int(headers["Content-Length"]) > 100) == (b"", True)


@pytest.mark.parametrize("path", ["library/debian/tags/list", "a/blobs/../../index.json"])
def test_anything_else_is_not_found(address: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetched(address + path)
