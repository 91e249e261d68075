import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from lab import catalog
from lab.base import process
from lab.base.architecture import AARCH64
from lab.base.errors import LabError
from lab.base.paths import Paths, find_definitions
from lab.catalog import Firmware, Guest
from lab.images.store import BaseImage
from lab.lane import upkeep
from lab.machine import seed, states
from lab.machine.acceleration import Acceleration
from lab.machine.domain import Device, FirmwareBoot, Hardware, Network
from lab.machine.lane import Lane
from lab.machine.seed import KeyPair
from lab.machine.states import DamagedState, StateInfo, States, StoredState
from tests.builders.daemon import Daemon
from tests.builders.guests import base_image

CLIENT, HOST = KeyPair("client's own", "client's public"), KeyPair("host's own", "host's public")
STATE = b"memory and disk"
GUEST = catalog.load_catalog().guest("debian-13")
TOLD = GUEST.image.model_copy(update={"kernel_arguments": "quiet"})
BACKPORTS = catalog.load_catalog().guest("debian-13-backports")


@dataclass(frozen=True)
class Host:
    """A lab with everything that a stored state depends on. `changes`: of the definition of its machines."""

    paths: Paths
    daemon: Daemon = field(default_factory=Daemon)
    guest: Guest = GUEST
    kvm: bool = False
    sha256: str = "1" * 64
    firmware: Firmware | None = None
    agent: str = ""
    changes: dict[str, Any] = field(default_factory=dict)
    lane: str = "lab-debian-13-abc123"
    port: int = 22100

    @property
    def states(self) -> States:
        """As a new lane has them."""
        empty = base_image(self.paths.images)
        manifest = empty.manifest.model_copy(update={"disk_sha256": self.sha256})
        image = BaseImage(empty.folder, manifest, self.firmware)
        how = Acceleration(self.kvm, "a test")
        lane = Lane(self.daemon, self.guest, image, how, self.overlay_file.parent, self.port)
        hardware = replace(lane.hardware, **self.changes)
        return States(
            self.paths, self.daemon, guest=self.guest, image=image, hardware=hardware, agent=self.agent
        )

    @property
    def overlay_file(self) -> Path:
        return self.paths.make(self.paths.lanes / self.lane) / "overlay.qcow2"

    def overlay(self, state: bytes = STATE) -> Path:
        self.overlay_file.write_bytes(state)
        return self.overlay_file

    def keep(self, state: bytes = STATE) -> StoredState | None:
        return self.states.keep(self.overlay(state), StateInfo("boot", CLIENT, HOST))

    @property
    def names(self) -> set[str]:
        """All that is in the store."""
        return {path.name for path in self.paths.states.iterdir()} if self.paths.states.is_dir() else set()


@pytest.fixture
def host(paths: Paths) -> Host:
    return Host(paths)


def state_of(boot: StoredState | None, to: Path) -> bytes:
    assert boot is not None
    boot.copy_to(to)
    return to.read_bytes()


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


