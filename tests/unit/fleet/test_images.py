"""Images that come from another host."""

import shutil
import threading
from pathlib import Path
from unittest.mock import Mock, create_autospec

import pytest

pytest.importorskip("distributed")

import paramiko

from lab.base.activity import UNWATCHED
from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.fleet import images
from lab.fleet.login import Login
from lab.fleet.roster import Roster
from lab.fleet.run_images import PinnedImage, RunImages
from lab.images import store
from lab.images.store import BaseImage
from lab.run.observer import Observer
from tests.builders.guests import put_image
from tests.builders.runs import KNOWN

GUEST = KNOWN.guest("debian-13")


def receive(to: Paths, image: BaseImage, *, damage: bytes = b"") -> BaseImage:
    def bring(name: str, file: Path) -> None:
        shutil.copyfile(image.folder / name, file)
        if damage and name == "initrd":
            file.write_bytes(damage)

    return store.receive_image(to, image.manifest, bring, UNWATCHED, origin="host one")


@pytest.fixture
def here(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "here", tmp_path / "here")


@pytest.fixture
def sent(tmp_path: Path) -> BaseImage:
    return put_image(Paths(tmp_path / "there", tmp_path / "there"), GUEST)


def test_an_image_arrives_whole_and_stands_beside_one_built_here(here: Paths, sent: BaseImage) -> None:
    made = receive(here, sent)
    assert made.manifest.digest == sent.manifest.digest
    assert made.manifest.source == "built for a test; from host one"
    store.check_image(made)
    image = store.find_image(here, GUEST)
    assert image and image.folder == made.folder
    # It is not brought again.
    assert receive(here, sent, damage=b"x").folder == made.folder
    own = put_image(here, GUEST, kib=2048)
    assert store.find_image(here, GUEST) == own
    assert store.find_image_by_content(here, sent.manifest.digest) == made


def test_of_a_damaged_image_nothing_is_stored(here: Paths, sent: BaseImage) -> None:
    with pytest.raises(LabError, match="initrd of debian-13 arrived damaged"):
        receive(here, sent, damage=b"x")
    assert store.find_image(here, GUEST) is None
    assert list(here.images.iterdir()) == []


def test_a_host_keeps_the_image_that_arrived_and_nothing_beside_it(here: Paths, sent: BaseImage) -> None:
    def ask(folder: str) -> None:
        for name in sent.manifest.files:
            shutil.copyfile(sent.folder / name, Path(folder) / name)

    images.await_image(here, sent.manifest, ask, threading.Event())
    image = store.find_image_by_content(here, sent.manifest.digest)
    assert image and list(here.images.iterdir()) == [image.folder]


def test_an_image_is_waited_for_until_its_last_byte(
    here: Paths, sent: BaseImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = max(sent.manifest.files)

    def copy(folder: Path, size: int | None) -> None:
        for name in sent.manifest.files:
            content = (sent.folder / name).read_bytes()
            (folder / name).write_bytes(content[:size] if name == last else content)

    def wait(_seconds: float) -> bool:
        [arriving] = here.images.glob(".partial-*")
        copy(arriving, None)
        return False

    stop = threading.Event()
    monkeypatch.setattr(stop, "wait", wait)
    images.await_image(here, sent.manifest, lambda folder: copy(Path(folder), -1), stop)
    assert store.find_image_by_content(here, sent.manifest.digest)


def test_a_host_is_told_why_an_image_does_not_come(here: Paths, sent: BaseImage) -> None:
    def ask(folder: str) -> None:
        images.report_failure(folder, "the disk is full")

    with pytest.raises(LabError, match="the disk is full"):
        images.await_image(here, sent.manifest, ask, threading.Event())
    # The next part that needs it asks again.
    test_a_host_keeps_the_image_that_arrived_and_nothing_beside_it(here, sent)


@pytest.fixture
def broken_roster() -> Mock:
    """Hosts, one of which has a server whose answer paramiko does not understand."""
    login = create_autospec(Login, instance=True)
    login.files.side_effect = paramiko.SFTPError("Garbage packet received")
    roster: Mock = create_autospec(Roster, instance=True, logins={"one": login})
    return roster


def test_a_host_is_told_also_of_an_error_that_nobody_expected(
    here: Paths, sent: BaseImage, broken_roster: Mock
) -> None:
    RunImages(here, broken_roster, Observer()).bring("one", sent, "/store/.partial-x")
    reason = "SFTPError('Garbage packet received')"
    broken_roster.call.assert_called_once_with("one", images.report_failure, "/store/.partial-x", reason)


def test_a_guest_keeps_its_image_if_the_prepared_one_cannot_be_fetched(
    here: Paths, sent: BaseImage, broken_roster: Mock
) -> None:
    run_images = RunImages(here, broken_roster, Observer())
    run_images.fetch("one", sent, sent.manifest, "/store/prepared")
    assert run_images.pins == {GUEST.name: PinnedImage(sent, is_ready=False)}
