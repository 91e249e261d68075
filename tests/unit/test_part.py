import json
from pathlib import Path
from typing import Any

import pytest

from lab import __version__
from lab.fleet.part import Part, Refused
from lab.record import RunOptions
from tests.unit.run_examples import KNOWN, PLAN, make_wheel, names, own_definitions

OPTIONS = RunOptions(repeat=2)


@pytest.fixture
def part() -> Part:
    return Part.of("20261127-1", 7, PLAN[:2], OPTIONS, offline=True)


def changed(part: Part, **update: Any) -> str:
    return json.dumps({**json.loads(part.model_dump_json()), **update})


def test_a_part_is_json_and_becomes_the_same_cells_on_another_host(tmp_path: Path, part: Part) -> None:
    read = Part.read(part.model_dump_json())
    assert read == part
    planned = read.plan(tmp_path, KNOWN)
    assert names(planned) == [cell.name for cell in PLAN[:2]]
    assert (planned.info.options, planned.info.command) == (OPTIONS, "part 7 of run 20261127-1")


def test_a_host_with_another_lab_refuses(part: Part) -> None:
    with pytest.raises(Refused, match=f"the coordinator is lab 99.0, and this host has lab {__version__}"):
        Part.read(changed(part, lab="99.0", something_newer=1))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "this is no part of a run: EOF"),
        ("[]", "this is no part of a run: "),
        (b"\xff", "this is no part of a run: "),
        ('{"format": 2}', "this is no part of a run: "),
    ],
)
def test_what_is_no_part_is_refused(text: str | bytes, told: str) -> None:
    with pytest.raises(Refused, match=told):
        Part.read(text)


def test_a_host_with_other_definitions_refuses_and_names_them(
    tmp_path: Path, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = own_definitions(tmp_path, monkeypatch)
    seed = next(file for file in sorted((own / "cloud-init").iterdir()) if file.is_file())
    seed.write_text(seed.read_text() + "# changed\n")
    with pytest.raises(Refused, match="other definitions than the coordinator, not as in the run: seed"):
        part.plan(tmp_path / "run", KNOWN)


@pytest.mark.parametrize(
    ("update", "told"),
    [({"guest": "plan9"}, "no guest is called 'plan9'"), ({"variant": "odd"}, "no variant is called 'odd'")],
)
def test_a_host_without_a_definition_refuses(
    tmp_path: Path, part: Part, update: dict[str, str], told: str
) -> None:
    cells = [{**part.cells[0].model_dump(), **update}]
    with pytest.raises(Refused, match=f"this host lacks what the part needs: {told}"):
        Part.read(changed(part, cells=cells)).plan(tmp_path, KNOWN)


def test_a_host_whose_build_has_other_content_refuses(tmp_path: Path, part: Part) -> None:
    wheel = tmp_path / "boxlite-0.10.8-py3-none-any.whl"
    build = make_wheel(wheel, "one")
    cells = [{**part.cells[0].model_dump(), "argument": str(wheel), "build": build.name}]
    make_wheel(wheel, "another")
    with pytest.raises(Refused, match=rf"is 0.10.8@\w+ here, and {build.name} in the run"):
        Part.read(changed(part, cells=cells)).plan(tmp_path / "run", KNOWN)
