"""The life of a lane's domain, against libvirt's own test driver."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import libvirt
import libvirt_qemu
import pytest

from lab.base import process
from lab.base.architecture import X86_64
from lab.base.errors import UsageError
from lab.base.paths import Paths
from lab.catalog import Firmware, Guest
from lab.images.disk import create_overlay
from lab.images.store import BaseImage
from lab.machine import clock, domain, leftovers, qemu
from lab.machine.acceleration import Acceleration
from lab.machine.lane import BootFailed, Lane, LaneDied, convert_to_fault, open_lane
from lab.machine.states import StoredState
from tests.builders.lab import URI
from tests.builders.processes import LANE_HOLDER, keys_for_all, other_process, wait_until_ended

EMULATION = Acceleration(kvm=False, reason="a test")


class Lanes:
    """Opens lanes of one guest; at the end of each test nothing of them is left (see the fixture `lanes`)."""

    def __init__(self, connection: libvirt.virConnect, paths: Paths, guest: Guest, image: BaseImage) -> None:
        self.connection, self.paths, self.guest, self.image = connection, paths, guest, image

    def open(self) -> AbstractContextManager[Lane]:
        return open_lane(
            self.connection, self.paths, guest=self.guest, image=self.image, acceleration=EMULATION
        )

    @property
    def domains(self) -> list[str]:
        return [machine.name() for machine in self.connection.listAllDomains() if machine.name() != "test"]

    @property
    def left(self) -> list[Path]:
        """The lanes' folders on the disk."""
        return list(self.paths.lanes.glob("lab-*"))


def overlay_of(lane: Lane) -> dict[str, Any]:
    """What qemu-img says of a lane's disk."""
    info: dict[str, Any] = json.loads(
        process.run_command(["qemu-img", "info", "--output=json", lane.overlay], timeout=60)
    )
    return info


@pytest.fixture
def lanes(opened: libvirt.virConnect, paths: Paths, guest: Guest, image: BaseImage) -> Iterator[Lanes]:
    made = Lanes(opened, paths, guest, image)
    yield made
    assert (made.domains, made.left) == ([], [])


def test_no_other_user_reads_the_keys_and_the_disk_of_a_lane(lanes: Lanes) -> None:
    # Whatever the umask is: the seed holds the guest's private host key, and the guest writes it to its disk.
    before = os.umask(0)
    try:
        with lanes.open() as made:
            seed = made.folder / "seed.iso"
            # A second set-up, over files that anyone can read.
            made.overlay.chmod(0o644)
            seed.chmod(0o644)
            made.set_up_disk()
            assert b"PRIVATE KEY-----" in seed.read_bytes()
            assert keys_for_all(lanes.paths.state) == []
            assert [file.stat().st_mode & 0o777 for file in (made.overlay, seed)] == [0o600, 0o600]
    finally:
        os.umask(before)


def foreign_xml(name: str) -> str:
    """A machine that was not made by a lab."""
    return f"<domain type='test'><name>{name}</name><memory>8192</memory><os><type>hvm</type></os></domain>"


def xml_of(folder: Path) -> str:
    """A machine as a lab would start it in this folder of a lane."""
    nowhere = Path("/nowhere")
    hardware = domain.Hardware(
        kvm=False, memory_mib=512, cpus=1, boot=domain.KernelBoot(nowhere, nowhere), architecture=X86_64
    )
    return domain.render_domain(hardware, domain.MachinePlace(folder, 23200))


def test_a_lane_is_made_ready_before_its_machine_starts(lanes: Lanes) -> None:
    with lanes.open() as made:
        record = json.loads((made.folder / "lane.json").read_text())
        assert (record["port"], record["uri"]) == (made.port, URI)
        assert lanes.domains == []
        with pytest.raises(LaneDied, match="is not running"):
            made.check_alive()
        info = overlay_of(made)
    # The overlay lies over the image.
    assert info["full-backing-filename"] == str(lanes.image.disk)
    assert info["backing-filename-format"] == "qcow2"


def test_a_stored_state_is_taken_up_over_the_image_where_that_is_now(lanes: Lanes, tmp_path: Path) -> None:
    elsewhere, stored = tmp_path / "elsewhere", StoredState(tmp_path / "stored")
    elsewhere.symlink_to(lanes.image.folder)
    stored.folder.mkdir()
    create_overlay(stored.folder / "state.qcow2", elsewhere / lanes.image.disk.name)
    keys = {"client": {"private": "a", "public": "a"}, "host": {"private": "b", "public": "b"}}
    (stored.folder / "known.json").write_text(json.dumps({"tag": "boot", "files": {}, **keys}))
    elsewhere.unlink()
    with lanes.open() as made:
        made.adopt(stored)
        info = overlay_of(made)
    assert info["full-backing-filename"] == str(lanes.image.disk)


