import os
import shutil
from pathlib import Path

import pytest

from lab.base.paths import Paths
from lab.machine import network
from lab.machine.domain import Network
from lab.machine.network import Verdict


class Daemon:
    """As much of a connection to libvirt as a verdict depends on."""

    def __init__(self, uri: str = "qemu:///system", qemu: int = 10_000_000, libvirt: int = 11_003_000) -> None:
        self.uri, self.qemu, self.libvirt = uri, qemu, libvirt

    def getVersion(self) -> int:  # noqa: N802
        return self.qemu

    def getLibVersion(self) -> int:  # noqa: N802
        return self.libvirt

    def getURI(self) -> str:  # noqa: N802
        return self.uri


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /etc/apparmor.d."""
    monkeypatch.setattr(network, "APPARMOR", tmp_path / "apparmor.d")
    (tmp_path / "apparmor.d/local").mkdir(parents=True)
    (tmp_path / "apparmor.d/usr.bin.passt").write_text("profile passt {}")
    return tmp_path / "apparmor.d"


def keep(paths: Paths, which: Network, daemon: Daemon | None = None) -> None:
    key = network.key(daemon or Daemon(), paths)
    network.keep(paths, Verdict(key=key, network=which, proved="passt was killed by signal 11"))


@pytest.mark.parametrize(
    "other", [Daemon(uri="qemu:///session"), Daemon(qemu=10_000_001), Daemon(libvirt=11_003_001)]
)
def test_a_verdict_does_not_hold_for_another_libvirt_or_qemu(paths: Paths, rules: Path, other: Daemon) -> None:
    keep(paths, Network.QEMU)
    assert network.cached(other, paths) is None
    assert network.cached(Daemon(), paths) is not None


def test_a_verdict_ends_with_the_rules_it_was_made_under(paths: Paths, rules: Path) -> None:
    keep(paths, Network.QEMU)
    (rules / "local/usr.sbin.libvirtd").write_text("")
    assert network.cached(Daemon(), paths) is None
    keep(paths, Network.QEMU)
    (rules / "usr.bin.passt").write_text("profile passt { /** rw, }")
    assert network.cached(Daemon(), paths) is None


def test_a_verdict_ends_with_the_passt_it_was_made_with(
    paths: Paths, rules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passt = tmp_path / "passt"
    passt.write_text("old")
    monkeypatch.setattr(shutil, "which", lambda _name: str(passt))
    keep(paths, Network.QEMU)
    passt.write_text("newer")
    assert network.cached(Daemon(), paths) is None


def test_a_verdict_is_that_of_one_user(paths: Paths, rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(paths, Network.QEMU)
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert network.cached(Daemon(), paths) is None


@pytest.mark.parametrize("text", ["", "{", '{"key": "k", "network": "bridge", "proved": ""}'])
def test_a_verdict_that_cannot_be_read_is_none(paths: Paths, rules: Path, text: str) -> None:
    paths.cache.mkdir(parents=True)
    paths.network.write_text(text)
    assert network.cached(Daemon(), paths) is None
