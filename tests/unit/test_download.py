"""Downloads from a server that fails in every way it can."""

import os
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.base.errors import ImageNotAvailable, LabError
from lab.images import download
from tests.builders.guests import no_say
from tests.builders.mirror import Answer, Mirror, Request, breaks_off, endless, redirect, serving, status, whole
from tests.conftest import Mount

PATH = "/folder/disk.img"
BODY = os.urandom(3 << 20)
HALF = 1 << 20


@pytest.fixture
def served(mirror: Mirror) -> Mirror:
    mirror.files[PATH] = BODY
    return mirror


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "disk"


def ranges(mirror: Mirror) -> list[str | None]:
    return [interval for path, interval in mirror.requests if path == PATH]


REST, LAST_PART = f"bytes={HALF}-", f"bytes={2 * HALF}-"
AGAIN = download.TRIES - 1


@pytest.mark.parametrize(
    ("faults", "requested"),
    [
        ([], [None]),
        # A download that breaks off goes on where it was.
        ([breaks_off(HALF), breaks_off(HALF)], [None, REST, LAST_PART]),
        # A server that ignores ranges starts over, with and without a length.
        ([breaks_off(HALF), whole], [None, REST]),
        ([breaks_off(HALF), endless], [None, REST]),
        # One in trouble is asked again.
        *(
            ([status(code)] * (download.TRIES - 1), [None] * download.TRIES)
            for code in sorted(download.TRANSIENT)
        ),
    ],
)
def test_a_file_comes_whole_whatever_the_server_does(
    served: Mirror,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    faults: list[Answer],
    requested: list[str | None],
) -> None:
    messages: list[str] = []
    monkeypatch.setattr(download, "SAY_SECONDS", 0.0)
    served.faults[PATH] = faults[:]
    download.fetch(served.url + PATH, file, messages.append)
    assert file.read_bytes() == BODY
    assert ranges(served) == requested
    told = [text for text in messages if text.startswith("downloading: ")]
    assert len(told) > 2 and "3" in told[-1]
    assert all("; trying again in 0 s" in text for text in messages if text not in told)
    # A whole file that was never verified is not fetched again.
    download.fetch(served.url + PATH, file, no_say)
    assert (file.read_bytes(), ranges(served)[-1]) == (BODY, f"bytes={len(BODY)}-")


def test_what_a_former_command_has_of_the_file_is_not_fetched_again(served: Mirror, file: Path) -> None:
    served.faults[PATH] = [breaks_off(HALF), *[status(503)] * AGAIN]
    with pytest.raises(ImageNotAvailable, match=f"disk.img of {served.host}: HTTP 503 Service Unavailable"):
        download.fetch(served.url + PATH, file, no_say)
    assert file.stat().st_size == HALF
    download.fetch(served.url + PATH, file, no_say)
    assert file.read_bytes() == BODY
    assert ranges(served)[-1] == REST


