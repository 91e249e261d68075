import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import catalog
from lab.base import process
from lab.base.activity import UNWATCHED, Progress, Task
from lab.base.errors import LabError
from lab.base.files import hash_file
from lab.base.paths import Paths, find_definitions
from lab.base.wait import Deadline
from lab.catalog import Firmware, Guest, PackageManager
from lab.guest import ready
from lab.guest.session import Output, WriteInput
from lab.images import store
from lab.images.store import BaseImage
from lab.lane import prepare_image
from lab.lane.prepare_image import Preparation
from lab.machine import seed
from lab.machine.acceleration import Acceleration
from lab.machine.budget import Processors
from lab.machine.clock import RATE, REAL, Clock
from lab.machine.domain import Network
from tests.builders.guests import TwoLabs, base_image, put_prepared, put_published, task_to
from tests.builders.lanes import FakeLane, FakeSession

GUEST = catalog.load_catalog().guest("ubuntu-24.04")
APT = PackageManager.APT
IMAGE = base_image(Path("/store/cloud"), Firmware.BIOS)
EMULATION = Acceleration(False, "a test")
pytestmark = pytest.mark.usefixtures("roomy")


def preparation(paths: Paths, task: Task = UNWATCHED) -> Preparation:
    return Preparation(None, paths, EMULATION, task, Processors(1))


def works(_preparation: Preparation, _guest: Guest, _image: BaseImage, disk: Path) -> None:
    disk.write_text("a prepared disk")


@pytest.fixture
def working(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(prepare_image, "prepare_disk", works)
    return monkeypatch


def folders(paths: Paths) -> list[str]:
    return [entry.name for entry in paths.images.iterdir() if entry.is_dir()]


def test_a_built_image_is_ready_as_it_is(paths: Paths) -> None:
    built = base_image(Path("/store/debian-13"))
    assert prepare_image.find_prepared_image(paths, GUEST, built) == built
    assert prepare_image.ensure_prepared_image(preparation(paths), GUEST, built) == built
    assert not paths.images.exists()


@pytest.mark.parametrize("firmware", list(Firmware))
def test_what_is_prepared_is_read_only(paths: Paths, working: pytest.MonkeyPatch, firmware: Firmware) -> None:
    image = replace(IMAGE, firmware=firmware)
    assert prepare_image.find_prepared_image(paths, GUEST, image) is None
    made = prepare_image.ensure_prepared_image(preparation(paths), GUEST, image)
    working.setattr(prepare_image, "prepare_disk", None)
    assert prepare_image.ensure_prepared_image(preparation(paths), GUEST, image) == made
    assert prepare_image.find_prepared_image(paths, GUEST, image) == made
    assert made.firmware is firmware
    modes = {file.name: file.stat().st_mode & 0o777 for file in made.folder.iterdir()}
    assert modes == {"disk.qcow2": 0o444, "manifest.json": 0o444}
    assert made.manifest.disk_sha256 == hash_file(made.disk) != IMAGE.manifest.disk_sha256
    assert made.manifest.inputs == prepare_image.inputs_digest(GUEST, IMAGE)
    assert made.folder == paths.images / f"prepared-ubuntu-24.04-{made.manifest.inputs[:16]}"


def receive(paths: Paths, sent: BaseImage) -> None:
    def bring(name: str, to: Path) -> None:
        shutil.copyfile(sent.folder / name, to)

    store.receive_image(paths, sent.manifest, bring, UNWATCHED, origin="host one")


def test_what_another_host_prepared_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = (Paths(tmp_path / name, tmp_path / name) for name in ("there", "here"))
    base = put_published(here, GUEST)
    sent = put_prepared(there, GUEST, base)

    receive(here, sent)
    monkeypatch.setattr(prepare_image, "prepare_disk", None)
    received = prepare_image.ensure_prepared_image(preparation(here), GUEST, base)
    assert received.folder.name.startswith(f"received-ubuntu-24.04-{sent.manifest.inputs[:16]}-")
    assert (received.manifest.digest, received.firmware) == (sent.manifest.digest, Firmware.BIOS)
    assert received.manifest.base == base.manifest.disk_sha256
    # A run that names it as the guest's only image starts from it as it is.
    named = GUEST.from_image(sent.manifest.digest)
    only = store.find_image(here, named)
    assert only == received
    assert prepare_image.find_prepared_image(here, named, only) == received
    assert prepare_image.find_ready_image(here, named)
    # This host's own comes first from the time at which there is one.
    own = put_prepared(here, GUEST, base, kib=640)
    again = prepare_image.find_prepared_image(here, GUEST, base)
    assert again
    assert again.folder == own.folder
    # It is not taken for one of another disk.
    assert prepare_image.find_prepared_image(here, GUEST, put_published(here, GUEST, kib=2048)) is None


ANOTHER_DISK = replace(IMAGE, manifest=IMAGE.manifest.model_copy(update={"disk_sha256": "2" * 64}))
LARGER = GUEST.model_copy(update={"image": GUEST.image.model_copy(update={"disk_gib": 11})})


@pytest.mark.parametrize(
    ("guest", "image", "changed"),
    [
        (GUEST, ANOTHER_DISK, ""),
        (LARGER, IMAGE, ""),
        (GUEST, IMAGE, "packages"),
        # A comment in the seed is a change, too.
        (GUEST, IMAGE, "seed"),
    ],
)
def test_what_was_prepared_differently_does_not_count(
    paths: Paths, working: pytest.MonkeyPatch, tmp_path: Path, guest: Guest, image: BaseImage, changed: str
) -> None:
    shutil.copytree(find_definitions() / "cloud-init", tmp_path / "own" / "cloud-init")
    working.setattr(seed, "find_definitions", lambda: tmp_path / "own")
    prepare_image.ensure_prepared_image(preparation(paths), GUEST, IMAGE)
    assert prepare_image.find_prepared_image(paths, GUEST, IMAGE) is not None
    if changed == "packages":
        working.setattr(prepare_image, "RECIPE", ("vim", *prepare_image.RECIPE[1:]))
    elif changed == "seed":
        with (tmp_path / "own" / "cloud-init" / "user-data.yaml").open("a") as file:
            file.write("# A comment is a change too.\n")
    assert prepare_image.find_prepared_image(paths, guest, image) is None


def test_what_is_installed_and_what_is_stopped_are_part_of_the_recipe() -> None:
    packages = {name for names in prepare_image.PACKAGES.values() for name in names}
    assert packages | {*prepare_image.UNITS, *prepare_image.LOCKS} <= set(prepare_image.RECIPE)


def test_too_little_space_is_said_before_anything_is_booted(paths: Paths, working: pytest.MonkeyPatch) -> None:
    working.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=2**30))
    with pytest.raises(LabError, match=r"ubuntu-24.04 needs 5.0 GiB free in .*; there are 1\.0"):
        prepare_image.ensure_prepared_image(preparation(paths), GUEST, IMAGE)
    assert folders(paths) == []


