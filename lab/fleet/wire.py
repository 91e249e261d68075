"""What the coordinator takes from a host: plain data in messages of a few kinds. Nothing of it is unpickled.

dask's own transport unpickles whatever a message marks as pickled, and its scheduler takes calls from any peer
that make it run code. So the coordinator reads messages with the reader of this module, and passes on only
those that a host's worker has to send.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgpack
from distributed.comm import tcp
from distributed.comm.core import Comm, CommClosedError

from lab.base.errors import LabError
from lab.base.files import bounded, plain
from lab.catalog import NAME

# Calls and messages of the lab's own, beside those of dask's.
EVENT = "lab-event"
CHUNK = "lab_chunk"
END = "lab_end"
STOP = "lab-stop"
# A host asks for a chunk of an image; it is asked for one, and sends it.
IMAGE = "lab_image"
SEND_IMAGE = "lab-send-image"
IMAGE_SENT = "lab_image_sent"

# What a host may call, and what its worker may say in the stream of messages that follows its registration.
CALLS = {"register-worker", "heartbeat_worker", CHUNK, END, IMAGE, IMAGE_SENT}
MESSAGES = {
    "task-finished",
    "task-erred",
    "release-worker-data",
    "worker-status-change",
    "keep-alive",
    "close-stream",
    EVENT,
}
# What dask's worker also says and nobody needs: `reschedule` is of a task that ran when the worker closed.
IGNORED = {"log-event", "request-refresh-who-has", "reschedule"}
LONGEST_ERROR = 2_000
# What a host may say of its images when it joins, in characters.
LONGEST_IMAGES = 1 << 20


class NotPlain(EOFError):
    """A message holds more than plain data. dask's transport ends the connection after an EOFError."""


class Unexpected(CommClosedError):
    """A peer called for what no host's worker needs."""


def read(frames: list[Any]) -> Any:
    """Read a message as plain data; what dask serialized is None. Raises NotPlain for a pickled object."""
    try:
        return msgpack.loads(frames[0], object_hook=_plain, use_list=False, strict_map_key=False)
    except NotPlain:
        raise
    except Exception as error:
        raise NotPlain(f"a message that is no msgpack: {error}") from error


def _plain(entry: dict[Any, Any]) -> Any:
    if "__Pickled__" in entry:
        raise NotPlain("a message with a pickled object")
    if "__Serialized__" in entry or "__Enum__" in entry:
        return None
    return set(entry["as-list"]) if "__Set__" in entry else entry


def read_plain_messages(refused: Callable[[str], None]) -> None:
    """From now on, read all messages of this process's connections as plain data; `refused` is told of others.

    Raises LabError if this dask has no place for that.
    """
    if not hasattr(tcp, "from_frames"):
        raise LabError(
            "this version of dask.distributed reads messages in a way that the lab does not know",
            hint="install the versions in requirements/hosts.txt",
        )

    async def from_frames(frames: list[Any], **_options: Any) -> Any:
        try:
            return read(frames)
        except NotPlain as error:
            refused(str(error))
            raise

    tcp.from_frames = from_frames


def guard(comm: Comm, refused: Callable[[str], None]) -> Comm:
    """Let only what a host's worker has to say come out of a connection. `refused` is told of anything else."""
    read_message = comm.read

    async def read_checked(deserializers: Any = None) -> Any:
        try:
            return check(await read_message(deserializers))
        except Unexpected as error:
            refused(str(error))
            comm.abort()
            raise

    comm.read = read_checked
    return comm


def check(message: Any) -> Any:
    """A call, or messages of a stream, without what only its sender may read. Raises Unexpected."""
    if isinstance(message, tuple | list):
        return tuple(_checked(each, MESSAGES) for each in message if _op(each) not in IGNORED)
    if _op(message) in MESSAGES:
        return _checked(message, MESSAGES)
    return _checked(message, CALLS)


def _op(message: Any) -> Any:
    op = message.get("op") if isinstance(message, Mapping) else None
    return op if isinstance(op, str) else None


def _checked(message: Any, known: set[str]) -> dict[str, Any]:
    op = _op(message)
    if op not in known:
        raise Unexpected(f"a call of {bounded(plain(repr(op)), 60)}, which no host's worker makes")
    found = {str(key): value for key, value in message.items()}
    if op in MESSAGES:
        found.pop("worker", None)  # dask says which worker it is; the message must not.
    match op:
        case "register-worker":
            _check_registration(found)
        case "task-finished":
            # dask's client would unpickle the type.
            found["type"] = b""
        case "task-erred":
            # And the exception, even if it is plain bytes.
            text = found.get("exception_text")
            found["exception"] = bounded(plain(str(text)), LONGEST_ERROR)
            found["traceback"] = None
    return found


def _check_registration(call: dict[str, Any]) -> None:
    name, resources = call.get("name"), call.get("resources")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise Unexpected(f"a host with the name {bounded(plain(repr(name)), 60)}")
    if not isinstance(resources, dict) or not all(
        isinstance(value, int | float) and 0 <= value < 2**40 for value in resources.values()
    ):
        raise Unexpected(f"{name} with resources that are no numbers")
    extra = call.get("extra")
    images = extra.get("images") if isinstance(extra, Mapping) else None
    known = {"images": images} if isinstance(images, str) and len(images) <= LONGEST_IMAGES else {}
    call["nanny"], call["services"], call["extra"] = None, {}, known
