"""A part as its host takes it, and what it sends back."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

pytest.importorskip("distributed")

from lab import __version__
from lab.base import archives
from lab.base.archives import DamagedArchive
from lab.fleet import results
from lab.fleet.messages import PartEnd
from lab.fleet.part import Part, PartRefused
from lab.record import RunOptions
from lab.run import backlog
from lab.run.backlog import Ticket
from lab.run.journal import Journal
from tests.builders.guests import base_image
from tests.builders.processes import run_main
from tests.builders.runs import KNOWN, PLAN, SMALL, begin, finish, make_wheel, names, own_definitions

OPTIONS = RunOptions(repeat=2)
IMAGE = base_image(Path("/store")).manifest
CELLS = [cell.folder for cell in SMALL]
BUILDS = [cell.build.name for cell in SMALL]
END = PartEnd(host="one", status=0, words="")
FILE = f"{CELLS[0]}/kernel.log"


@pytest.fixture
def part(tmp_path: Path) -> Part:
    begun = begin(tmp_path / "whole", PLAN, options=OPTIONS)
    journal = Journal(begun.folder, begun.cells, begun.info, {})
    return Part.of([Ticket(cell) for cell in begun.cells[:2]], journal, number=7, image=IMAGE)


def as_json(part: Part) -> dict[str, Any]:
    return part.model_dump(mode="json", by_alias=True)


def test_a_part_is_json_and_becomes_the_same_cells_on_another_host(tmp_path: Path, part: Part) -> None:
    read = Part.model_validate_json(part.model_dump_json())
    assert read == part
    planned = read.plan(tmp_path / "run", KNOWN)
    assert names(planned) == [cell.name for cell in PLAN[:2]]
    assert {cell.guest.only_image for cell in planned.cells} == {IMAGE.digest}
    assert (planned.info.options, planned.info.command) == (OPTIONS, "part 7 of run whole")


def test_other_definitions_are_refused(tmp_path: Path, part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    own = own_definitions(tmp_path, monkeypatch)
    seed = next(file for file in sorted((own / "cloud-init").iterdir()) if file.is_file())
    seed.write_text(seed.read_text() + "# changed\n")
    with pytest.raises(PartRefused, match="other definitions than the coordinator: seed"):
        part.plan(tmp_path / "run", KNOWN)


def test_a_host_without_a_guest_or_with_another_build_refuses(tmp_path: Path, part: Part) -> None:
    changed = as_json(part)
    changed["record"]["cells"][0]["guest"] = "plan9"
    with pytest.raises(PartRefused, match="this host lacks what the part needs: no guest is called 'plan9'"):
        Part.model_validate(changed).plan(tmp_path, KNOWN)
    changed = as_json(part)
    wheel = tmp_path / "boxlite-0.10.8-py3-none-any.whl"
    changed["record"]["run"]["builds"] = [make_wheel(wheel, "one").record().model_dump(mode="json")]
    make_wheel(wheel, "another")
    with pytest.raises(PartRefused, match=r"lacks what the part needs: .* 0.10.8@\w+"):
        Part.model_validate(changed).plan(tmp_path / "r", KNOWN)


def test_a_host_refuses_what_is_no_part_and_what_another_lab_sent(
    tmp_path: Path, part: Part, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    no_part = as_json(part) | {"form": "another"}
    other = as_json(part) | {"form": "another"}
    other["record"]["run"]["lab"] = "99.0"
    for text, reason in (
        ("", "this is not a part of a run"),
        (json.dumps(no_part), "form"),
        (json.dumps(other), f"the coordinator has lab 99.0, and this host has lab {__version__}"),
    ):
        (tmp_path / "part.json").write_text(text)
        assert run_main(monkeypatch, "part", tmp_path / "part.json", "-o", tmp_path / "run") == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert reason in " ".join(told.err.split())
    assert not (tmp_path / "run").exists()


def test_a_plan_is_cut_by_machine_and_by_typical_time() -> None:
    tickets = [Ticket(cell) for cell in PLAN]
    whole = backlog.cut_tickets(tickets, RunOptions(), 1e6)
    assert [{ticket.cell.guest.name for ticket in own} for own in whole] == [{"debian-12"}, {"debian-13"}]
    single = backlog.cut_tickets(tickets, RunOptions(), 1.0)
    assert [len(own) for own in single] == [1] * len(PLAN)
    assert sorted(ticket.cell.name for own in single for ticket in own) == sorted(cell.name for cell in PLAN)


# -- results


def packed(tmp_path: Path) -> bytes:
    finish(tmp_path / "run", begin(tmp_path / "run", SMALL))
    (tmp_path / "run" / CELLS[0] / "link").symlink_to("/etc/passwd")
    return results.pack_part(tmp_path / "run", END)


def made(*entries: tarfile.TarInfo | str, size: int = 4) -> bytes:
    """An archive with these entries, a text for those that are only named."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry) if isinstance(entry, str) else entry
            info.size = size if info.isreg() else 0
            tar.addfile(info, io.BytesIO(b"x" * size) if info.isreg() else None)
    return zstandard.compress(raw.getvalue())