@pytest.mark.parametrize(
    ("firmware", "size"), [(None, 2**20), (Firmware.BIOS, 6 * 2**30), (Firmware.UEFI, 6 * 2**30)]
)
def test_a_guest_that_grows_its_root_gets_its_size(lanes: Lanes, firmware: Firmware | None, size: int) -> None:
    lanes.image = replace(lanes.image, firmware=firmware)
    with lanes.open() as made:
        assert overlay_of(made)["virtual-size"] == size


def test_a_disk_is_never_cut_off(lanes: Lanes) -> None:
    process.run_command(["qemu-img", "resize", "-q", lanes.image.disk, "6145M"], timeout=60)
    lanes.image = replace(lanes.image, firmware=Firmware.BIOS)
    with pytest.raises(UsageError, match=r"disk_gib = 6 is less than the 6\.0 GiB") as error, lanes.open():
        pass
    assert error.value.hint == "set disk_gib to at least 7 in the guest's definition"


def test_a_lane_lives_until_it_is_stopped_and_can_be_started_again(lanes: Lanes) -> None:
    with lanes.open() as made:
        made.start()
        made.check_alive()
        first = (made.domain.UUIDString(), made.console)
        made.stop()
        assert lanes.domains == []
        with pytest.raises(LaneDied):
            made.check_alive()
        made.stop()
        made.start()
        assert lanes.domains == [made.name]
        assert made.domain.UUIDString() == first[0]
        assert made.console != first[1]


def test_after_a_lane_nothing_of_it_is_left(lanes: Lanes) -> None:
    with lanes.open() as made:
        made.start()
        assert (lanes.domains, lanes.left) == ([made.name], [made.folder])
    assert (lanes.domains, lanes.left) == ([], [])
    # One that failed, and one that could not be made.
    with pytest.raises(KeyboardInterrupt), lanes.open() as made:
        made.start()
        raise KeyboardInterrupt
    assert (lanes.domains, lanes.left) == ([], [])
    lanes.image.disk.unlink()
    with pytest.raises(process.CommandFailed, match="qemu-img create"), lanes.open():
        pass


def test_a_machine_that_was_killed_from_outside_is_known_to_be_dead(lanes: Lanes) -> None:
    with lanes.open() as made:
        made.start()
        made.console.write_text("".join(f"line {number}\r\n" for number in range(100)))
        lanes.connection.lookupByName(made.name).destroy()
        with pytest.raises(LaneDied) as died:
            made.check_alive()
    text = str(died.value)
    assert text.startswith("the machine of debian-13 ")
    assert text.endswith("| line 99")
    assert "line 50" not in text


def answering(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], str]) -> None:
    """Have QEMU answer so, and be asked at once."""
    monkeypatch.setattr(libvirt_qemu, "qemuMonitorCommand", lambda *_: answer())
    monkeypatch.setattr(qemu, "ASK_SECONDS", 0.0)


