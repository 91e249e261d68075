"""Downloads files: resumes interrupted downloads and retries transient errors. Asks which servers are up."""

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from lab.base.activity import Activity, Step
from lab.base.errors import ImageNotAvailable, LabError, NotPublished

Say = Callable[[str], None]

# The statuses of a server that is overloaded or under maintenance:
# https://www.rfc-editor.org/rfc/rfc9110#section-15
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
# A server has no such file.
ABSENT = frozenset({404, 410})
TRIES = 4
WAIT = wait_exponential_jitter(initial=1, max=30)
# A connection on which no byte arrives for this long is dead.
TIMEOUT = httpx.Timeout(30.0)
SAY_SECONDS = 5.0
# Ubuntu's checksum files have a few KiB; a file larger than this is not a checksum file.
TEXT_LIMIT = 1 << 20
# How long a server may take to answer at all. Looking up a name has no limit of its own.
REACH_SECONDS = 5.0


def read(url: str, say: Say, *, only_https: bool = False) -> bytes:
    """Return the content of a small file. Raises NotPublished if there is none, and ImageNotAvailable.

    `only_https` refuses any step without encryption, except on this host.
    """
    with _explain_errors(url), httpx.Client(timeout=TIMEOUT, follow_redirects=True) as client:
        for attempt in _retrying(say):
            with attempt, client.stream("GET", url) as response:
                if only_https:
                    _refuse_plain(url, response)
                response.raise_for_status()
                return _read_limited(url, response)
    raise AssertionError("the last attempt raises its error")


def fetch(url: str, file: Path, say: Say) -> None:
    """Download into `file`, resuming an earlier attempt. The content is not verified here.

    Raises ImageNotAvailable, and LabError if the disk is too small.
    """
    with _explain_errors(url), httpx.Client(timeout=TIMEOUT, follow_redirects=True) as client:
        for attempt in _retrying(say):
            with attempt:
                _resume(client, url, file, say)


def _is_absent(error: Exception) -> bool:
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code in ABSENT


def forget(file: Path) -> None:
    """Delete a download, complete or partial."""
    file.unlink(missing_ok=True)
    _validator(file).unlink(missing_ok=True)


def _validator(file: Path) -> Path:
    """Return the file that holds the server's validator for the download: an ETag or a date."""
    return file.with_name(f"{file.name}.validator")


def _retrying(say: Say) -> Retrying:
    def before_sleep(state: RetryCallState) -> None:
        assert state.outcome is not None
        assert state.next_action is not None
        error = state.outcome.exception()
        say(f"{describe(error)}; trying again in {state.next_action.sleep:.0f} s")

    return Retrying(
        retry=retry_if_exception(_is_transient),
        stop=stop_after_attempt(TRIES),
        wait=WAIT,
        before_sleep=before_sleep,
        reraise=True,
    )


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in TRANSIENT
    return isinstance(error, httpx.NetworkError | httpx.TimeoutException | httpx.RemoteProtocolError)


@contextmanager
def _explain_errors(url: str) -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise (NotPublished if _is_absent(error) else ImageNotAvailable)(
            f"{short(url)}: {describe(error)}",
            hint=f"is {url} right and reachable? a disk from elsewhere: lab images import FILE --as GUEST",
        ) from error


def short(url: str) -> str:
    """Return a file's name and host, short enough for a cell of the table."""
    # Not urlsplit: this must work for invalid URLs too.
    return f"{url.rpartition('/')[2]} of {url.split('/')[2]}"


def describe(error: BaseException | None) -> str:
    """Describe a failed request in a few words."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"HTTP {error.response.status_code} {error.response.reason_phrase}".rstrip()
    # Drop the error number of system errors.
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__


def _refuse_plain(url: str, response: httpx.Response) -> None:
    for step in (*response.history, response):
        if step.url.scheme != "https" and step.url.host != "127.0.0.1":
            raise ImageNotAvailable(
                f"{short(url)}: {step.url.host} sent it without encryption, so anybody could change it"
            )


def _read_limited(url: str, response: httpx.Response) -> bytes:
    data = b""
    for chunk in response.iter_bytes():
        data += chunk
        if len(data) > TEXT_LIMIT:
            raise ImageNotAvailable(f"{short(url)}: larger than {TEXT_LIMIT} bytes, so not a checksum file")
    return data


def _resume(client: httpx.Client, url: str, file: Path, say: Say) -> None:
    """Make one attempt: fetch the missing part if the server's file is unchanged, else the whole file."""
    have, headers = _range(file)
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            if response.headers.get("Content-Range") == f"bytes */{have}":
                return  # The file is complete: the lab was killed before verifying it.
            forget(file)
            raise httpx.RemoteProtocolError("the file on the server changed")
        response.raise_for_status()
        if response.status_code == httpx.codes.PARTIAL_CONTENT:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                forget(file)
                raise httpx.RemoteProtocolError("the server did not send the requested range")
        else:
            have = 0
        _write(response, file, have, say)


