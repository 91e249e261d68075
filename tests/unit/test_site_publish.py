"""`lab publish`: a site's folder is replaced as a whole or left as it was; what may go into it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab.base.errors import UsageError
from lab.base.files import slug
from lab.check.results import Source, newest
from lab.cli import cli
from lab.record import Status
from lab.report.site import model
from lab.report.site import publish as publishing
from lab.report.site.model import HISTORY_FILE, History, Site
from lab.report.site.page import Page
from lab.report.site.publish import publish
from tests.builders.cells import cell as a_cell
from tests.builders.facts import facts as a_facts
from tests.builders.output import Parsed, pages, run_folder, site_of
from tests.builders.runs import run_of

HOSTILE = "x<script>alert(1)</script>\"'><img src=//evil.example/x onerror=alert(1)>\u202egnp.exe\x1b[31m"


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


def test_every_page_has_the_policy_and_names_only_files_of_the_site(tmp_path: Path, old_run: Path) -> None:
    publish([old_run, run_folder(tmp_path, a_cell())], tmp_path / "site")
    assert pages(tmp_path / "site")
    for page in pages(tmp_path / "site"):
        parsed = Parsed(page)
        [policy] = [each for each in parsed.of("meta") if each.get("http-equiv") == "Content-Security-Policy"]
        assert str(policy["content"]).startswith("default-src 'none'; script-src 'self';")
        for address in [*parsed.attributes("href"), *parsed.attributes("src")]:
            path, _, part = address.partition("#")
            assert ":" not in path and not path.startswith("/"), address
            target = (page.parent / path).resolve() if path else page
            assert target.is_file(), f"{page}: {address}"
            assert target.is_relative_to((tmp_path / "site").resolve())
            if part and "=" not in part:  # With =, it is a choice of filters.
                assert part in Parsed(target).attributes("id"), f"{page}: {address}"


def test_no_page_has_code_or_style_in_itself(tmp_path: Path, old_run: Path) -> None:
    publish([old_run], tmp_path / "site")
    for page in pages(tmp_path / "site"):
        for tag, attributes in Parsed(page).elements:
            assert tag != "style" and "style" not in attributes
            # What has this type is data: no browser runs it.
            assert tag != "script" or "src" in attributes or attributes["type"] == "application/json"
            assert not [name for name in attributes if name.startswith("on")]


def test_names_and_texts_from_guests_never_become_markup(tmp_path: Path) -> None:
    stock = a_cell(guest=HOSTILE, build=HOSTILE, status=Status.FAIL, cause=HOSTILE, reason=HOSTILE)
    facts = a_facts(os={"id": HOSTILE, "version_id": HOSTILE, "pretty_name": HOSTILE}, kernel=HOSTILE)
    other = a_cell(guest=HOSTILE, variant=HOSTILE, status=Status.FAIL, cause=HOSTILE, facts=facts)
    site = site_of(tmp_path, stock, other)
    for page in pages(site):
        parsed = Parsed(page)
        assert "//evil.example" not in " ".join([*parsed.attributes("src"), *parsed.attributes("href")])
        inside = [each for each in parsed.of("script") if "src" not in each]
        assert not parsed.of("img") and inside in ([], [{"id": "published", "type": "application/json"}])
        assert not [name for _, each in parsed.elements for name in each if name.startswith("on")]
        assert "\u202e" not in page.read_text() and "\x1b" not in page.read_text()


def test_a_site_is_replaced_as_a_whole(tmp_path: Path, old_run: Path) -> None:
    site = site_of(tmp_path, a_cell(evidence=["cells/debian-13/stock/0.10.8/suite.log"]))
    assert list(site.rglob("suite.log.txt"))
    publish([old_run], site)
    assert not list(site.rglob("suite.log.txt"))
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_a_site_is_left_whole_if_the_new_one_cannot_be_made(
    tmp_path: Path, old_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_site: Site) -> Iterator[Page]:
        yield Page("half.html", "Half", "not_shown.html", {"why": "x"})
        raise RuntimeError("no such template")

    site = site_of(tmp_path, a_cell())
    before = everything(site)
    parts = publishing.parts()
    monkeypatch.setattr(publishing, "parts", lambda: [*parts, broken])
    with pytest.raises(Exception, match="no such template"):
        publish([old_run], site)
    assert everything(site) == before
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_a_site_can_be_replaced_where_folders_cannot_be_exchanged(
    tmp_path: Path, old_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoExchange:
        def renameat2(self, *_: object) -> int:
            return -1

    site = site_of(tmp_path, a_cell())
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: NoExchange())
    publish([old_run], site)
    history = History.model_validate_json((site / HISTORY_FILE).read_bytes())
    assert {seen.run for seen in history.shown} == {"old-run"}


def test_what_a_killed_lab_left_beside_the_site_is_deleted(tmp_path: Path) -> None:
    left = tmp_path / ".site.publish-abc"
    (left / "site").mkdir(parents=True)
    site_of(tmp_path, a_cell())
    assert not left.exists()


def test_a_folder_with_anything_else_is_refused_and_left_alone(tmp_path: Path, old_run: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        publish([old_run], folder)
    assert everything(folder) == {"thesis.tex": b"years of work"}


def test_a_file_that_was_put_into_a_site_is_not_lost(tmp_path: Path, old_run: Path) -> None:
    site = site_of(tmp_path, a_cell())
    (site / "CNAME").write_text("example.org")
    with pytest.raises(UsageError, match="CNAME"):
        publish([old_run], site)
    assert (site / "CNAME").read_text() == "example.org"


def test_an_empty_folder_is_taken(tmp_path: Path, old_run: Path) -> None:
    (tmp_path / "site").mkdir()
    publish([old_run], tmp_path / "site")
    assert (tmp_path / "site" / "index.html").is_file()


@pytest.mark.parametrize(
    "content, key",
    [
        ("{", "the whole file"),
        ('{"format": "something else"}', "format"),
        ('{"schema": 9}', "schema"),
        ('{"shown": [{"guest": "x"}]}', "shown.0.variant"),
    ],
)
def test_a_damaged_history_is_told_with_its_key_and_nothing_is_lost(
    tmp_path: Path, old_run: Path, content: str, key: str
) -> None:
    site = site_of(tmp_path, a_cell())
    (site / HISTORY_FILE).write_text(content)
    before = everything(site)
    done = CliRunner().invoke(cli, ["publish", str(old_run), "-o", str(site)], standalone_mode=False)
    assert isinstance(done.exception, UsageError) and done.exception.exit_status == 2
    assert f"{site / HISTORY_FILE}: {key}: " in str(done.exception)
    assert everything(site) == before


def test_an_empty_run_and_a_run_named_twice_are_refused(tmp_path: Path) -> None:
    empty = run_folder(tmp_path, name="empty")
    with pytest.raises(UsageError, match="cells: the run has none"):
        publish([empty], tmp_path / "site")
    run = run_folder(tmp_path, a_cell())
    with pytest.raises(UsageError, match="are both run run"):
        publish([run, run], tmp_path / "site")
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    "content, said",
    [('{"schema": 2, "run": {', "Invalid JSON"), ('{"schema": 99, "run": {}, "cells": []}', "schema")],
    ids=["cut off", "another schema"],
)
def test_a_record_that_cannot_be_read_leaves_the_site_as_it_was(
    tmp_path: Path, content: str, said: str
) -> None:
    site = site_of(tmp_path, a_cell())
    before = everything(site)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "results.json").write_text(content)
    with pytest.raises(UsageError, match=said) as raised:
        publish([tmp_path / "bad"], site)
    assert str(tmp_path / "bad" / "results.json") in str(raised.value)
    assert everything(site) == before


def test_the_newest_result_that_says_something_is_published() -> None:
    older = run_of(a_cell(status=Status.FAIL))
    newer = run_of(a_cell(status=Status.PASS))
    failed = run_of(a_cell(status=Status.ERROR))
    sources = [Source(run, Path(name)) for run, name in [(failed, "c"), (newer, "b"), (older, "a")]]
    [shown] = newest(sources).values()
    assert shown.cell.status is Status.PASS
    assert [source.folder.name for source in shown.missed] == ["c"]
    [shown] = newest(sources[:1]).values()
    assert shown.cell.status is Status.ERROR


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
    [found] = model.plan_evidence(newest([source]).values(), largest=50).values()
    assert [file.name for file in found.files] == ["good.log"]
    assert found.left_out.keys() == {*names, "../secret", "/etc/hostname"} - {"good.log"}
    assert found.left_out["large.log"].startswith("larger than ")
    [found] = model.plan_evidence(newest([source]).values(), total=3).values()
    assert not found.files and "evidence already" in found.left_out["good.log"]


def test_evidence_whose_names_collide_as_a_file_and_a_folder_is_all_copied(tmp_path: Path) -> None:
    folder = "cells/debian-13/stock/0.10.8"
    names = ["notes", "notes.txt.txt/c", "a-b", "a-b.txt"]
    cell = a_cell(evidence=[f"{folder}/{name}" for name in (*names, "dir.txt/b", "dir")])
    site = site_of(tmp_path, cell)
    copied = [file.read_text() for file in (site / "evidence").rglob("*") if file.is_file()]
    assert sorted(copied) == sorted(cell.evidence)


def test_a_path_of_the_site_needs_no_quoting_and_two_names_never_share_one() -> None:
    assert slug("debian-13") == "debian-13" and slug("a+b") == "a+b"
    for name in ("..", ".", "", "a/b", "a b", "<x>", "é", "x" * 300):
        assert slug(name) and "/" not in slug(name) and not slug(name).startswith(".") and slug(name) != name
    assert slug("a b") != slug("a/b")
