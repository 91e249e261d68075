"""Whether guests run under KVM, and how fast, with a stand-in for libvirt in whose machines no kernel runs."""

import fcntl
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import libvirt
import pytest

from lab.base.activity import UNWATCHED
from lab.base.paths import Paths
from lab.base.wait import Deadline
from lab.catalog import Firmware
from lab.images import disk
from lab.images.store import BaseImage
from lab.machine import acceleration, ask_kvm, clock, console, leftovers, qemu, seed
from lab.machine.acceleration import Acceleration, GuestDied, KvmFails
from lab.machine.clock import RATE, Clock
from lab.machine.connection import NoLibvirt
from tests.builders.daemon import Daemon
from tests.builders.guests import base_image

pytestmark = pytest.mark.usefixtures("x86_64_host")
RAN = "[ {}] Run /init as init process"
SAYS = f"{RAN.format('0.5')}\n{ask_kvm.ANSWER} {{}}\n"
ASKED = "a guest kernel ran under KVM, and a machine of KVM in it"


REFUSED = {"kvm": "failed to set MSR 0x10a"}


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /dev/kvm of a host where KVM nests; it is not there at first."""
    monkeypatch.setattr(acceleration, "KVM_DEVICE", tmp_path / "kvm")
    monkeypatch.setattr(acceleration, "can_nest", lambda: True)
    monkeypatch.setattr(disk, "create_overlay", lambda overlay, _backing: overlay.touch())
    return tmp_path / "kvm"


# What the next kernels come to that are booted under KVM.
Boots = list[float | KvmFails]


@pytest.fixture
def boots(device: Path, monkeypatch: pytest.MonkeyPatch) -> Boots:
    device.touch()
    next_boots: Boots = []

    def boot(*_arguments: object) -> float:
        outcome = next_boots.pop(0)
        if isinstance(outcome, KvmFails):
            raise outcome
        return outcome

    monkeypatch.setattr(acceleration, "boot_under_kvm", boot)
    return next_boots


def decide(paths: Paths, daemon: Daemon, firmware: Firmware | None = None) -> Acceleration:
    how = acceleration.decide_acceleration(daemon, paths, base_image(paths.images, firmware), UNWATCHED)
    assert leftovers.list_lanes(paths) == []
    return how


# -- trying KVM


def test_kvm_nests_and_verdicts_are_kept(paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = decide(paths, Daemon())
    assert verdict == Acceleration(False, "/dev/kvm does not exist")
    assert (verdict.name, verdict.speed.factor) == ("emulation", 10.0)
    assert acceleration.read_acceleration(Daemon(), paths) == verdict
    text = paths.acceleration.read_text()
    paths.acceleration.write_text(text.replace("does not exist", "is remembered"))
    assert decide(paths, Daemon()).reason == "/dev/kvm is remembered"
    device.touch()
    monkeypatch.setattr(acceleration, "can_nest", lambda: False)
    assert "nested" in decide(paths, Daemon()).reason


@pytest.mark.parametrize(
    ("state", "seconds", "problem"),
    [
        (libvirt.VIR_DOMAIN_SHUTOFF, 120.0, "a guest kernel dies"),
        (libvirt.VIR_DOMAIN_RUNNING, 0.0, "a guest kernel did not start within 0 s"),
    ],
)
def test_a_kernel_that_never_starts_user_space_is_no_kvm(
    paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch, state: int, seconds: float, problem: str
) -> None:
    device.touch()
    monkeypatch.setattr(acceleration, "TRY_SECONDS", seconds)
    assert decide(paths, Daemon(machine_state=state)).reason == f"/dev/kvm opens, but under it {problem}"


def test_a_guest_that_died_once_under_kvm_is_booted_a_second_time(paths: Paths, boots: Boots) -> None:
    boots += [GuestDied("a guest kernel dies"), 6.0]
    how = decide(paths, Daemon())
    assert (how.kvm, how.kernel_seconds, boots) == (True, 6.0, [])
    # Twice is an answer, and so is a guest that lives and says no.
    for outcomes in (
        [GuestDied("a guest dies"), GuestDied("a guest kernel dies")],
        [KvmFails("a guest kernel dies")],
    ):
        paths.acceleration.unlink()
        boots += outcomes
        assert decide(paths, Daemon()).reason == "/dev/kvm opens, but under it a guest kernel dies"
        assert boots == []


def test_a_busy_host_has_longer_to_start_a_kernel(
    paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.touch()
    limits: list[float] = []

    def note(seconds: float, event: str) -> Deadline:
        limits.append(seconds)
        return Deadline(0.0, event)

    monkeypatch.setattr(acceleration, "Deadline", note)
    monkeypatch.setattr(acceleration, "measure_load", lambda: 3.0)
    how = decide(paths, Daemon(machine_state=libvirt.VIR_DOMAIN_RUNNING))
    assert how.reason == "/dev/kvm opens, but under it a guest kernel did not start within 360 s"
    assert limits == [3 * acceleration.TRY_SECONDS]


def test_a_started_kernel_tells_its_speed(paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device.touch()
    monkeypatch.setattr(console, "read_console", lambda _file: SAYS.format(ask_kvm.RUNS))
    assert decide(paths, Daemon()) == Acceleration(True, ASKED, 0.5)
    # The kernel of a distribution's disk may be quiet.
    paths.acceleration.unlink()
    monkeypatch.setattr(console, "read_console", lambda _file: f"{ask_kvm.ANSWER} {ask_kvm.RUNS}\n")
    assert decide(paths, Daemon()) == Acceleration(True, ASKED)


@pytest.mark.parametrize(
    "says",
    [
        "[Errno 2] No such file or directory: '/dev/kvm'",
        "a machine was made and stopped with exit reason 17",
        "a machine ran away",
    ],
)
def test_where_nested_says_yes_and_the_guest_no_guests_are_emulated_for_that_reason(
    paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    device.touch()
    monkeypatch.setattr(console, "read_console", lambda _file: SAYS.format(says))
    how = decide(paths, Daemon())
    told = "/dev/kvm opens, but under it a guest has no KVM that runs a machine for boxlite: "
    assert (how.kvm, how.reason) == (False, told + says)
    # It is asked once.
    assert acceleration.read_acceleration(Daemon(), paths) == how


def test_a_guest_that_says_nothing_of_kvm_is_no_proof(
    paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.touch()
    monkeypatch.setattr(acceleration, "ANSWER_SECONDS", 0.0)
    monkeypatch.setattr(console, "read_console", lambda _file: RAN.format("0.5"))
    reasons = [decide(paths, Daemon(machine_state=libvirt.VIR_DOMAIN_RUNNING)).reason]
    paths.acceleration.unlink()
    reasons.append(decide(paths, Daemon(machine_state=libvirt.VIR_DOMAIN_SHUTOFF)).reason)
    assert reasons == [
        "/dev/kvm opens, but under it a guest did not say within 0 s whether KVM runs a machine in it",
        "/dev/kvm opens, but under it a guest dies",
    ]


def test_the_guest_gets_the_question_in_a_seed_that_it_runs(
    paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.touch()
    seeds: list[dict[str, str]] = []
    monkeypatch.setattr(seed, "write", lambda _file, files: seeds.append(files))
    decide(paths, Daemon())
    # It died twice.
    [files, _] = seeds
    # A guest that the lab built runs the one, and cloud-init the other.
    _, _, config = files["user-data"].partition("#cloud-config\n")
    assert json.loads(config) == {"bootcmd": [["sh", "-c", files["seed.sh"]]]}
    question = Path(ask_kvm.__file__).read_text()
    echoed = files["seed.sh"].removesuffix(" | python3 -")
    assert subprocess.check_output(["sh", "-c", echoed], text=True) == question
    assert "instance-id: script" in files["meta-data"]


def test_a_verdict_of_a_lab_that_did_not_ask_does_not_count(paths: Paths, boots: Boots) -> None:
    boots += [0.5, 0.6]
    decide(paths, Daemon())
    paths.acceleration.write_text(paths.acceleration.read_text().replace(f" {acceleration.QUESTION}", ""))
    assert decide(paths, Daemon()).kernel_seconds == 0.6


@pytest.mark.usefixtures("library", "maps")
def test_a_refusal_is_kvms_if_another_machine_starts(paths: Paths, device: Path) -> None:
    device.touch()
    how = decide(paths, Daemon(refuses=REFUSED))
    assert (how.kvm, how.reason) == (False, "/dev/kvm opens, but under it QEMU fails: failed to set MSR 0x10a")
    assert acceleration.read_acceleration(Daemon(), paths) == how
    # KVM is not tried a second time.
    again = Daemon(refuses=REFUSED)
    assert (decide(paths, again), again.machines) == (how, [])


@pytest.mark.usefixtures("library", "maps")
def test_a_refused_machine_alone_says_nothing_lasting_of_kvm(
    paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where SELinux denies virtlogd the folder of the consoles: KVM is not to blame, and may work."""
    device.touch()
    with pytest.raises(libvirt.libvirtError):
        decide(paths, Daemon(refuses={**REFUSED, "qemu": "no console"}))
    assert acceleration.read_acceleration(Daemon(), paths) is None
    with pytest.raises(NoLibvirt, match="libvirt went away while KVM was tried"):
        decide(paths, Daemon(refuses=REFUSED, is_alive=False))
    assert acceleration.read_acceleration(Daemon(), paths) is None
    monkeypatch.setattr(clock, "FOLDERS", ())
    assert not decide(paths, Daemon(refuses=REFUSED)).kvm
    assert acceleration.read_acceleration(Daemon(), paths) is None