def link(kind: bytes, to: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(FILE)
    info.type, info.linkname = kind, to
    return info


def test_record_and_evidence_arrive_as_they_were(tmp_path: Path) -> None:
    archive, where = packed(tmp_path), tmp_path / "target"
    result, end = results.unpack_part(archive, where, CELLS, BUILDS)
    assert ([cell.folder for cell in result.cells], end) == (CELLS, END)
    files = sorted(str(file.relative_to(where)) for file in where.rglob("*") if file.is_file())
    assert files == sorted(["results.json", "end.json", *(f"{folder}/kernel.log" for folder in CELLS)])
    assert (where / FILE).read_text() == (tmp_path / "run" / FILE).read_text()


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_one_that_is_cut_off_is_damaged(tmp_path: Path, kept: float) -> None:
    archive = packed(tmp_path)
    with pytest.raises(DamagedArchive):
        results.unpack_part(archive[: int(len(archive) * kept)], tmp_path / "target", CELLS, BUILDS)


@pytest.mark.parametrize(
    "bad",
    [
        *("/etc/cron.d/job", "../outside", f"{CELLS[0]}/../../../../../outside", "run.log", str(CELLS[0])),
        "cells/other-guest/stock/0.10.8/kernel.log",
        link(tarfile.SYMTYPE, "/etc/passwd"),
        link(tarfile.LNKTYPE, "results.json"),
        link(tarfile.FIFOTYPE, ""),
    ],
    ids=str,
)
def test_nothing_but_files_of_the_part_s_cells_is_unpacked(tmp_path: Path, bad: tarfile.TarInfo | str) -> None:
    with pytest.raises(DamagedArchive):
        results.unpack_part(made(bad), tmp_path / "target", CELLS, BUILDS)
    assert not (tmp_path / "outside").exists()


def test_what_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MOST_BYTES", 1000)
    with pytest.raises(DamagedArchive, match="more than"):
        results.unpack_part(made(FILE, size=2000), tmp_path / "target", CELLS, BUILDS)
    monkeypatch.setattr(archives, "MOST_FILES", 1)
    with pytest.raises(DamagedArchive, match="more than"):
        results.unpack_part(made(FILE, f"{FILE}.2"), tmp_path / "again", CELLS, BUILDS)


def test_a_result_of_other_cells_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(DamagedArchive):
        results.unpack_part(packed(tmp_path), tmp_path / "target", CELLS[:1], BUILDS)


def test_evidence_stands_beside_that_of_earlier_faults(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for folder, text in ((source, "new"), (target, "old")):
        (folder / "fault-1").mkdir(parents=True)
        for name in ("kernel.log", "fault-1/a"):
            (folder / name).write_text(text)
    (source / "remedies").mkdir()
    (source / "remedies/log").write_text("new")
    results.keep_evidence(source, target)
    kept = {str(file.relative_to(target)): file.read_text() for file in target.rglob("*") if file.is_file()}
    assert kept == {"kernel.log": "new", "fault-1/a": "old", "fault-2/a": "new", "remedies/log": "new"}
