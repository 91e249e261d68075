"""`lab list`, `lab matrix --list` and `lab remedies`: what there is, and what a run would do."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from lab import catalog, causes
from lab.catalog import remedies
from lab.cli import output
from tests.builders.processes import ONE_CELL, RunLab, rows_listed

pytestmark = pytest.mark.usefixtures("releases")


def test_list_shows_the_cells_and_makes_nothing(home: Path, run_lab: RunLab) -> None:
    printed = run_lab(0, "matrix", "--set", "quick", "-v", "max-userns-zero", "--list")
    lines = [line.split(maxsplit=4) for line in printed.splitlines()[1:]]
    assert [line[:2] for line in lines] == [[guest, "max-userns-zero"] for guest in ("debian-12", "debian-13")]
    assert "lab matrix -g debian-12 -v max-userns-zero" in printed
    assert not home.exists()


def test_a_list_tells_builds_apart(home: Path, run_lab: RunLab) -> None:
    printed = run_lab(0, *ONE_CELL, "--build", "0.10.0", "--build", "0.10.8", "--list")
    again = "lab matrix -g debian-13 -v stock --build"
    assert rows_listed(printed) == [
        ["guest", "variant", "build", "expected", "again"],
        ["debian-13", "stock", "0.10.0", "pass", f"{again} 0.10.0"],
        ["debian-13", "stock", "0.10.8", "pass", f"{again} 0.10.8"],
    ]


@pytest.mark.parametrize("what", ["guests", "variants", "sets", "suites", "cells", "causes"])
def test_no_line_of_a_list_is_cut_on_a_pipe(home: Path, run_lab: RunLab, what: str) -> None:
    printed = run_lab(0, "list", what)
    assert "\u2026" not in printed
    guests = catalog.load().guests.items()
    if what == "guests":
        assert rows_listed(printed) == [[name, guest.title, guest.image.origin] for name, guest in guests]
    if what == "causes":
        rows = [f"{name}: {cause.explanation}" for name, cause in causes.known().items()]
        assert printed.splitlines() == rows


def test_every_suite_is_listed_the_one_of_wheels_first(home: Path, run_lab: RunLab) -> None:
    suites = json.loads(run_lab(0, "list", "suites", "--json"))["suites"]
    filters = {suite["name"]: suite["filter"] for suite in suites}
    assert suites[0]["name"] == "jailer"
    assert (filters["upstream-jailer"], filters["npm"]) == ("binary(jailer)", None)
    lines = run_lab(0, "list", "suites").splitlines()
    assert "  suite=detach behind nextest:FILE or checkout:DIR runs binary(detach)" in lines
    assert "  all others need sandbox" in lines
    titles = [line for line in lines if not line.startswith(" ")]
    assert titles == [f"{suite['name']}: {suite['title']}" for suite in suites]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_rows_are_aligned_and_never_cut(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    out = StringIO()
    narrow = Console(file=out, width=20, force_terminal=is_terminal, color_system=None, highlight=False)
    monkeypatch.setattr(output, "console", narrow)
    output.print_rows([["name", "what it is"], ["[bold]a", "x" * 40 + " " + "語" * 20]])
    assert out.getvalue() == f"name     what it is\n[bold]a  {'x' * 40} {'語' * 20}\n"


def test_remedies_are_listed_with_what_they_give_up(home: Path, run_lab: RunLab) -> None:
    printed = run_lab(0, "remedies")
    names = [line.split()[0] for line in printed.splitlines() if line[:1].strip()]
    defined = list(remedies.load())
    assert names[: len(defined) + 1] == ["remedy", *defined]
    assert (printed.err, "userns-sysctl" in printed) == ("", True)


@pytest.mark.parametrize("name", remedies.load())
def test_a_remedy_is_shown_with_its_price_and_how_it_is_done(home: Path, run_lab: RunLab, name: str) -> None:
    remedy = remedies.find(name)
    printed = run_lab(0, "remedies", "show", name)
    assert printed.err == ""
    words = " ".join(printed.split())
    assert " ".join(remedy.price.split()) in words
    assert ", ".join(remedy.cures) in words
    how = remedy.host.apply if remedy.host else remedy.run.example if remedy.run else ""
    assert how.strip() in printed


def test_the_script_that_is_printed_is_the_one_that_the_lab_runs(home: Path, run_lab: RunLab) -> None:
    printed = run_lab(0, "remedies", "show", "userns-clone-on", "--script")
    assert printed == remedies.find("userns-clone-on").script()
