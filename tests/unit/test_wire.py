import pickle
from typing import Any

import pytest

pytest.importorskip("distributed")

import msgpack
from distributed.protocol import to_serialize
from distributed.protocol.core import dumps
from distributed.protocol.serialize import ToPickle

from lab.fleet import wire
from lab.fleet.wire import NotPlain, Unexpected

RAN: list[str] = []


class Rogue:
    """An object that runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return RAN.append, ("unpickled",)


@pytest.fixture(autouse=True)
def nothing_ran() -> Any:
    RAN.clear()
    yield
    assert RAN == []


def test_plain_data_is_read() -> None:
    message = {"op": "x", "data": b"\0\1", "list": (1, 2.5, None, "text"), 3: {"deeper": True}, "set": {1, 2}}
    assert wire.read(dumps(message)) == message


@pytest.mark.parametrize("message", [ToPickle(Rogue()), [{"op": "x", "y": ToPickle(Rogue())}], {"x": Rogue()}])
def test_a_pickled_object_is_refused_wherever_it_is(message: Any) -> None:
    with pytest.raises(NotPlain, match="a pickled object"):
        wire.read(dumps(message))


def test_what_dask_serialized_is_left_out() -> None:
    assert wire.read(dumps({"op": "x", "value": to_serialize(Rogue())})) == {"op": "x", "value": None}


@pytest.mark.parametrize("frame", [b"", b"\xc1", pickle.dumps(Rogue())])
def test_what_is_no_message_is_refused(frame: bytes) -> None:
    with pytest.raises(NotPlain, match="no msgpack"):
        wire.read([frame])


REGISTRATION = {
    "op": "register-worker",
    "name": "one",
    "resources": {"lane": 1, "memory": 100.0},
    "nanny": "tls://x",
}


def test_what_a_worker_needs_to_say_passes() -> None:
    assert wire.check(REGISTRATION)["nanny"] is None
    assert wire.check({"op": "heartbeat_worker", "address": "x"}) == {"op": "heartbeat_worker", "address": "x"}
    said = ({"op": "keep-alive"}, {"op": "log-event", "topic": "x"}, {"op": "lab-event", "line": "{}"})
    assert wire.check(said) == (said[0], said[2])


@pytest.mark.parametrize(
    "op",
    [
        "run_function",
        "register-client",
        "register_scheduler_plugin",
        "gather",
        "terminate",
        "scatter",
        None,
        5,
        [],
    ],
)
def test_what_only_a_client_needs_to_say_is_refused(op: Any) -> None:
    with pytest.raises(Unexpected, match="which no host's worker makes"):
        wire.check({"op": op})


@pytest.mark.parametrize("op", ["update-graph", "cancel-keys", "register-worker", "long-running"])
def test_in_the_stream_of_a_worker_too(op: str) -> None:
    with pytest.raises(Unexpected):
        wire.check(({"op": "keep-alive"}, {"op": op}))


def test_what_a_worker_says_of_its_task_while_it_closes_is_no_refusal() -> None:
    said = ({"op": "reschedule", "key": "k", "stimulus_id": "worker-closing-1"}, {"op": "keep-alive"})
    assert wire.check(said) == (said[1],)


def test_what_dask_s_client_would_unpickle_is_taken_away() -> None:
    bad = pickle.dumps(Rogue())
    [finished] = wire.check([{"op": "task-finished", "key": "k", "type": bad, "worker": "another"}])
    assert finished == {"op": "task-finished", "key": "k", "type": b""}
    [erred] = wire.check(
        [{"op": "task-erred", "exception": bad, "traceback": bad, "exception_text": "no\x1b[2J disk"}]
    )
    assert erred == {
        "op": "task-erred",
        "exception": "no disk",
        "traceback": None,
        "exception_text": "no\x1b[2J disk",
    }


@pytest.mark.parametrize(
    "update",
    [{"name": "../one"}, {"name": None}, {"name": "a b"}, {"resources": None}, {"resources": {"lane": "1"}}],
)
def test_a_host_with_an_odd_name_or_odd_resources_is_refused(update: dict[str, Any]) -> None:
    with pytest.raises(Unexpected):
        wire.check({**REGISTRATION, **update})


def test_msgpack_is_what_dask_speaks() -> None:
    assert msgpack.loads(dumps({"op": "x"})[0]) == {"op": "x"}
