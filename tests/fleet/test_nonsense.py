"""What a host says that makes no sense costs its part a try, and the host its place; the run goes on."""

import io
import json
import math
import tarfile
import threading
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

pytest.importorskip("distributed")

from lab.base.wait import Deadline, wait_for
from lab.fleet.part import Part
from lab.record import RESULTS_FILE, Status
from tests.builders.processes import SECONDS
from tests.builders.runs import SMALL
from tests.fleet.dialled import OFFERS, Answer, archive_of, close_worker, decides, dialling, files_of
from tests.fleet.examples import Fleet

pytestmark = pytest.mark.timeout(120)
Change = Callable[[Part, dict[str, bytes]], Any]


def result(change: Change) -> Answer:
    """The answer of a host whose result is changed."""
    return lambda sent, _tell: change(sent, files_of(sent, "bad"))


def told(*messages: Any) -> Answer:
    """The answer of a host that tells this of its part, whose result is whole."""

    def answer(sent: Part, tell: Callable[[Any], None]) -> bytes:
        for message in messages:
            tell({"part": sent.number, **message} if isinstance(message, dict) else message)
        return archive_of(files_of(sent, "bad"))

    return answer


def file_of(sent: Part, name: str, **more: Any) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(f"{sent.record.cells[0].folder}/{name}")
    for key, value in more.items():
        setattr(entry, key, value)
    return entry


def chained(_sent: Part, files: dict[str, bytes]) -> bytes:
    """Headers of which each says that the next one has a long name."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2
    block = header.tobuf(tarfile.GNU_FORMAT) + b"a\0".ljust(512, b"\0")
    return zstandard.compress(block * 1500 + zstandard.decompress(archive_of(files), 1 << 26))


def named_in_bytes(sent: Part, files: dict[str, bytes]) -> bytes:
    """A file whose name is no UTF-8."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in [(f"{sent.record.cells[0].folder}/\udcff", b""), *files.items()]:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return zstandard.compress(packed.getvalue())


def with_record(change: Callable[[dict[str, Any]], None]) -> Change:

    def changed(_sent: Part, files: dict[str, bytes]) -> bytes:
        record = json.loads(files[RESULTS_FILE])
        change(record)
        return archive_of(files | {RESULTS_FILE: json.dumps(record).encode()})

    return changed


def of_another_name(record: dict[str, Any]) -> None:
    """A cell whose guest is another one, although its folder is the same."""
    record["cells"][0] |= {"guest": f"{record['cells'][0]['guest']}/stock", "variant": "."}


BUILD = {"name": "9.9", "version": "9.9", "source": "PyPI"}
RESULTS: dict[str, Change] = {
    "a folder 990 deep": lambda sent, files: archive_of(files, file_of(sent, "d/" * 990 + "x")),
    "1,500 chained headers": chained,
    "a time of inf": lambda sent, files: archive_of(files, file_of(sent, "x", pax_headers={"mtime": "inf"})),
    "a path too long": lambda sent, files: archive_of(files, file_of(sent, "x" * 5000)),
    "a build that the plan lacks": with_record(lambda record: record["run"]["builds"].append(BUILD)),
    "an empty end": lambda _sent, files: archive_of(files | {"end.json": b"{}"}),
    "nothing": lambda _sent, _files: None,
    "a text": lambda _sent, _files: "passed",
    "a name that is no text": named_in_bytes,
    "what cannot be unpickled": lambda _sent, _files: Unreadable(),
}


class Unreadable:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("1/0",)


EVENTS: dict[str, Any] = {
    "an event without lane": {"kind": "lane", "text": "x"},
    "an event without text": {"kind": "lane", "lane": "a"},
    "an unknown activity": {"kind": "lane", "lane": "a", "text": "x", "activity": "sleep", "name": "x"},
    "a prediction that says nothing": {"kind": "prediction", "cell": "a"},
    "an unknown kind": {"kind": "sleeps"},
    "an image without files": {"kind": "prepared", "folder": "/x", "image": {}},
    "an image without folder": {"kind": "lacks image"},
}