CHANGES: dict[str, Callable[[Host], Host]] = {
    "image": lambda host: replace(host, sha256="2" * 64),
    "QEMU": lambda host: replace(host, daemon=Daemon(qemu=10_000_001)),
    "libvirt": lambda host: replace(host, daemon=Daemon(library=11_003_001)),
    "processor": lambda host: replace(host, daemon=Daemon(cpu="<cpu><model>Haswell</model></cpu>")),
    "unknown processor": lambda host: replace(host, daemon=Daemon(cpu="")),
    "memory": lambda host: replace(host, guest=GUEST.model_copy(update={"memory_mib": 2049})),
    "kernel arguments": lambda host: replace(host, guest=GUEST.model_copy(update={"image": TOLD})),
    "acceleration": lambda host: replace(host, kvm=True),
    "guest": lambda host: replace(host, guest=BACKPORTS),
    "firmware": lambda host: replace(host, firmware=Firmware.BIOS),
    "the lab's programs": lambda host: replace(host, agent="newer"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_boot_is_for_the_same_machine_alone(host: Host, change: Callable[[Host], Host]) -> None:
    host.keep()
    assert change(host).states.find() is None
    assert change(host).states.should_store()


def test_every_emulated_machine_has_one_processor(host: Host) -> None:
    host.keep()
    more = replace(host, guest=GUEST.model_copy(update={"cpus": 3}))
    assert more.states.find() is not None
    replace(host, kvm=True).keep()
    assert replace(more, kvm=True).states.find() is None


# Another value for each field of a machine's definition.
OTHER_VALUES: dict[str, object] = {
    "kvm": True,
    "memory_mib": 1,
    "cpus": 7,
    "boot": FirmwareBoot(),
    "architecture": AARCH64,
    "devices": frozenset(Device) - {Device.AGENT},
    "network": Network.OPEN,
    "environment": {"FAKETIME": "+0 x0.1"},
    "may_restart": True,
}


@pytest.mark.parametrize("name", [field.name for field in fields(Hardware)])
def test_a_boot_is_for_machines_of_the_same_definition_alone(host: Host, name: str) -> None:
    host.keep()
    assert host.states.find() is not None
    assert replace(host, changes={name: OTHER_VALUES[name]}).states.find() is None


def test_a_boot_is_for_machines_in_any_place(host: Host) -> None:
    """No guest notices where its machine is: each lane has another folder, port and UUID."""
    host.keep()
    elsewhere = replace(host, lane="lab-debian-13-def456", port=22101)
    assert elsewhere.states.find() == host.states.find() is not None


def test_a_boot_is_not_for_another_build_of_the_firmware_or_another_seed(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "CODE.fd"
    file.write_text("one build")
    host = Host(paths, Daemon(firmware=(file,)), firmware=Firmware.UEFI)
    host.keep()
    shutil.copytree(find_definitions() / "cloud-init", tmp_path / "own" / "cloud-init")
    monkeypatch.setattr(seed, "find_definitions", lambda: tmp_path / "own")
    assert host.states.find() is not None
    file.write_text("another")
    assert host.states.find() is None
    file.write_text("one build")
    with (tmp_path / "own" / "cloud-init" / "user-data.yaml").open("a") as template:
        template.write("# A comment is a change too.\n")
    assert host.states.find() is None


def test_a_later_lane_gets_a_copy_of_the_state_and_its_keys(host: Host, tmp_path: Path) -> None:
    assert host.states.find() is None
    # Whatever the umask is and whoever made the folder before.
    host.paths.states.mkdir(parents=True, mode=0o755)
    kept = host.keep()
    assert kept is not None
    # The lane goes on with its own.
    assert host.overlay_file.read_bytes() == STATE
    # A lab that is slower takes the boot of the other.
    assert host.keep(b"the second") == kept
    assert (host.states.find(), kept.info()) == (kept, StateInfo("boot", CLIENT, HOST))
    assert not host.states.should_store()
    # Memory and keys are the owner's alone.
    assert (mode(host.paths.states), mode(kept.folder)) == (0o700, 0o700)
    modes = {file.name: mode(file) & 0o077 for file in kept.folder.iterdir()}
    assert modes == {"state.qcow2": 0, "known.json": 0}
    overlay = tmp_path / "overlay.qcow2"
    assert (state_of(kept, overlay), mode(overlay)) == (STATE, 0o600)
    overlay.write_bytes(b"what the lane wrote")
    assert state_of(kept, tmp_path / "another") == STATE


@pytest.mark.parametrize("text", ["", "{", "[]", '{"tag": "boot", "client": "a private key"}'])
def test_a_damaged_known_file_is_named_without_the_keys_in_it(host: Host, text: str) -> None:
    kept = host.keep()
    assert kept is not None
    (kept.folder / "known.json").write_text(text)
    with pytest.raises(
        DamagedState, match=f"{kept.folder / 'known.json'} of a stored state cannot be"
    ) as error:
        kept.info()
    assert "private" not in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_without_room_for_it_nothing_is_kept(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(command: list[str | Path], **_more: object) -> None:
        Path(command[-1]).write_bytes(STATE[:3])
        raise process.CommandFailed(command, "exit status 1", "No space left on device")

    overlay = host.overlay()
    with monkeypatch.context() as patched:
        patched.setattr(process, "run_command", fails)
        assert host.states.keep(overlay, StateInfo("boot", CLIENT, HOST)) is None
    assert (host.names, host.states.should_store(), overlay.read_bytes()) == (set(), True, STATE)


def test_older_boots_of_a_guest_go_and_those_of_others_stay(host: Host) -> None:
    old = replace(host, sha256="2" * 64).keep()
    other = replace(host, guest=BACKPORTS).keep()
    assert old and other
    foreign = host.paths.states / "debian-13-notes"
    foreign.mkdir()
    new = host.keep()
    assert new is not None
    assert host.names == {new.folder.name, other.folder.name, foreign.name}
    assert replace(host, guest=BACKPORTS).states.find() == other


def test_each_build_has_a_state_beside_the_boot(host: Host) -> None:
    boot = host.keep()
    builds = ("0.9.0", "0.10.7", "0.10.8")
    for build in builds:
        info = StateInfo("build", CLIENT, HOST, {"a.whl": build})
        assert host.states.keep(host.overlay(), info, build)
    assert boot == host.states.find()
    left = [host.states.find(build) for build in builds]
    assert [state and state.info().files for state in left] == [{"a.whl": build} for build in builds]
    # With another image or another QEMU these states can no longer be loaded.
    new = replace(host, sha256="2" * 64).keep()
    assert new is not None
    assert host.names == {new.folder.name}


def interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@pytest.mark.parametrize("is_killed", [False, True])
def test_what_was_half_stored_goes(host: Host, monkeypatch: pytest.MonkeyPatch, is_killed: bool) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", interrupted)
        if is_killed:  # A lab that dies at this point cleans nothing up.
            patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            host.keep()
    left = host.names
    assert len(left) == (1 if is_killed else 0)
    removed, stuck = upkeep.sweep_leftovers(host.paths)
    assert ({unused.path.name for unused in removed}, stuck, host.names) == (left, [], set())


# -- the limit


@pytest.fixture
def of_one_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stored state takes 1 GiB."""
    monkeypatch.setattr(StoredState, "size", property(lambda _state: 2**30))


def kept_one_after_another(host: Host, *guests: str) -> list[StoredState]:
    """Boots of these guests, each stored a minute after the one before."""
    stored = []
    for minute, name in enumerate(guests):
        state = replace(host, guest=catalog.load_catalog().guest(name)).keep()
        assert state is not None
        os.utime(state.folder, (60 * minute, 60 * minute))
        stored.append(state)
    return stored


def test_the_state_unused_for_longest_goes_first(host: Host, of_one_gib: None, tmp_path: Path) -> None:
    first, second, third = kept_one_after_another(host, "debian-12", "debian-13", "debian-13-backports")
    first.copy_to(tmp_path / "overlay.qcow2")
    assert states.list_stored_states(host.paths) == [first, third, second]
    limited = replace(host, paths=replace(host.paths, states_gib=3))
    assert states.choose_states_above_limit(limited.paths) == []
    fourth = replace(limited, guest=catalog.load_catalog().guest("debian-13-podman")).keep()
    assert states.list_stored_states(host.paths) == [fourth, first, third]
    # The one that was just stored stays whatever its size.
    kept = replace(host, paths=replace(host.paths, states_gib=0)).keep()
    assert kept and states.list_stored_states(host.paths) == [kept]


@pytest.mark.parametrize(
    ("free_gib", "limit_gib", "stores"), [(4.9, 20, False), (5.1, 20, True), (5.1, 0, False)]
)
def test_a_boot_is_stored_where_the_disk_has_room_and_the_user_allows_it(
    host: Host, monkeypatch: pytest.MonkeyPatch, free_gib: float, limit_gib: int, stores: bool
) -> None:
    monkeypatch.setattr(states, "FREE_GIB", 5.0)

    def usage(path: Path) -> SimpleNamespace:
        assert (path, path.exists()) == (host.paths.cache, True)
        return SimpleNamespace(free=int(free_gib * 2**30))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    limited = replace(host, paths=replace(host.paths, states_gib=limit_gib))
    assert limited.states.should_store() is stores


def test_a_bad_boot_is_deleted_and_stored_again(host: Host, tmp_path: Path) -> None:
    kept = host.keep(b"bad")
    assert kept is not None
    with pytest.raises(LabError, match="overlay"):
        kept.copy_to(tmp_path / "nowhere" / "overlay.qcow2")
    kept.drop()
    assert (host.names, host.states.find(), host.states.should_store()) == (set(), None, True)
    with pytest.raises(LabError, match="state"):
        kept.copy_to(tmp_path / "overlay.qcow2")
    # What another lab left that died while it deleted it.
    kept.folder.mkdir()
    assert state_of(host.keep(), tmp_path / "overlay") == STATE
