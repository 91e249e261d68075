"""Downloads files: resumes interrupted downloads and retries transient errors. Asks which servers are up."""

import re
import shutil
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from lab.base.activity import Activity, Progress, Task
from lab.base.errors import ImageNotAvailable, LabError, NotPublished
from lab.base.wait import Deadline, DeadlineExpired, call_within

# The statuses of a server that is overloaded or under maintenance:
# https://www.rfc-editor.org/rfc/rfc9110#section-15
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
# A server has no such file.
ABSENT = frozenset({404, 410})
TRIES = 4
WAIT = wait_exponential_jitter(initial=1, max=30)
# A connection on which no byte arrives for this long is dead.
TIMEOUT = httpx2.Timeout(30.0)
SAY_SECONDS = 5.0
# Ubuntu's checksum files have a few KiB; a file larger than this is not a checksum file.
TEXT_LIMIT = 1 << 20
# How long a server may take to answer at all. Looking up a name has no limit of its own.
REACH_SECONDS = 5.0


def download_text(url: str, task: Task, *, only_https: bool = False) -> bytes:
    """Return the content of a small file. Raises NotPublished if there is none, and ImageNotAvailable.

    `only_https` refuses any step without encryption, except on this host.
    """
    with _explain_errors(url), httpx2.Client(timeout=TIMEOUT, follow_redirects=True) as client:
        for attempt in _retrying(task):
            with attempt, client.stream("GET", url) as response:
                for hop in (*response.history, response) if only_https else ():
                    if hop.url.scheme != "https" and hop.url.host != "127.0.0.1":
                        raise ImageNotAvailable(
                            f"{shorten_url(url)}: {hop.url.host} sent it without encryption, "
                            "so anybody could change it"
                        )
                response.raise_for_status()
                data = b""
                for chunk in response.iter_bytes():
                    data += chunk
                    if len(data) > TEXT_LIMIT:
                        raise ImageNotAvailable(
                            f"{shorten_url(url)}: larger than {TEXT_LIMIT} bytes, so not a checksum file"
                        )
                return data
    raise AssertionError("the last attempt raises its error")


def download_file(url: str, file: Path, task: Task) -> None:
    """Download into `file`, resuming an earlier attempt. The content is not verified here.

    Raises ImageNotAvailable, and LabError if the disk is too small.
    """
    with _explain_errors(url), httpx2.Client(timeout=TIMEOUT, follow_redirects=True) as client:
        for attempt in _retrying(task):
            with attempt:
                _resume(client, url, file, task)


def _retrying(task: Task) -> Retrying:
    def before_sleep(state: RetryCallState) -> None:
        assert state.outcome is not None
        assert state.next_action is not None
        error = state.outcome.exception()
        task.check()
        task.show(Progress(f"{describe(error)}; trying again in {state.next_action.sleep:.0f} s"))

    return Retrying(
        retry=retry_if_exception(_is_transient),
        stop=stop_after_attempt(TRIES),
        wait=WAIT,
        before_sleep=before_sleep,
        reraise=True,
    )


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, httpx2.HTTPStatusError):
        return error.response.status_code in TRANSIENT
    return isinstance(error, httpx2.NetworkError | httpx2.TimeoutException | httpx2.RemoteProtocolError)


@contextmanager
def _explain_errors(url: str) -> Iterator[None]:
    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        is_absent = isinstance(error, httpx2.HTTPStatusError) and error.response.status_code in ABSENT
        raise (NotPublished if is_absent else ImageNotAvailable)(
            f"{shorten_url(url)}: {describe(error)}",
            hint=f"check that {url} exists and answers, or import a disk: lab images import FILE --as GUEST",
        ) from error


def shorten_url(url: str) -> str:
    """Return a file's name and host, short enough for a cell of the table."""
    # Not urlsplit: this must work for invalid URLs too.
    return f"{url.rpartition('/')[2]} of {url.split('/')[2]}"


