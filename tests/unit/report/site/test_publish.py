"""`lab publish`: a site's folder is replaced as a whole or left as it was; what may go into it."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from click.testing import CliRunner

from lab.base.errors import UsageError
from lab.check import results
from lab.check.results import Source
from lab.cli import cli
from lab.record import Status
from lab.report.site import model
from lab.report.site import publish as publishing
from lab.report.site.model import HISTORY_FILE, History, Site
from lab.report.site.page import Page, make_stand_in
from lab.report.site.publish import publish_site
from tests.browser import records
from tests.builders.cells import cell as a_cell
from tests.builders.facts import facts as a_facts
from tests.builders.output import Parsed, pages, run_folder, site_of
from tests.builders.runs import run_of


def everything(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    passed = a_cell("debian-12", facts=a_facts())
    failed = a_cell("debian-12", "max-userns-zero", status=Status.XFAIL, cause="userns-limit")
    return run_folder(tmp_path, passed, failed, name="old-run")


def test_the_command_makes_a_site_and_says_where(tmp_path: Path, old_run: Path) -> None:
    done = CliRunner().invoke(cli, ["publish", str(old_run), "-o", str(tmp_path / "site")])
    assert done.exit_code == 0, done.output
    assert done.output == f"site: {tmp_path / 'site' / 'index.html'}\n"
    assert (tmp_path / "site" / "index.html").is_file()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with everything that a record may hold, and hostile text in all of it."""
    return records.publish(tmp_path_factory.mktemp("whole"))


def test_every_page_has_the_policy_and_names_only_files_of_the_site(whole: Path) -> None:
    targets = {page: Parsed(page) for page in pages(whole)}
    assert targets
    for page, parsed in targets.items():
        [policy] = [meta for meta in parsed.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
        assert str(policy["content"]).startswith("default-src 'none'; script-src 'self';")
        for address in [*parsed.attributes("href"), *parsed.attributes("src")]:
            path, _, part = address.partition("#")
            assert ":" not in path and not path.startswith("/"), address
            target = (page.parent / unquote(path)).resolve() if path else page
            assert target.is_file() and target.is_relative_to(whole.resolve()), f"{page}: {address}"
            if part and "=" not in part:  # With =, it is a choice of filters.
                assert unquote(part) in targets[target].attributes("id"), f"{page}: {address}"
        # No text of a record becomes markup, or controls or hides what is shown.
        assert not parsed.of("img")
        assert not {"\u202e", "\x1b"} & set(page.read_text())
        # What has another type is data: no browser runs it.
        scripts = [script for script in parsed.of("script") if script.get("type") != "application/json"]
        assert all("src" in script for script in scripts)
        names = {name for _, attributes in parsed.elements for name in attributes}
        assert not [name for name in names if name.startswith("on") or name == "style"]


def hidden(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if entry.name.startswith(".")]


def test_a_site_is_replaced_as_a_whole(tmp_path: Path, old_run: Path) -> None:
    # An empty folder is taken, and what a killed lab left beside it is deleted.
    (tmp_path / "site").mkdir()
    (tmp_path / ".site.publish-abc" / "site").mkdir(parents=True)
    site = site_of(tmp_path, a_cell(evidence=["cells/debian-13/stock/0.10.8/suite.log"]))
    assert list(site.rglob("suite.log.txt"))
    publish_site([old_run], site)
    assert not list(site.rglob("suite.log.txt"))
    assert hidden(tmp_path) == []


def small_site(base: Path) -> Path:
    """A site of an earlier `lab publish`, with a page and its history."""
    site = base / "site"
    site.mkdir()
    (site / "index.html").write_text("old")
    (site / HISTORY_FILE).write_text(History(entries=["index.html"]).model_dump_json(by_alias=True))
    return site


def test_a_site_is_left_if_making_fails(tmp_path: Path, old_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_site: Site) -> Iterator[Page]:
        yield make_stand_in("half.html", "Half", "x")
        raise RuntimeError("no such template")

    site = small_site(tmp_path)
    before = everything(site)
    monkeypatch.setattr(publishing, "PARTS", [*publishing.PARTS, broken])
    with pytest.raises(Exception, match="no such template"):
        publish_site([old_run], site)
    assert everything(site) == before
    assert hidden(tmp_path) == []


def test_a_site_can_be_replaced_where_folders_cannot_be_exchanged(
    tmp_path: Path, old_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoExchange:
        def renameat2(self, *_: object) -> int:
            return -1

    site = small_site(tmp_path)
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: NoExchange())
    publish_site([old_run], site)
    history = History.model_validate_json((site / HISTORY_FILE).read_bytes())
    assert {seen.run for seen in history.shown} == {"old-run"}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("site/CNAME", "example.org", "files that it did not make: CNAME"),
        ("site/history.json", "{", "history.json: Invalid JSON: "),
        ("site/history.json", '{"format": "something else"}', "history.json: format: "),
        ("site/history.json", '{"schema": 9}', "history.json has version 9 of its format, "),
        ("site/history.json", '{"shown": [{"guest": "x"}]}', "history.json: shown.0.variant: "),
        (
            "old-run/results.json",
            '{"schema": 2, "run": {',
            "results.json is not a record that this lab can read: ",
        ),
        (
            "old-run/results.json",
            '{"schema": 99, "run": {}, "cells": []}',
            "results.json has version 99 of its format, ",
        ),
    ],
)
def test_what_cannot_be_read_or_is_not_the_lab_s_leaves_the_site_as_it_was(
    tmp_path: Path, old_run: Path, file: str, content: str, message: str
) -> None:
    site = small_site(tmp_path)
    (tmp_path / file).write_text(content)
    before = everything(site)
    with pytest.raises(UsageError) as raised:
        publish_site([old_run], site)
    assert message in str(raised.value)
    assert str((tmp_path / file).parent) in str(raised.value)
    assert everything(site) == before