def test_a_machine_that_does_not_answer_is_dead(lanes: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped, questions = threading.Event(), []

    def answer() -> str:
        questions.append("once")
        assert stopped.wait(20), "nobody took the machine down"
        return "{}"

    monkeypatch.setattr(qemu, "ANSWER_SECONDS", 0.1)
    with lanes.open() as made:
        made.start()
        answering(monkeypatch, answer)
        for _ in range(2):
            with pytest.raises(LaneDied, match="debian-13 did not answer for 0 s: QEMU stands still"):
                made.check_alive()
        # It is not waited for again.
        assert questions == ["once"]
        # libvirt alone would not have noticed.
        made.check_running()
        made.stop()
        stopped.set()
        # Another start is another machine.
        answering(monkeypatch, lambda: "{}")
        made.start()
        made.check_alive()


def test_a_command_to_qemu_ends_at_its_deadline(lanes: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    with lanes.open() as made:
        made.start()
        monkeypatch.setattr(libvirt_qemu, "qemuMonitorCommand", lambda *_: never.wait(20))
        with pytest.raises(LaneDied, match="stands still: waited 0 s for QEMU's answer to snapshot-load"):
            made.ask("snapshot-load", 0.1)
        never.set()


def test_the_last_words_are_plain_text(lanes: Lanes) -> None:
    with lanes.open() as made:
        assert made.last_words() == "its console stayed empty"
        made.start()
        made.console.write_text("\r\n[\x1b[0;32m  OK  \x1b[0m] Reached target\r\n\r\n")
        assert made.last_words() == "its console ends:\n  | [  OK  ] Reached target"


def test_a_machine_stands_still_for_a_block_and_goes_on_whatever_happens_in_it(lanes: Lanes) -> None:
    with lanes.open() as made:
        made.start()
        with pytest.raises(OSError, match="disk"), made.standing_still():
            assert made.domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED
            made.check_alive()
            raise OSError("the disk is full")
        assert made.domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING
        # One that has gone is off, and does not stand still.
        made.domain.destroy()
        made.wait_until_off(60)
        with pytest.raises(LaneDied, match="is not running"):
            made.check_alive()
        with pytest.raises(LaneDied), made.standing_still():
            pytest.fail("it was copied")


def test_a_refused_core_limit_has_a_hint(lanes: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_connection: object, _xml: str, _flags: int) -> NoReturn:
        raise libvirt.libvirtError(
            "internal error: Process exited prior to exec: libvirt:  error : cannot limit core file size of "
            "process 1 to 18446744073709551615: Operation not permitted"
        )

    monkeypatch.setattr(libvirt.virConnect, "createXML", refuse)
    with lanes.open() as made, pytest.raises(BootFailed) as failed:
        made.start()
    assert "max_core = 0" in str(failed.value.hint)
    # A run's first machine only tries QEMU's clock.
    monkeypatch.setattr(clock, "find_library", lambda: Path("libfaketime.so"))
    with pytest.raises(libvirt.libvirtError) as refused:
        clock.choose_emulated_clock(lanes.connection, lanes.paths)
    assert "max_core = 0" in str(convert_to_fault(refused.value))


def test_a_machine_that_died_at_once_says_nothing_of_its_clock(
    lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(_clock: object, machine: str) -> str:
        lanes.connection.lookupByName(machine).destroy()
        return "something on this host confines it"

    monkeypatch.setattr(clock, "explain_missing_clock", look)
    with lanes.open() as made, pytest.raises(LaneDied):
        made.start()


def test_a_machine_that_libvirt_refuses_is_a_failed_boot_and_not_ours_to_remove(lanes: Lanes) -> None:
    with lanes.open() as made:
        lanes.connection.createXML(foreign_xml(made.name), 0)
        with pytest.raises(BootFailed, match=f"libvirt could not start {made.name}"):
            made.start()
    assert lanes.domains == [made.name]
    lanes.connection.lookupByName(made.name).destroy()


@pytest.mark.parametrize("machine", ["its own", "of another lane", "not the lab's"])
def test_of_a_dead_lab_only_its_own_machine_is_removed(lanes: Lanes, machine: str) -> None:
    with other_process(LANE_HOLDER, lanes.paths.state.parent) as (lab, name):
        lab.kill()
        wait_until_ended(lab.pid)
    own = xml_of(lanes.paths.lanes / name)
    xml = {
        "its own": own,
        "of another lane": own.replace(f'id="{name}"', 'id="lab-debian-13-other"'),
        "not the lab's": foreign_xml(name),
    }
    lanes.connection.createXML(xml[machine], 0)
    assert leftovers.reap_dead_lanes(lanes.paths) == [name]
    assert (lanes.domains, lanes.left) == ([] if machine == "its own" else [name], [])
    for left in lanes.domains:
        lanes.connection.lookupByName(left).destroy()


def lost_lane(lanes: Lanes) -> str:
    """A lane's machine that still runs after all else of the lane is gone."""
    with lanes.open() as made:
        name, folder = made.name, made.folder
    lanes.connection.createXML(xml_of(folder), 0)
    return name


def test_a_machine_with_the_lab_s_mark_and_no_record_is_removed(lanes: Lanes) -> None:
    name = lost_lane(lanes)
    lanes.connection.createXML(foreign_xml("lab-debian-13-foreign"), 0)
    assert leftovers.reap_dead_lanes(lanes.paths) == []
    assert leftovers.reap_unrecorded_machines(URI) == [name]
    assert lanes.domains == ["lab-debian-13-foreign"]
    lanes.connection.lookupByName("lab-debian-13-foreign").destroy()


def test_machines_of_living_lanes_are_no_leftovers_whatever_lab_they_belong_to(lanes: Lanes) -> None:
    with lanes.open() as made:
        made.start()
        assert leftovers.reap_unrecorded_machines(URI) == []
        assert leftovers.reap_dead_lanes(lanes.paths) == []
        made.check_alive()
        assert lanes.domains == [made.name]


def test_what_clean_cannot_tell_it_leaves_alone(lanes: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    name = lost_lane(lanes)

    def forbidden(_lock: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    folder = lanes.paths.lanes / name
    folder.mkdir()
    (folder / "lock").touch()
    monkeypatch.setattr(leftovers, "is_locked", forbidden)
    assert leftovers.reap_unrecorded_machines(URI) == []
    assert lanes.domains == [name]
    lanes.connection.lookupByName(name).destroy()
    (folder / "lock").unlink()
    folder.rmdir()
