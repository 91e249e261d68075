import os
import platform
import pwd
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import libvirt
import psutil
import pytest

from lab import catalog
from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.catalog import Firmware, Guest
from lab.cli import doctor
from lab.cli.doctor import REQUIREMENTS, Examination, RequirementLine, RequirementState
from lab.images import debian, disk, store
from lab.machine import acceleration, clock, console, leftovers
from lab.machine.acceleration import Acceleration
from tests.builders.daemon import Daemon
from tests.builders.facts import executable
from tests.builders.guests import base_image

pytestmark = pytest.mark.usefixtures("x86_64_host")
PROGRAMS = ("qemu-system-x86_64", "qemu-img", "mmdebstrap", "mke2fs", "gpgv", "ssh")
NOWHERE, LIBVIRT = "test+bogus:///x", "test:///default"
GIB = 2**30


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder before all others on the path, with programs that say their version."""
    folder = tmp_path / "bin"
    for name in PROGRAMS:
        executable(folder / name, f"#!/bin/sh\necho '{name} version 1.2.3 of today'\n")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def examination(paths: Paths, *guests: str, uri: str = NOWHERE, again: bool = False) -> Examination:
    """Of these guests of the catalog, or of all of them."""
    definitions = catalog.load_catalog()
    chosen = [definitions.guest(name) for name in guests or definitions.guests]
    return Examination(paths, chosen, list(definitions.guests.values()), uri, again)


def examine(paths: Paths, what: str, *guests: str) -> RequirementLine:
    [line] = [line for line in doctor.examine_host(examination(paths, *guests)) if line.what == what]
    return line


def ask(paths: Paths, what: str, daemon: object = None, *guests: Guest) -> RequirementLine:
    """The line of one requirement, asked with this connection; `guests` are all that there are."""
    [requirement] = [row for row in REQUIREMENTS if row.subject == what]
    return doctor.line_of(requirement, Examination(paths, guests, guests, NOWHERE, daemon=daemon))


def uefi_guest() -> Guest:
    bios = catalog.load_catalog().guest("fedora-43")
    image = bios.image.model_copy(update={"firmware": Firmware.UEFI})
    return bios.model_copy(update={"name": "mine", "image": image})


def test_uefi_is_needed_by_the_guests_that_start_from_it(paths: Paths) -> None:
    bios, uefi = catalog.load_catalog().guest("fedora-43"), uefi_guest()
    [requirement] = [row for row in REQUIREMENTS if row.subject == "UEFI"]
    for chosen, state in ([bios], RequirementState.NOT_NEEDED), ([bios, uefi], RequirementState.BROKEN):
        of_these = Examination(paths, chosen, [bios, uefi], NOWHERE, daemon=Daemon())
        line = doctor.line_of(requirement, of_these)
        assert (line.state, line.needed_by, "./setup.sh doctor" in line.mend) == (state, ["mine"], True)
    line = ask(paths, "UEFI", Daemon(firmware=(Path("/firmware/CODE.fd"),)), uefi)
    assert line == RequirementLine("UEFI", RequirementState.OK, "/firmware/CODE.fd", needed_by=["mine"])


def foreign(paths: Paths, *chosen: str, **of_daemon: Any) -> RequirementLine:
    """The line about guests of the other architecture, where these guests are to be run."""
    [requirement] = [row for row in REQUIREMENTS if row.subject == "foreign guests"]
    asked = examination(paths, *chosen)
    asked.daemon = Daemon(**of_daemon)
    return doctor.line_of(requirement, asked)


@pytest.mark.parametrize(
    ("machine", "own", "other", "option"),
    [
        ("x86_64", "debian-13", "debian-13-arm64", "--with=arm64"),
        ("aarch64", "debian-13-arm64", "debian-13", "--with=amd64"),
    ],
)
def test_only_guests_of_the_other_architecture_need_it(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, machine: str, own: str, other: str, option: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    names = catalog.load_catalog().guests
    for chosen, state in (
        ([own], RequirementState.NOT_NEEDED),
        ([own, other], RequirementState.LIMITED),
        ([], RequirementState.LIMITED),
        ([other], RequirementState.BROKEN),
    ):
        line = foreign(paths, *chosen, knows_firmware=False)
        assert (line.state, line.mend) == (state, f"./setup.sh {option} doctor installs it")
        arch = "aarch64" if machine == "x86_64" else "x86_64"
        assert line.found.startswith(f"this host has no QEMU for guests of {arch}: ")
        assert line.needed_by == [name for name, guest in names.items() if guest.arch != machine]
        assert other in line.needed_by
        assert own not in line.needed_by


@pytest.mark.parametrize(("status", "state"), [(0, RequirementState.OK), (1, RequirementState.BROKEN)])
def test_a_guest_of_the_other_architecture_is_built_where_its_programs_run(
    paths: Paths, programs: Path, status: int, state: RequirementState
) -> None:
    executable(programs / "arch-test", f'#!/bin/sh\necho "$1: $0"\nexit {status}\n')
    line = foreign(paths, "debian-13-arm64")
    assert line.state is state
    if state is RequirementState.OK:
        assert line.found == "QEMU emulates aarch64, this host runs its programs"
    else:
        assert line.found.startswith("arch-test arm64: exit status 1")
    # Nothing is built for the other guests, whose line it would be no part of.
    assert foreign(paths, "debian-13").found == "QEMU emulates aarch64"


def test_a_guest_of_the_other_architecture_may_need_its_uefi(paths: Paths) -> None:
    guest = uefi_guest().model_copy(update={"arch": "aarch64"})
    for what, files, state, found in (
        (
            "foreign guests",
            (Path("/firmware/AAVMF.fd"),),
            RequirementState.OK,
            ", its UEFI is /firmware/AAVMF.fd",
        ),
        ("foreign guests", (), RequirementState.BROKEN, "no UEFI firmware for guests is installed"),
        # It says nothing of the firmware for this host's own guests.
        ("UEFI", (), RequirementState.NOT_NEEDED, "no UEFI firmware for guests is installed"),
    ):
        line = ask(paths, what, Daemon(firmware=files), guest)
        assert (line.state, line.found.endswith(found)) == (state, True)


def test_the_qemu_of_a_host_of_arm64_is_its_own(
    paths: Paths, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable(programs / "qemu-system-aarch64", "#!/bin/sh\necho 'QEMU emulator version 10.1.5'\n")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert examine(paths, "QEMU").found == f"10.1.5 ({programs / 'qemu-system-aarch64'})"
    daemon = Daemon()
    assert ask(paths, "machine", daemon).state is RequirementState.OK
    kind = daemon.machines[0].xml.find("os/type")
    assert kind is not None
    assert kind.get("arch") == "aarch64"
    # An image of x86-64 would say nothing of KVM there.
    assert ask(paths, "acceleration", daemon).mend == "lab images build debian-13-arm64, then lab doctor"


@pytest.mark.parametrize(
    ("what", "script", "state", "found"),
    [
        (
            "QEMU",
            "echo 'QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)'",
            RequirementState.OK,
            "10.0.2 (PATH)",
        ),
        ("ssh", "echo 'OpenSSH_10.0p2 Debian-7+deb13u1, OpenSSL 3.5.4'", RequirementState.OK, "10.0p2 (PATH)"),
        ("ssh", "echo 'ssh 0.0~git20250503.587980c-2'", RequirementState.OK, "0.0~git20250503.587980c (PATH)"),
        # A program need not say its version.
        ("gpgv", "true", RequirementState.OK, "PATH"),
        ("gpgv", "echo no number", RequirementState.OK, "PATH"),
        (
            "mke2fs",
            "echo no library; exit 127",
            RequirementState.BROKEN,
            "PATH -V: exit status 127\nno library",
        ),
        # A machine that has much to do is slow to start any program.
        ("mke2fs", "sleep 60", RequirementState.UNKNOWN, "PATH -V: stopped after 0 s"),
    ],
)
def test_a_program_is_asked_for_its_version(
    paths: Paths,
    programs: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    script: str,
    state: RequirementState,
    found: str,
) -> None:
    program = programs / ("qemu-system-x86_64" if what == "QEMU" else what)
    executable(program, f"#!/bin/sh\n{script}\n")
    if script.startswith("sleep"):
        monkeypatch.setattr(doctor, "ANSWER_SECONDS", 0.1)
    line = examine(paths, what)
    mends = {
        RequirementState.BROKEN: doctor.SETUP,
        RequirementState.UNKNOWN: "try it again when this host has less to do",
    }
    expected = (state, found.replace("PATH", str(program)), mends.get(state, ""))
    assert (line.state, line.found, line.mend) == expected


def test_without_libvirt_it_says_how_to_start_it_and_makes_nothing(paths: Paths, programs: Path) -> None:
    lines = {line.what: line for line in doctor.examine_host(examination(paths))}
    assert (lines["libvirt"].state, NOWHERE in lines["libvirt"].found) == (RequirementState.BROKEN, True)
    assert lines["libvirt"].mend
    for what in ("UEFI", "acceleration", "clock", "machine"):
        assert (lines[what].state, lines[what].mend) == (RequirementState.UNKNOWN, "start libvirt")
    assert not paths.cache.exists()
    assert not paths.state.exists()


@pytest.mark.parametrize(
    ("what", "disk", "memory", "state", "found", "mend"),
    [
        ("disk space", 7 * GIB, 0, RequirementState.BROKEN, "7.0 GiB free in ", "free 8 GiB"),
        ("disk space", 9 * GIB, 0, RequirementState.OK, "9 GiB free in ", ""),
        (
            "memory",
            0,
            4 * GIB - 1,
            RequirementState.BROKEN,
            "4095 MiB free",
            "the largest guest needs 4096 MiB, 1024 of ",
        ),
        ("memory", 0, 4 * GIB, RequirementState.OK, "4096 MiB free", ""),
    ],
)
def test_the_largest_guest_must_have_room(
    paths: Paths,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    disk: int,
    memory: int,
    state: RequirementState,
    found: str,
    mend: str,
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=disk))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=memory))
    line = examine(paths, what, "debian-13")
    assert (line.state, line.found.startswith(found)) == (state, True)
    assert line.mend.startswith(mend) and bool(line.mend) is bool(mend)


@pytest.mark.parametrize(
    ("missing", "guest", "state"),
    [
        ("mmdebstrap", "ubuntu-24.04", RequirementState.NOT_NEEDED),
        ("mke2fs", "debian-13", RequirementState.BROKEN),
        ("mke2fs", "fedora-43", RequirementState.NOT_NEEDED),
        ("gpgv", "fedora-43", RequirementState.BROKEN),
        ("gpgv", "debian-13", RequirementState.NOT_NEEDED),
        ("ssh", "debian-13", RequirementState.NOT_NEEDED),
        ("qemu-img", "debian-13", RequirementState.BROKEN),
    ],
)
def test_what_only_guests_outside_the_plan_need_is_told_apart(
    paths: Paths,
    programs: Path,
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
    guest: str,
    state: RequirementState,
) -> None:
    really = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda name, *more, **path: None if name == missing else really(name, *more, **path)
    )
    line = examine(paths, missing, guest)
    assert (line.state, line.found) == (state, f"{missing} is not installed")
    assert "./setup.sh doctor" in line.mend
    assert line.needed_by is None or (guest in line.needed_by) is (state is RequirementState.BROKEN)


def test_a_stored_image_needs_no_tools(paths: Paths, programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(_paths: Paths, guest: Guest) -> object:
        return "an image" if guest.name == "debian-13" else None

    monkeypatch.setattr(store, "find_image", find)
    executable(programs / "mmdebstrap", "#!/bin/sh\nexit 1\n")
    line = examine(paths, "mmdebstrap", "debian-13")
    assert line.state is RequirementState.NOT_NEEDED
    assert line.needed_by is not None
    assert ("debian-13" in line.needed_by, "debian-12" in line.needed_by) == (False, True)
    assert examine(paths, "mmdebstrap", "debian-13", "debian-12").state is RequirementState.BROKEN


def test_debian_s_keys_are_needed_to_build_guests(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "KEYRING", paths.cache / "keys.gpg")
    line = examine(paths, "Debian's keys", "debian-13")
    assert (line.state, line.found) == (RequirementState.BROKEN, f"{paths.cache / 'keys.gpg'} is missing")
    assert "keyring" in line.mend
    assert examine(paths, "Debian's keys", "fedora-43").state is RequirementState.NOT_NEEDED


@pytest.mark.parametrize(
    ("guests", "state"),
    [
        (("debian-13-selinux",), RequirementState.BROKEN),
        (("debian-13-selinux", "debian-13"), RequirementState.LIMITED),
        (("debian-13",), RequirementState.NOT_NEEDED),
    ],
)
def test_an_ordinary_user_is_told_which_guests_only_root_can_build(
    paths: Paths,
    programs: Path,
    monkeypatch: pytest.MonkeyPatch,
    guests: tuple[str, ...],
    state: RequirementState,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam("nobody").pw_uid)
    line = examine(paths, "SELinux labels", *guests)
    assert (line.state, line.needed_by) == (state, ["debian-13-selinux"])
    assert line.found == "nobody is not root, and only root can set them in a guest's image"
    assert line.mend.startswith("run the lab as root for these guests")
    # Labels do not matter where the image is stored, or to root.
    monkeypatch.setattr(store, "find_image", lambda _paths, _guest: "an image")
    line = examine(paths, "SELinux labels", *guests)
    assert (line.state, line.needed_by) == (RequirementState.NOT_NEEDED, [])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "SELinux labels" not in [line.what for line in doctor.examine_host(examination(paths, *guests))]


def test_emulation_is_told_with_its_measured_speed(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = Acceleration(False, "/dev/kvm does not exist", 7.0)
    monkeypatch.setattr(acceleration, "read_acceleration", lambda *_: verdict)
    line = ask(paths, "acceleration", Daemon())
    assert line.state is RequirementState.SLOW
    assert line.found.startswith(
        "software emulation: /dev/kvm does not exist; this host boots a kernel 14 times"
    )


@pytest.mark.parametrize(
    ("says", "state", "found"),
    [
        (
            "a machine ran",
            RequirementState.OK,
            "KVM: a guest kernel ran under KVM, and a machine of KVM in it; this host boots a kernel as fast",
        ),
        (
            "[Errno 2] No such file or directory: '/dev/kvm'",
            RequirementState.SLOW,
            "software emulation: /dev/kvm opens, but under it a guest has no KVM that runs a machine for "
            "boxlite: [Errno 2] No such file or directory: '/dev/kvm'; ",
        ),
    ],
)
def test_what_a_guest_says_of_kvm_in_it_decides_whether_it_is_used(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, says: str, state: RequirementState, found: str
) -> None:
    (paths.make(paths.cache) / "kvm").touch()
    monkeypatch.setattr(acceleration, "KVM_DEVICE", paths.cache / "kvm")
    monkeypatch.setattr(acceleration, "can_nest", lambda: True)
    monkeypatch.setattr(disk, "create_overlay", lambda overlay, _backing: overlay.touch())
    monkeypatch.setattr(store, "find_any_image", lambda paths: base_image(paths.images))
    said = f"[    0.4] Run /init as init process\nboxlite-lab: KVM in this guest: {says}\n"
    monkeypatch.setattr(console, "read_console", lambda _file: said)
    line = ask(paths, "acceleration", Daemon())
    assert line.state is state
    assert line.found.startswith(found)


def test_no_machine_tells_nothing_of_kvm_and_the_clock(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "find_library", lambda: Path("/library"))
    monkeypatch.setattr(store, "find_any_image", lambda paths: base_image(paths.images))
    monkeypatch.setattr(disk, "create_overlay", lambda overlay, _backing: overlay.touch())
    for what in ("acceleration", "clock"):
        line = ask(paths, what, Daemon(refuses={"qemu": "no room", "kvm": "no room"}))
        assert (line.state, line.mend) == (RequirementState.UNKNOWN, "see the line `machine`")
        # The binding may say what another test met.
        assert line.found.startswith("libvirt starts no machine: ")


@pytest.mark.parametrize(("kvm", "kind"), [(None, "qemu"), (False, "qemu"), (True, "kvm")])
def test_a_machine_is_tried_with_what_a_lane_s_has_and_nothing_of_it_is_left(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, kvm: bool | None, kind: str
) -> None:
    monkeypatch.setattr(store, "find_any_image", lambda paths: base_image(paths.images))
    monkeypatch.setattr(disk, "create_overlay", lambda overlay, _backing: overlay.touch())
    monkeypatch.setattr(
        acceleration, "read_acceleration", lambda *_: None if kvm is None else Acceleration(kvm, "")
    )
    daemon = Daemon()
    assert ask(paths, "machine", daemon).state is RequirementState.OK
    [machine] = daemon.machines
    assert machine.xml.get("type") == kind
    assert machine.flags == libvirt.VIR_DOMAIN_START_AUTODESTROY | libvirt.VIR_DOMAIN_START_PAUSED
    assert [Path(overlay).name for overlay in machine.disks] == ["overlay.qcow2"]
    assert "restrict=on,hostfwd=tcp:127.0.0.1:231" in machine.words[1]
    assert not machine.is_there
    assert leftovers.list_lanes(paths) == []


def test_a_machine_that_libvirt_refuses_is_told_in_its_words_with_the_logs_to_read(paths: Paths) -> None:
    refused = "Unable to open file: /var/x/console.log: Permission denied"
    daemon = Daemon(refuses={"qemu": f"{refused}\n"})
    assert ask(paths, "machine", daemon) == RequirementLine(
        "machine", RequirementState.BROKEN, refused, doctor.REFUSED
    )
    daemon.is_alive = False
    line = ask(paths, "machine", daemon)
    assert (line.state, line.mend) == (RequirementState.BROKEN, "")
    assert line.found.startswith("libvirt went away while a machine was tried")
    assert leftovers.list_lanes(paths) == []


def test_a_machine_that_cannot_begin_has_the_next_step(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def lane_folder(*_: object, **__: object) -> NoReturn:
        raise LabError("no port", hint="lab clean")

    monkeypatch.setattr(leftovers, "make_lane_folder", lane_folder)
    assert ask(paths, "machine", Daemon()) == RequirementLine(
        "machine", RequirementState.BROKEN, "no port", "lab clean"
    )


def test_a_stuck_machine_is_ended(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon, ended = Daemon(ends_machines=False), []
    monkeypatch.setattr(leftovers, "end_machine", lambda name, uri: ended.append((name, uri)))
    assert ask(paths, "machine", daemon).state is RequirementState.OK
    assert ended == [(daemon.machines[0].xml.findtext("name"), "qemu:///system")]


@pytest.mark.parametrize(
    ("number", "state"), [(8_005_999, RequirementState.BROKEN), (8_006_000, RequirementState.OK)]
)
def test_libvirt_must_know_what_lanes_are_made_of(
    paths: Paths, programs: Path, monkeypatch: pytest.MonkeyPatch, number: int, state: RequirementState
) -> None:
    monkeypatch.setattr(libvirt.virConnect, "getLibVersion", lambda _: number)
    [line] = [line for line in doctor.examine_host(examination(paths, uri=LIBVIRT)) if line.what == "libvirt"]
    assert line.state is state


def test_again_forgets_the_verdict_on_kvm(paths: Paths, programs: Path) -> None:
    paths.cache.mkdir(parents=True)
    for again in (False, True):
        paths.acceleration.write_text("{}")
        assert list(doctor.examine_host(examination(paths, uri=LIBVIRT, again=again)))
        assert paths.acceleration.exists() is not again