def _range(file: Path) -> tuple[int, Mapping[str, str]]:
    """Return how many bytes of the file exist, and the headers that request the rest.

    https://www.rfc-editor.org/rfc/rfc9110#field.if-range
    """
    plain = {"Accept-Encoding": "identity"}
    try:
        have, validator = file.stat().st_size, _validator(file).read_text()
    except FileNotFoundError:
        return 0, plain
    if not have or not validator:
        return 0, plain
    return have, {**plain, "Range": f"bytes={have}-", "If-Range": validator}


def _write(response: httpx.Response, file: Path, have: int, say: Say) -> None:
    length = response.headers.get("Content-Length", "")
    total = have + int(length) if length.isdecimal() else None
    check_room(file.parent, (total or have) - have, "the download")
    progress = _Progress(say, have, total)
    try:
        if have == 0:
            # Before the new validator is written, so that it never belongs to the old bytes.
            forget(file)
            _validator(file).write_text(_validator_of(response))
        with file.open("ab") as stream:
            for chunk in response.iter_raw():
                stream.write(chunk)
                progress.add(len(chunk))
    except OSError as error:
        # The partial file cannot be completed and fills up the disk.
        forget(file)
        raise LabError(
            f"downloading {response.url} failed and the partial file was deleted: "
            f"{error.strerror}: {file.parent}",
            hint="free some disk space and run the same command again",
        ) from error


def _validator_of(response: httpx.Response) -> str:
    """Return the response's strong ETag, else its date: a range cannot be requested with a weak ETag."""
    tag = str(response.headers.get("ETag", ""))
    return tag if tag.startswith('"') else str(response.headers.get("Last-Modified", ""))


def check_room(folder: Path, needed: int, what: str) -> None:
    """Raise LabError if there is not enough room for so many bytes; `what` is to be put there."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise LabError(
            f"{what} needs {needed / 2**30:.1f} GiB free in {folder}; there are {free / 2**30:.1f}",
            hint="free some disk space and run the same command again",
        )


class _Progress:
    """Reports the progress of a download every few seconds."""

    def __init__(self, say: Say, have: int, total: int | None) -> None:
        self._say = say
        self._first = self._have = have
        self._total = total
        self._start = time.monotonic()
        self._said = -SAY_SECONDS

    def add(self, count: int) -> None:
        self._have += count
        spent = time.monotonic() - self._start
        if spent - self._said >= SAY_SECONDS:
            self._said = spent
            text = progress(self._have, self._total, self._have - self._first, spent)
            self._say(Step(text, Activity.IMAGE, name="downloading"))


def progress(have: int, total: int | None, lately: int, seconds: float) -> str:
    """Describe how far a download is, its speed and the time left; `lately` bytes arrived in `seconds`."""
    rate = lately / max(seconds, 0.001)
    text = f"downloading: {have / 2**20:.0f}"
    if total:
        text += f" of {total / 2**20:.0f} MiB ({100 * have // total} %), {rate / 2**20:.1f} MiB/s"
        return f"{text}, about {(total - have) / max(rate, 1):.0f} s left"
    return f"{text} MiB, {rate / 2**20:.1f} MiB/s"


def unreachable(urls: Iterable[str]) -> dict[str, str]:
    """Return the hosts of these URLs that cannot be reached, each with the reason. All are asked once, at once.

    Any answer counts, an error too: what is wrong with one file says the download.
    """
    servers = {parts.netloc: f"{parts.scheme}://{parts.netloc}/" for parts in map(urlsplit, urls)}
    reasons = dict.fromkeys(servers, f"no answer within {REACH_SECONDS:.0f} s")
    threads = [
        threading.Thread(target=_ask, args=(host, url, reasons), daemon=True) for host, url in servers.items()
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + REACH_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return {host: reason for host, reason in dict(reasons).items() if reason}


def _ask(host: str, url: str, reasons: dict[str, str]) -> None:
    try:
        httpx.head(url, timeout=REACH_SECONDS)
        reasons[host] = ""
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reasons[host] = describe(error)