def test_two_labs_at_once_prepare_a_guest_once(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    labs = TwoLabs("prepared")
    done: list[str] = []

    def work(_preparation: Preparation, guest: Guest, _image: BaseImage, disk: Path) -> None:
        labs.work()
        done.append(guest.name)
        disk.write_text("a prepared disk")

    monkeypatch.setattr(prepare_image, "prepare_disk", work)
    first, second = labs.run(
        lambda task: prepare_image.ensure_prepared_image(preparation(paths, task), GUEST, IMAGE)
    )
    assert (first, done) == (second, ["ubuntu-24.04"])


class Lacking(FakeSession):
    """A guest that lacks packages; cloud-init can install those in `installed`, and says this."""

    def __init__(self, lacks: list[str], installed: set[str], says: str = "") -> None:
        super().__init__()
        self.lacks, self.installed, self.says = lacks, installed, says

    def execute(
        self, transport: object, command: str, deadline: Deadline, write_input: WriteInput | None = None
    ) -> Output:
        if "dpkg-query" in command:
            assert all(f"-W -f '${{Status}}' {name} " in command for name in prepare_image.PACKAGES[APT])
            return Output(0, "".join(f"{name}\n" for name in self.lacks), "")
        self.commands.append(command)
        if "cloud-init single" in command:
            self.lacks = [name for name in self.lacks if name not in self.installed]
        return Output(1 if self.lacks else 0, self.says, "")

    def program(self, name: str, argument: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        assert name == "quiet"
        assert argument["seconds"] <= EMULATION.speed.from_kvm(seconds)
        # Without these an emulated kernel panics now and then.
        assert {"no_timer_check", "tsc=nowatchdog", "nosoftlockup"} <= set(argument["kernel_arguments"])
        return {"masked": ["apt-daily.timer"], "not_masked": {}, "not_executable": [], "held": []}

    def close(self) -> None:
        self.commands.append("close")


Complete = Callable[[Lacking], list[str]]


@pytest.fixture
def complete(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Complete:
    """Completes a guest; what was done with its machine, and the turns that were taken and given back."""
    monkeypatch.setattr(ready, "wait_for_boot", lambda *_: None)

    def run(inside: Lacking) -> list[str]:
        monkeypatch.setattr(prepare_image, "Session", lambda *_, alive, speed: inside)
        lane = FakeLane(tmp_path, EMULATION)
        lane.guest = GUEST

        @contextmanager
        def turn(_processors: object, work: Progress, **_: object) -> Iterator[None]:
            lane.did.append(work.text)
            yield
            lane.did.append("given back")

        monkeypatch.setattr(prepare_image, "occupy_processor", turn)
        prepare_image.complete_guest(lane, preparation(paths, task_to(lane.did)))
        return lane.did

    return run


FIRST_BOOT = ["first boot", "start, may restart", "given back"]
SUPPLIES = ["fetching what remedies need", "given back"]


def test_only_what_is_missing_is_installed_and_what_remedies_need_stays(complete: Complete) -> None:
    assert complete(Lacking([], set())) == [*FIRST_BOOT, *SUPPLIES, "off"]
    inside = Lacking(["bubblewrap"], {"bubblewrap"})
    assert complete(inside) == [*FIRST_BOOT, "installing bubblewrap", "given back", *SUPPLIES, "off"]
    install, lists, package, profile, clean, closed = inside.commands
    assert "cloud-init single --name package_update_upgrade_install" in install
    assert 'packages: ["bubblewrap"]' in install
    assert "apt-get -q update" in lists
    assert "--download-only --yes bubblewrap" in package
    assert "download apparmor-profiles" in profile
    assert "cloud-init clean" in clean
    assert not [word for word in ("lists", "apt-get clean") if word in clean]
    assert closed == "close"


def test_what_could_not_be_installed_is_named_with_the_guest_s_own_last_words(complete: Complete) -> None:
    says = "".join(f"line {number}\n" for number in range(100)) + "\x1b[31mE: Unable to locate bubblewrap\n"
    with pytest.raises(LabError) as error:
        complete(Lacking(["bubblewrap", "procps"], {"procps"}, says))
    lines = error.value.args[0].splitlines()
    assert lines[0] == "ubuntu-24.04 lacks bubblewrap, which could not be installed in it; cloud-init says:"
    assert lines[-1] == "  | E: Unable to locate bubblewrap"
    assert "  | line 50" not in lines
    assert "lab images import FILE --as ubuntu-24.04" in (error.value.hint or "")


def test_a_guest_without_its_package_sources_is_prepared_and_what_it_lacks_is_told(complete: Complete) -> None:
    class Offline(Lacking):
        def run(self, command: str, **more: Any) -> Output:
            if "apt-get" in command:
                return Output(100, "Reading lists\nE: Unable to locate package bubblewrap\n", "")
            return super().run(command, **more)

    done = complete(Offline([], set()))
    notes = [text for text in done if "could not be fetched" in text]
    assert len(notes) == 3
    assert "the package bubblewrap could not be" in notes[1] and "E: Unable to locate package" in notes[1]
    assert done[-1] == "off"


def test_a_guest_reaches_its_sources(paths: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened: list[tuple[Network, Clock]] = []
    changes = {"masked": ["fstrim.timer"]}

    @contextmanager
    def open_lane(*_: object, network: Network, acceleration: Acceleration, **_more: object) -> Iterator[Any]:
        opened.append((network, acceleration.clock))
        yield SimpleNamespace(overlay=paths.state / "overlay.qcow2")

    monkeypatch.setattr(prepare_image, "open_lane", open_lane)
    slow = replace(preparation(paths), acceleration=replace(EMULATION, clock=Clock(RATE)))
    monkeypatch.setattr(prepare_image, "complete_guest", lambda *_: changes)
    monkeypatch.setattr(process, "run_command", lambda *_, **__: "")
    prepare_image.prepare_disk(slow, GUEST, IMAGE, tmp_path / "disk.qcow2")
    assert opened == [(Network.OPEN, REAL)]
    # What was changed in the guest is kept beside its disk.
    assert json.loads((tmp_path / "changes.json").read_text())["masked"] == ["fstrim.timer"]