def describe(error: BaseException | None) -> str:
    """Describe a failed request in a few words."""
    if isinstance(error, httpx2.HTTPStatusError):
        return f"HTTP {error.response.status_code} {error.response.reason_phrase}".rstrip()
    # Drop the error number of system errors.
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__


def _resume(client: httpx2.Client, url: str, file: Path, task: Task) -> None:
    """Make one attempt: fetch the missing part, or the whole file from a server that sends no parts.

    If the server's file changed meanwhile, the whole does not have the digest that it must have.
    """
    have = file.stat().st_size if file.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with client.stream("GET", url, headers=headers) as response:
        if have and response.status_code == httpx2.codes.RANGE_NOT_SATISFIABLE:
            if response.headers.get("Content-Range") == f"bytes */{have}":
                return  # The file is complete: the lab was killed before verifying it.
            file.unlink()
            raise httpx2.RemoteProtocolError("the file on the server is shorter")
        response.raise_for_status()
        if response.status_code != httpx2.codes.PARTIAL_CONTENT:
            have = 0
        length = response.headers.get("Content-Length", "")
        missing = int(length) if length.isdecimal() else None
        check_room(file.parent, missing or 0, "the download")
        start, last_message, arrived = time.monotonic(), -SAY_SECONDS, 0
        try:
            with file.open("ab" if have else "wb") as stream:
                for chunk in response.iter_raw():
                    task.check()
                    stream.write(chunk)
                    arrived += len(chunk)
                    seconds = time.monotonic() - start
                    if seconds - last_message >= SAY_SECONDS:
                        last_message = seconds
                        text = describe_download(have, arrived, missing, seconds)
                        task.show(Progress(text, Activity.IMAGE, name="downloading"))
        except OSError as error:
            # The partial file cannot be completed and fills up the disk.
            file.unlink(missing_ok=True)
            raise LabError(
                f"downloading {url} failed and the partial file was deleted: {error.strerror}: {file.parent}",
                hint="free some disk space and run the same command again",
            ) from error


def describe_download(had: int, arrived: int, missing: int | None, seconds: float) -> str:
    """Describe how far a download is: it `had` some bytes, and `arrived` of the `missing` came in `seconds`."""
    rate = arrived / max(seconds, 0.001)
    text, speed = f"downloading: {(had + arrived) / 2**20:.0f}", f"{rate / 2**20:.1f} MiB/s"
    if missing is None:
        return f"{text} MiB, {speed}"
    total = had + missing
    seconds_to_come = (missing - arrived) / max(rate, 1)
    percent = 100 * (had + arrived) // max(total, 1)
    return f"{text} of {total / 2**20:.0f} MiB ({percent} %), {speed}, about {seconds_to_come:.0f} s left"


def check_room(folder: Path, needed: int, label: str) -> None:
    """Raise LabError if there is not enough room for so many bytes; `label` is to be put there."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise LabError(
            f"{label} needs {needed / 2**30:.1f} GiB free in {folder}; there are {free / 2**30:.1f}",
            hint="free some disk space and run the same command again",
        )


def find_unreachable_hosts(urls: Iterable[str]) -> dict[str, str]:
    """Return the hosts of these URLs that cannot be reached, each with the reason. All are asked once, at once.

    Any answer counts, an error too: what is wrong with one file says the download.
    """
    servers = {parts.netloc: f"{parts.scheme}://{parts.netloc}/" for parts in map(urlsplit, urls)}
    with ThreadPoolExecutor(max(1, len(servers))) as threads:
        reasons = dict(zip(servers, threads.map(_why_not_reached, servers.values()), strict=True))
    return {host: reason for host, reason in reasons.items() if reason}


def _why_not_reached(url: str) -> str:
    try:
        deadline = Deadline(REACH_SECONDS, "an answer")
        call_within(lambda: httpx2.head(url, timeout=REACH_SECONDS), deadline)
    except (DeadlineExpired, httpx2.TimeoutException):
        return f"no answer within {REACH_SECONDS:.0f} s"
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return describe(error)
    return ""