def test_a_boot_is_tried_from_an_overlay(paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device.touch()
    overlays: list[tuple[Path, Path]] = []
    monkeypatch.setattr(disk, "create_overlay", lambda made, backing: overlays.append((made, backing)))
    daemon = Daemon()
    decide(paths, daemon, Firmware.BIOS)
    [(made, backing), _] = overlays
    assert backing == base_image(paths.images).disk
    [machine, _] = daemon.machines
    assert (machine.xml.find("os/kernel"), machine.disks) == (None, [str(made), str(made.parent / "seed.iso")])


# -- keeping the verdict


@pytest.mark.parametrize("change", ["QEMU", "libvirt", "kernel", "device"])
def test_a_verdict_ends_with_what_it_depends_on(
    paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    decide(paths, Daemon())
    daemon = Daemon(
        qemu=10_001_000 if change == "QEMU" else 10_000_000,
        uri="qemu:///session" if change == "libvirt" else "qemu:///system",
    )
    if change == "kernel":
        monkeypatch.setattr(platform, "release", lambda: "7.3.0-new")
    if change == "device":
        device.touch()
    assert acceleration.read_acceleration(daemon, paths) is None


def test_a_verdict_ends_with_new_rights(paths: Paths, boots: Boots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "access", lambda path, _mode: path != acceleration.KVM_DEVICE)
    boots.append(0.5)
    assert "join the group kvm" in decide(paths, Daemon()).reason
    # The user joined the group: the device itself is as it was.
    monkeypatch.setattr(os, "access", lambda _path, _mode: True)
    assert acceleration.read_acceleration(Daemon(), paths) is None
    assert decide(paths, Daemon()).kvm


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 1}'])
def test_a_memory_that_cannot_be_read_is_none(paths: Paths, device: Path, text: str) -> None:
    paths.make(paths.cache)
    paths.acceleration.write_text(text)
    assert acceleration.read_acceleration(Daemon(), paths) is None
    assert not acceleration.keep_speed(paths, Acceleration(False, ""), RAN.format("4.0"))


# -- how fast it is


def test_kvm_as_slow_as_emulation_gets_limits_as_long(paths: Paths, boots: Boots) -> None:
    boots.append(6.0)
    how = decide(paths, Daemon())
    assert (how.name, how.speed.factor, how.speed.is_slow) == ("kvm", 12.0, True)
    assert how.told() == (
        "this host boots a kernel 12 times slower than ordinary hardware with KVM, in 6.0 s; "
        "limits of time are 12 times those for KVM"
    )
    # A later lane boots no kernel to know it.
    assert decide(paths, Daemon()) == how


def test_the_newest_boot_of_a_guest_counts_for_later_lanes(paths: Paths, boots: Boots) -> None:
    boots.append(KvmFails("a guest kernel dies"))
    how = decide(paths, Daemon())
    assert (how.kernel_seconds, how.speed.factor) == (None, 10.0)
    assert acceleration.keep_speed(paths, how, RAN.format("20.0"))
    assert decide(paths, Daemon()) == Acceleration(False, how.reason, 20.0)
    assert decide(paths, Daemon()).speed.factor == 40.0
    # It is news only once, and a host that was busy then gets shorter limits again.
    assert not acceleration.keep_speed(paths, how, RAN.format("6.0"))
    assert decide(paths, Daemon()).kernel_seconds == 6.0
    for other, boot in (how, "a kernel that is quiet"), (Acceleration(True, ""), RAN.format("0.5")):
        assert not acceleration.keep_speed(paths, other, boot)
    assert decide(paths, Daemon()).kernel_seconds == 6.0


@pytest.mark.parametrize("kvm", [False, True])
def test_a_boot_on_a_busy_host_makes_no_later_limit_longer(
    paths: Paths, boots: Boots, monkeypatch: pytest.MonkeyPatch, kvm: bool
) -> None:
    # 141 times slower than ordinary hardware with KVM; 14 times of that is the load.
    monkeypatch.setattr(acceleration, "measure_load", lambda: 14.1)
    boots.append(70.5 if kvm else KvmFails("a guest kernel dies"))
    how = decide(paths, Daemon())
    if not kvm:
        assert how.learned(RAN.format("70.5")).speed.times_slower == pytest.approx(10.0)
        assert acceleration.keep_speed(paths, how, RAN.format("70.5"))
    # What is busy now is a factor of its own: see Lane.speed.
    assert decide(paths, Daemon()).speed.factor == pytest.approx(10.0)


def test_a_slow_boot_makes_later_limits_longer_and_a_fast_one_none_shorter() -> None:
    how = Acceleration(True, "", 2.0)
    assert how.learned(RAN.format("10.250000")).speed.factor == 20.5
    assert how.learned(RAN.format("0.250000")) is how
    assert how.learned("a kernel that is quiet") is how
    # Ten times KVM is what emulation gets at least.
    assert Acceleration(False, "").learned(RAN.format("4.0")) == Acceleration(False, "", 4.0)
    assert (Acceleration(True, "").name, Acceleration(True, "").speed.factor) == ("kvm", 1.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("[    5.191034] Run /init as init process\n[    5.2] other\n", 5.191034),
        # A guest that restarted itself at its first boot.
        ("[    9.5] Run /init as init process\n[    7.25] Run /init as init process\n", 7.25),
        ("Run /init as init process", None),
        ("[    5.19] Run /sbin/init as init process", None),
    ],
)
def test_the_kernels_own_clock_says_how_long_it_took(text: str, seconds: float | None) -> None:
    assert console.find_kernel_seconds(text) == seconds


