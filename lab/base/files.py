"""Files, full disks among them, text that comes from guests, and lists."""

import errno
import hashlib
import io
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from lab.base.errors import LabError, UsageError

# Escape sequences (ECMA-48) and all other control characters except tab and newline.
CONTROL = r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
# Characters that show nothing but change how other text is shown: marks that change its direction, characters
# without width, separators of lines and paragraphs, tags, and what no XML or UTF-8 file can hold.
INVISIBLE = (
    r"[\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)
HIDDEN = re.compile(f"{CONTROL}|{INVISIBLE}")
# What starts a command of GitHub's in a job's log: `::` at the start of a line, `##[` anywhere.
JOB_COMMAND = re.compile(r"^([^\S\n]*):(?=:)|##(?=\[)", re.MULTILINE)


def clean_text(text: str) -> str:
    """Remove from a guest's text what could control a terminal or make the text look like another."""
    # `HIDDEN.sub` keeps each piece between two matches as a text: 20 bytes for each one that was there.
    visible, end = io.StringIO(), 0
    for match in HIDDEN.finditer(text):
        visible.write(text[end : match.start()])
        end = match.end()
    return visible.getvalue() + text[end:] if end else text


def cut_text(text: str, most: int) -> str:
    """Cut a text to `most` characters; the end says how many are missing."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text) - most} more characters)"


def join_lines(text: str, most: int = sys.maxsize) -> str:
    """Make a guest's text one line that controls no terminal, cut to `most` characters."""
    return " ".join(clean_text(cut_text(text, most)).split())


def escape_commands(text: str) -> str:
    """Put a backslash into whatever would be a command to GitHub in a job's log."""
    return JOB_COMMAND.sub(lambda match: f"{match[1]}\\:" if match[1] is not None else "##\\", text)


def escape_markdown(text: object, most: int = 4000) -> str:
    """Escape a guest's text for a line or a cell of a table in Markdown, cut to `most` characters."""
    line = join_lines(str(text), most)
    # An entity such as &#x202e; would be one more way to write a mark that hides text.
    escaped = re.sub(r"([\\|`*\[\]~]|&(?=#|\w+;)|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", line)
    return escaped.replace("<", "&lt;")


def group_values[K, V](pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    """Return the values of each key, in their order."""
    groups: dict[K, list[V]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def hash_file(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    return compute_digest(path, "sha256")


def compute_digest(path: Path, algorithm: str) -> str:
    """Return a regular file's digest in hexadecimal; `algorithm` is one of hashlib's names. Raises OSError."""
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def open_regular(path: Path, flags: int = 0) -> BufferedReader:
    """Open a file that somebody else may have put there; `flags` are more of `os.open`. Raises OSError.

    A pipe would be waited for, and a device may never end, so anything but a regular file is refused.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "this is not a regular file", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: Path, most: int) -> bytes:
    """Read a file that somebody else may have put there, of at most `most` bytes. Raises OSError."""
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(
            errno.EFBIG, f"larger than {most / 2**20:.4g} MiB, the most that the lab reads", str(path)
        )
    return content


# A text may have so many values, and one more for each so many bytes. Measured: records, published results and
# histories have 27 to 60 bytes for each value. A megabyte of `{},` has 1.5.
MOST_VALUES, BYTES_PER_VALUE = 100_000, 16


def check_values(text: bytes | str, marks: str = ",[{") -> None:
    """Raise ValueError if a text has more values than data of its size has.

    `marks` are the characters that come before values.
    """
    count = sum(map(text.count, marks)) if isinstance(text, str) else sum(map(text.count, marks.encode()))
    most = MOST_VALUES + len(text) // BYTES_PER_VALUE
    if count > most:
        raise ValueError(f"expected at most {most} values in {len(text)} bytes, found about {count}")


def measure_size(path: Path) -> int:
    """The disk space a file or a folder takes, in bytes."""
    total = 0
    for file in path.rglob("*") if path.is_dir() else [path]:
        with suppress(FileNotFoundError):  # A lab that is at work in the folder removed it meanwhile.
            total += file.lstat().st_blocks * 512
    return total


def seal_folder(folder: Path) -> None:
    """Make a folder's files read-only. Call it before the folder is put in place."""
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o755)


def sync(*paths: Path) -> None:
    """Have the content of files, and the names in folders, on disk. Raises OSError."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sync_tree(folder: Path) -> None:
    """Have a folder and all that is below it on disk. Raises OSError."""
    inside = [path for path in folder.rglob("*") if not path.is_symlink()]
    sync(*(path for path in inside if path.is_file() or path.is_dir()), folder)


def put_in_place(source: Path, target: Path) -> None:
    """Rename a folder: after a power loss, too, nothing has the target's name, or all of it. Raises OSError."""
    sync_tree(source)
    source.rename(target)
    sync(target.parent)


# -- a full disk is expected: its error says where it is full, how much is free there, and how much is needed

# A file system without space, and a user's quota that is used up.
FULL = (errno.ENOSPC, errno.EDQUOT)
# Measured: up to 0.3 MiB for a cell and what was tried on it, and 1.1 MiB for the box's root file system.
A_RUN = "a run needs 2 MiB, and 1 MiB for each cell"
# Measured: the unpacked wheels of a build, 120 MiB.
A_BUILD = "a build on its way into a guest needs 150 MiB"
HINT = (
    "free some disk space and run the same command again; a run that has begun goes on with lab matrix --resume"
)


class DiskFull(LabError):
    """A file system of this host is full, or a quota is used up."""


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full."""
    return isinstance(error, OSError) and error.errno in FULL


def make_disk_full_error(error: OSError, folder: Path, needs: str) -> DiskFull:
    """The error to show for a full disk. `folder` is where it was written if the error itself names no file."""
    where = Path(error.filename or folder)
    return DiskFull(f"{error.strerror}: {where}: {format_free_space(where)}; {needs}", hint=HINT)


def format_free_space(path: Path) -> str:
    """How much space is left where a file or folder is, or would be."""
    folder = next(parent for parent in (path, *path.absolute().parents) if parent.is_dir())
    return f"{shutil.disk_usage(folder).free / 2**20:.0f} MiB are free in {folder}"


@contextmanager
def explain_full_disk(folder: Path, needs: str) -> Iterator[None]:
    """Raise DiskFull for an OSError of a block that writes into `folder` if its disk is full."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise make_disk_full_error(error, folder, needs) from error
        raise


def make_folder(folder: Path, hint: str = "choose another folder with -o DIR") -> None:
    """Create a folder that is written into: that of a run, unless `hint` says how to choose another one.

    Raises UsageError if that fails, DiskFull if the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if is_full(error):
            raise make_disk_full_error(error, folder, A_RUN) from error
        raise UsageError(f"cannot create the folder {folder}: {error.strerror}", hint=hint) from error
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write into the folder {folder}", hint=hint)


def write_atomically(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace a file's content in one step: after a crash it holds either the old or the new text.

    Nobody else can read it before it has its `mode`. An OSError names the file.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
        sync(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)
        raise


UNSAFE = re.compile(r"[^a-z0-9._+-]+")
# How names end that got a digest. Another name that ends like this gets one too, so that it stays another name.
DIGEST_END = re.compile(r"-[0-9a-f]{12}$")
LONGEST_NAME = 80  # characters; file systems allow 255 bytes


def make_slug(name: str) -> str:
    """Return a name as one part of a path: only characters that need no quoting, and never `.` or `..`.

    A name that has to be changed gets a digest, so that two names never become one, whether a file system tells
    capitals from small letters or not.
    """
    safe = UNSAFE.sub("-", name.lower()).lstrip(".-")[:LONGEST_NAME]
    if safe and safe == name and not DIGEST_END.search(name):
        return safe
    return f"{safe or '_'}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:12]}"