def test_a_file_that_became_shorter_starts_over(served: Mirror, file: Path) -> None:
    other = os.urandom(HALF // 2)

    def changes(request: Request, body: bytes) -> None:
        breaks_off(HALF)(request, body)
        served.files[PATH] = other

    served.faults[PATH] = [changes]
    download.fetch(served.url + PATH, file, no_say)
    assert file.read_bytes() == other


@pytest.mark.parametrize(
    ("code", "tries"), [(500, download.TRIES), *((code, 1) for code in (400, 401, 403, 404, 410, 501))]
)
def test_a_server_without_the_file_is_named(served: Mirror, file: Path, code: int, tries: int) -> None:
    served.faults[PATH] = [status(code)] * download.TRIES
    with pytest.raises(ImageNotAvailable, match=f"disk.img of {served.host}: HTTP {code}") as error:
        download.fetch(served.url + PATH, file, no_say)
    assert f"is {served.url}{PATH} right and reachable?" in (error.value.hint or "")
    assert "lab images import" in (error.value.hint or "")
    assert len(served.requests) == tries
    assert not file.exists()


def test_a_redirect_to_another_server_is_followed_but_not_in_a_circle(served: Mirror, file: Path) -> None:
    with serving() as other:
        other.files["/elsewhere"] = BODY
        served.faults[PATH] = [redirect(f"{other.url}/elsewhere")]
        download.fetch(served.url + PATH, file, no_say)
    assert file.read_bytes() == BODY
    served.faults[PATH] = [redirect(served.url + PATH)] * 100
    with pytest.raises(ImageNotAvailable, match="redirect"):
        download.fetch(served.url + PATH, file, no_say)


def test_a_host_that_cannot_be_reached_is_named(file: Path, mirror: Mirror) -> None:
    with serving() as gone:
        pass
    messages: list[str] = []
    with pytest.raises(ImageNotAvailable, match=f"disk.img of {gone.host}: Connection refused"):
        download.fetch(gone.url + PATH, file, messages.append)
    assert len(messages) == download.TRIES - 1


def test_an_interrupt_ends_a_download(served: Mirror, file: Path) -> None:
    def interrupt(_text: str) -> None:
        raise LabError("interrupted")

    with pytest.raises(LabError, match="interrupted"):
        download.fetch(served.url + PATH, file, interrupt)
    assert len(served.requests) == 1
    download.fetch(served.url + PATH, file, no_say)
    assert file.read_bytes() == BODY


def test_too_little_space_is_said_first(served: Mirror, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=len(BODY) - 1))
    with pytest.raises(LabError, match=f"GiB free in {file.parent}") as error:
        download.fetch(served.url + PATH, file, no_say)
    assert not isinstance(error.value, ImageNotAvailable)
    assert not file.exists()


def test_a_disk_that_fills_up_is_named_and_nothing_kept(served: Mirror, tmp_path: Path, mount: Mount) -> None:
    small_disk = mount(tmp_path / "small", f"size={HALF}")
    served.faults[PATH] = [endless]
    with pytest.raises(
        LabError, match=f"partial file was deleted: No space left on device: {small_disk}"
    ) as error:
        download.fetch(served.url + PATH, small_disk / "disk", no_say)
    assert "free some disk space" in (error.value.hint or "")
    assert list(small_disk.iterdir()) == []
    assert len(served.requests) == 1


def test_a_small_file_is_read_and_asked_for_again(served: Mirror) -> None:
    served.files["/SUMS"] = b"text\n"
    served.faults["/SUMS"] = [status(500), status(429)]
    assert download.read(f"{served.url}/SUMS", no_say) == b"text\n"
    assert len(served.requests) == 3
    # One as large as a disk is none.
    with pytest.raises(ImageNotAvailable, match="larger than 1048576 bytes"):
        download.read(served.url + PATH, no_say)


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://host:port/disk", "ftp://127.0.0.1/disk"])
def test_an_address_that_is_none_is_named(url: str, file: Path) -> None:
    with pytest.raises(ImageNotAvailable) as error:
        download.fetch(url, file, no_say)
    assert f"is {url} right and reachable?" in (error.value.hint or "")


@pytest.mark.parametrize(
    ("had", "arrived", "missing", "seconds", "expected"),
    [
        (0, 50, 200, 5.0, "downloading: 50 of 200 MiB (25 %), 10.0 MiB/s, about 15 s left"),
        (100, 50, 100, 10.0, "downloading: 150 of 200 MiB (75 %), 5.0 MiB/s, about 10 s left"),
        (0, 50, None, 5.0, "downloading: 50 MiB, 10.0 MiB/s"),
    ],
    ids=["from the start", "gone on with", "without length"],
)
def test_progress_tells_rate_and_time_left(
    had: int, arrived: int, missing: int | None, seconds: float, expected: str
) -> None:
    left = None if missing is None else missing << 20
    assert download.progress(had << 20, arrived << 20, left, seconds) == expected


def test_servers_that_do_not_answer_are_told_apart_from_those_that_do(served: Mirror) -> None:
    with serving() as gone:
        pass
    served.faults["/"] = [status(500)]
    urls = [f"{served.url}/a", f"{served.url}/b", f"{gone.url}/a", "http://name.invalid/c"]
    reasons = download.unreachable(urls)
    assert reasons.keys() == {gone.host, "name.invalid"}
    assert reasons[gone.host] == "Connection refused"
    assert [path for path, _ in served.requests] == ["/"]


def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "REACH_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
        assert download.unreachable([f"http://{host}/disk"]).keys() == {host}