# -- the clock of emulated guests

# Where this host has the library; the other tests have none.
FOLDERS, INSTALLED = clock.FOLDERS, clock.find_library()
MAPPED = "7f0c5f000000-7f0c5f010000 r-xp 00000000 08:01 1234 {}\n"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "clocks_by_uri", {})


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / clock.FILE
    file.touch()
    monkeypatch.setattr(clock, "FOLDERS", (tmp_path / "none", tmp_path))
    return file


@pytest.fixture
def maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What the QEMU of the machine has mapped."""
    file = tmp_path / "maps"
    monkeypatch.setattr(qemu, "find_processes", lambda name: [SimpleNamespace(pid=77)])
    monkeypatch.setattr(clock, "MAPS", str(file))
    yield file


def test_without_the_library_guests_have_the_host_s_clock_and_nothing_is_started(paths: Paths) -> None:
    daemon = Daemon()
    emulated = clock.choose_emulated_clock(daemon, paths)
    assert (emulated.rate, emulated.environment, daemon.machines) == (1.0, {}, [])
    assert emulated.reason.startswith("libfaketime is not installed")


def test_guests_have_a_slower_clock(paths: Paths, library: Path, maps: Path) -> None:
    maps.write_text(MAPPED.format("/usr/lib/libc.so.6") + MAPPED.format(library))
    daemon = Daemon()
    emulated = clock.choose_emulated_clock(daemon, paths)
    assert (emulated.rate, emulated.reason) == (RATE, "")
    assert emulated.environment["LD_PRELOAD"] == str(library)
    assert emulated.environment["FAKETIME"] == "+0 x0.1"
    [machine] = daemon.machines
    assert machine.environment == emulated.environment
    # It stands still, ends with the connection, and is gone.
    assert machine.flags == libvirt.VIR_DOMAIN_START_AUTODESTROY | libvirt.VIR_DOMAIN_START_PAUSED
    assert not machine.is_there
    assert leftovers.list_lanes(paths) == []
    assert clock.choose_emulated_clock(daemon, paths) == emulated
    assert daemon.machines == [machine]


@pytest.mark.skipif(INSTALLED is None, reason="libfaketime is not installed")
def test_a_killed_program_leaves_no_memory(paths: Paths, maps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "FOLDERS", FOLDERS)
    maps.write_text(MAPPED.format(INSTALLED))
    emulated = clock.choose_emulated_clock(Daemon(), paths)
    assert emulated.rate == RATE
    told = "import time; print(time.monotonic(), flush=True); time.sleep(60)"
    ran = subprocess.Popen(
        [sys.executable, "-c", told], env={**os.environ, **emulated.environment}, stdout=subprocess.PIPE
    )
    assert ran.stdout and ran.stdout.readline()
    ran.kill()
    ran.communicate()
    assert list(Path("/dev/shm").glob(f"*faketime*_{ran.pid}")) == []


@pytest.mark.parametrize("text", ["", MAPPED.format("/usr/lib/libc.so.6"), None])
def test_a_confined_qemu_has_the_host_clock(paths: Paths, library: Path, maps: Path, text: str | None) -> None:
    if text is not None:
        maps.write_text(text)
    emulated = clock.choose_emulated_clock(Daemon(), paths)
    assert (emulated.rate, emulated.environment) == (1.0, {})
    assert emulated.reason == f"libvirt starts QEMU without {library}: something on this host confines it"


def test_a_failed_start_says_nothing_of_the_clock(paths: Paths, library: Path, maps: Path) -> None:
    with pytest.raises(libvirt.libvirtError):
        clock.choose_emulated_clock(Daemon(refuses={"qemu": "no room"}), paths)
    maps.write_text(MAPPED.format(library))
    assert clock.choose_emulated_clock(Daemon(), paths).rate == RATE


def test_a_slower_clock_that_qemu_had_is_kept_until_a_lane_has_another(
    paths: Paths, device: Path, library: Path, maps: Path
) -> None:
    daemon = Daemon()
    maps.write_text("")
    assert decide(paths, daemon).speed.clock == 1.0
    # What this host refuses may be allowed by the next run.
    clock.clocks_by_uri.clear()
    maps.write_text(MAPPED.format(library))
    assert decide(paths, daemon).speed.clock == RATE
    assert len(daemon.machines) == 2
    # The next process starts no machine for it, while the library is there.
    clock.clocks_by_uri.clear()
    assert decide(paths, daemon).speed.clock == RATE
    assert len(daemon.machines) == 2
    maps.write_text("")
    acceleration.forget_clock(paths)
    assert decide(paths, daemon).speed.clock == 1.0
    assert len(daemon.machines) == 3
    # On another host, or without the library, nothing is known.
    maps.write_text(MAPPED.format(library))
    clock.clocks_by_uri.clear()
    assert decide(paths, daemon).speed.clock == RATE
    library.unlink()
    assert decide(paths, daemon).speed.clock == 1.0


@pytest.mark.parametrize("kvm", [False, True])
def test_only_emulated_guests_have_a_slower_clock(
    paths: Paths, library: Path, maps: Path, monkeypatch: pytest.MonkeyPatch, kvm: bool
) -> None:
    maps.write_text(MAPPED.format(library))
    device = paths.cache.parent / "kvm"
    monkeypatch.setattr(acceleration, "KVM_DEVICE", device)
    monkeypatch.setattr(acceleration, "can_nest", lambda: True)
    monkeypatch.setattr(acceleration, "boot_under_kvm", lambda *_: 0.5)
    if kvm:
        device.touch()
    how = acceleration.decide_acceleration(Daemon(), paths, base_image(paths.images), UNWATCHED)
    assert (how.kvm, how.speed.clock) == (kvm, 1.0 if kvm else RATE)


def test_a_guest_of_another_processor_is_emulated_and_says_nothing_of_kvm(paths: Paths, device: Path) -> None:
    device.touch()
    how = acceleration.decide_acceleration(Daemon(knows_firmware=True), paths, arm64_image(paths), UNWATCHED)
    assert (how.kvm, how.reason) == (False, "this host has no processor for aarch64")
    assert not paths.acceleration.exists()


# -- a host of arm64


def arm64_image(paths: Paths) -> BaseImage:
    own = base_image(paths.images)
    return replace(own, manifest=own.manifest.model_copy(update={"arch": "aarch64"}))


@pytest.fixture
def arm64_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")


@pytest.mark.parametrize(
    ("says", "problem"),
    [
        ("kvm [1]: VHE mode initialized successfully", ""),
        # As the kernels of Debian 13 and 12 say it in an emulated machine.
        ("kvm [1]: Hyp nVHE mode initialized successfully", ""),
        ("kvm [1]: Hyp mode initialized successfully", ""),
        (
            "kvm [1]: HYP mode not available",
            "/dev/kvm opens, but under it a guest kernel has no KVM for boxlite",
        ),
    ],
)
def test_on_arm64_a_guest_kernel_must_have_kvm_too(
    paths: Paths, device: Path, monkeypatch: pytest.MonkeyPatch, arm64_host: None, says: str, problem: str
) -> None:
    device.touch()
    monkeypatch.setattr(console, "read_console", lambda _file: f"[    0.4] {says}\n{RAN.format('0.5')}")
    daemon = Daemon()
    how = acceleration.decide_acceleration(daemon, paths, arm64_image(paths), UNWATCHED)
    # Only guests of x86-64 are asked.
    assert how.reason == (problem or "a guest kernel ran under KVM")
    assert how.kvm is not bool(problem)
    assert acceleration.read_acceleration(daemon, paths) == how
    xml = daemon.machines[0].xml
    kind, processor = xml.find("os/type"), xml.find("cpu")
    assert kind is not None and processor is not None
    assert (xml.get("type"), kind.get("arch"), processor.get("mode")) == ("kvm", "aarch64", "host-passthrough")
    assert daemon.machines[0].words[-2:] == ["-machine", "virtualization=on"]
    # The verdict is that of guests of arm64: others are emulated in any case.
    other = acceleration.decide_acceleration(daemon, paths, base_image(paths.images), UNWATCHED)
    assert (other.kvm, other.reason) == (False, "this host has no processor for x86_64")


@pytest.mark.parametrize(("answer", "nests"), [(1, True), (0, False), (OSError(25, "no such ioctl"), False)])
def test_on_arm64_the_kernel_says_whether_kvm_nests(
    paths: Paths,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arm64_host: None,
    answer: int | OSError,
    nests: bool,
) -> None:
    asked: list[tuple[int, int]] = []

    def ioctl(_device: object, request: int, argument: int) -> int:
        asked.append((request, argument))
        if isinstance(answer, OSError):
            raise answer
        return answer

    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(acceleration, "KVM_DEVICE", device)
    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    monkeypatch.setattr(acceleration, "boot_under_kvm", lambda *_: 0.5)
    how = acceleration.decide_acceleration(Daemon(), paths, arm64_image(paths), UNWATCHED)
    assert (how.kvm, "kvm-arm.mode=nested" in how.reason) == (nests, not nests)
    # KVM_CHECK_EXTENSION and KVM_CAP_ARM_EL2 of <linux/kvm.h>.
    assert set(asked) == {(0xAE03, 240)}


def test_the_clock_is_tried_with_the_host_s_own_qemu(
    paths: Paths, library: Path, maps: Path, arm64_host: None
) -> None:
    maps.write_text(MAPPED.format(library))
    daemon = Daemon()
    assert clock.choose_emulated_clock(daemon, paths).rate == RATE
    kind = daemon.machines[0].xml.find("os/type")
    assert kind is not None
    assert (kind.get("arch"), kind.get("machine")) == ("aarch64", "virt")


def test_a_boot_by_a_slower_clock_counts_in_real_seconds() -> None:
    emulated = Acceleration(False, "a test", clock=Clock(0.1))
    learned = emulated.learned("[    0.481000] Run /init as init process")
    assert learned.kernel_seconds == 4.81
    assert learned.speed.times_slower == pytest.approx(9.62)