@pytest.mark.parametrize(
    "bad",
    [
        *(pytest.param(result(change), id=name) for name, change in RESULTS.items()),
        *(pytest.param(told(event), id=name) for name, event in EVENTS.items()),
    ],
)
def test_nonsense_is_a_fault_of_its_part_on_that_host_which_is_shut_out_after_two(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, bad: Answer
) -> None:
    is_over = threading.Event()

    def good(sent: Part, tell: Callable[[Any], None]) -> Any:
        is_over.wait(60)
        return decides("good")(sent, tell)

    with dialling(fleet, monkeypatch, most_seconds=1.0) as hosts:
        hosts.add("good", good)
        hosts.run.told.wait(lambda: hosts.run.told.noted("good joined"))
        hosts.add("bad", bad)
        refused = "bad gets no more parts: its lab failed 2 times"
        wait_for(
            lambda: hosts.run.told.noted(refused) or hosts.run.error, Deadline(SECONDS, refused), interval=0.05
        )
        is_over.set()
        run = hosts.run.finish()
        assert {cell.status for cell in run.cells} == {Status.PASS}
        assert sorted(len(cell.history.retried) for cell in run.cells) == [0] * (len(run.cells) - 2) + [1, 1]
        assert {cell.history.lane.partition(":")[0] for cell in run.cells} == {"good"}


def test_a_host_says_what_the_probes_expect_of_cells_of_its_part_alone(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [cell.name for cell in SMALL]
    foreseen = [{"kind": "prediction", "cell": name, "says": "works"} for name in (*cells, "another/cell/1")]
    with dialling(fleet, monkeypatch, SMALL) as hosts:
        hosts.add("good", told({"kind": "begins"}, *foreseen))
        hosts.run.finish()
        assert sorted(hosts.run.told.predictions) == [(name, "~ works") for name in sorted(cells)]


NO_PARTS: dict[str, list[Any]] = {
    "no number": [{"kind": "note", "text": "x", "part": "\x1b[2J"}] * 2,
    "a part that is not there": [{"kind": "lane", "part": 99}] * 2,
}
NO_EVENTS: dict[str, list[Any]] = {"a list": [["lane"]], "no JSON": ["{"], "nothing": [None], "a number": [7]}


@pytest.mark.parametrize("messages", [*NO_PARTS.values(), *NO_EVENTS.values()], ids=[*NO_PARTS, *NO_EVENTS])
def test_nonsense_of_no_part_costs_no_cell_a_try(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, messages: list[Any]
) -> None:
    with dialling(fleet, monkeypatch, SMALL, most_seconds=1.0) as hosts:
        hosts.add("bad", told(*messages))
        run = hosts.run.finish()
        has_part = messages in NO_PARTS.values()
        assert hosts.run.told.noted("bad sent something that the lab does not understand: ") == has_part
        assert not hosts.run.told.noted("gets no more parts")  # There is no other.
    assert {(cell.status, len(cell.history.retried)) for cell in run.cells} == {(Status.PASS, 0)}


@pytest.mark.parametrize(
    ("name", "offers", "fault"),
    [
        pytest.param("bad", {"memory": math.inf}, "resources.memory: Input should be", id="memory=inf"),
        pytest.param("bad", {"memory": math.nan}, "resources.memory: Input should be", id="memory=nan"),
        pytest.param("bad", {"lane": -1.0}, "resources.lane: Input should be", id="lane=-1"),
        pytest.param("\x1b[2Jbad", {}, "name: String should match", id="a name with control characters"),
        pytest.param("b" * 500, {}, "name: String should match", id="a name too long"),
    ],
)
def test_a_host_whose_name_or_offer_makes_no_sense_is_shut_out(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, name: str, offers: dict[str, float], fault: str
) -> None:
    with dialling(fleet, monkeypatch, SMALL, leave=close_worker) as hosts:
        hosts.add(name, lambda _sent, _tell: None, OFFERS | offers)
        hosts.run.told.wait(lambda: hosts.run.told.noted("make no sense: " + fault))
        [note] = [note for note in hosts.run.told.notes if "make no sense" in note]
        assert note.startswith("tls://127.0.0.1:")
        assert note.isprintable()
        hosts.run.told.wait(lambda: hosts.run.told.noted(" has gone"))
        hosts.add("good", decides("good"))
        run = hosts.run.finish()
    assert {cell.status for cell in run.cells} == {Status.PASS}
    assert run.run.host_names == ["good"]