def test_a_folder_that_is_no_site_is_left_alone(tmp_path: Path, old_run: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "thesis.tex").write_text("years of work")
    for folder in ("site", "site/thesis.tex"):
        with pytest.raises(UsageError):
            publish_site([old_run], tmp_path / folder)
    assert everything(tmp_path / "site") == {"thesis.tex": b"years of work"}


def test_an_empty_run_and_a_run_named_twice_are_refused(tmp_path: Path) -> None:
    empty = run_folder(tmp_path, name="empty")
    with pytest.raises(UsageError, match="cells: the run has none"):
        publish_site([empty], tmp_path / "site")
    run = run_folder(tmp_path, a_cell())
    with pytest.raises(UsageError, match="are both run run"):
        publish_site([run, run], tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_the_newest_result_that_says_something_is_published() -> None:
    def source(day: int, status: Status, **more: Any) -> Source:
        run = run_of(a_cell(status=status, **more))
        started = {"id": str(day), "started": datetime(2026, 11, day, tzinfo=UTC)}
        return Source(run.model_copy(update={"run": run.run.model_copy(update=started)}), Path(str(day)))

    sources = [source(3, Status.ERROR), source(2, Status.PASS), source(1, Status.FAIL)]
    [result] = results.choose_newest_results(sources).cells.values()
    assert result.cell.status is Status.PASS
    assert [source.folder.name for _, source in result.later] == ["3"]
    [result] = results.choose_newest_results(sources[:1]).cells.values()
    assert result.cell.status is Status.ERROR
    # A user who cannot build the guest learned nothing of the cell; a guest that was asked decides it.
    for more, newest in ({}, Status.PASS), ({"facts": a_facts()}, Status.NOT_APPLICABLE):
        sources = [source(3, Status.NOT_APPLICABLE, **more), source(2, Status.PASS)]
        [result] = results.choose_newest_results(sources).cells.values()
        assert result.cell.status is newest


def test_evidence_never_becomes_a_page_of_the_site(tmp_path: Path) -> None:
    folder = "cells/debian-13/stock/0.10.8"
    files = [f"{folder}/{name}" for name in ("x.html", "x.svg", "boxlite/a b.js", "plain", "plain.txt")]
    site = site_of(tmp_path, a_cell(evidence=files))
    copies = sorted(path.relative_to(site / "evidence") for path in (site / "evidence").rglob("*.*"))
    names = [path.name for path in copies if (site / "evidence" / path).is_file()]
    assert all(name.endswith(".txt") for name in names)
    assert {"x.html.txt", "x.svg.txt", "plain.txt", "plain.txt.txt"} < set(names) and len(names) == 5


def test_only_regular_files_inside_the_run_are_copied_and_the_rest_is_named(tmp_path: Path) -> None:
    folder = "cells/debian-13/stock/0.10.8"
    names = ["good.log", "link", "pipe", "linked/secret", "gone", "large.log"]
    cell = a_cell(evidence=[*(f"{folder}/{name}" for name in names), "../secret", "/etc/hostname"])
    run = tmp_path / "run"
    (run / folder).mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (run / folder / "good.log").write_text("good")
    (run / folder / "large.log").write_text("x" * 100)
    (run / folder / "link").symlink_to(tmp_path / "secret")
    (run / folder / "linked").symlink_to(tmp_path)
    os.mkfifo(run / folder / "pipe")
    source = Source(run_of(cell), run)
    [planned] = model.plan_evidence(results.choose_newest_results([source]).cells.values(), largest=50).values()
    assert [file.name for file in planned.files] == ["good.log"]
    assert planned.left_out.keys() == {*names, "../secret", "/etc/hostname"} - {"good.log"}
    assert planned.left_out["large.log"].startswith("larger than ")
    [planned] = model.plan_evidence(results.choose_newest_results([source]).cells.values(), total=3).values()
    assert not planned.files and "evidence already" in planned.left_out["good.log"]


def test_evidence_whose_names_collide_as_a_file_and_a_folder_is_all_copied(tmp_path: Path) -> None:
    folder = "cells/debian-13/stock/0.10.8"
    names = ["notes", "notes.txt.txt/c", "a-b", "a-b.txt"]
    cell = a_cell(evidence=[f"{folder}/{name}" for name in (*names, "dir.txt/b", "dir")])
    site = site_of(tmp_path, cell)
    copied = [file.read_text() for file in (site / "evidence").rglob("*") if file.is_file()]
    assert sorted(copied) == sorted(cell.evidence)
