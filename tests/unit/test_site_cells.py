"""The page of each cell, and that of the findings on what boxlite itself says of them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.record import (
    CellResult,
    Experiment,
    ExperimentStep,
    Outcome,
    RemedyOutcome,
    RemedyResult,
    RepeatResult,
    Status,
    StepOutcome,
    TestResult,
)
from lab.report.site.maintainers import LONGEST_LINE, MOST_LINES
from lab.report.site.publish import publish
from tests.builders import output
from tests.builders.cells import blocked, box, cell
from tests.builders.evidence import DENIED_CREATE
from tests.builders.facts import context, facts, probe, probed

CELL = "cells/debian-13/stock/0.10.8.html"
CURE = "userns-clone-on"


def failed(**more: Any) -> CellResult:
    return blocked("userns-sysctl", "the sysctl is 0", **({"status": Status.FAIL} | more))


def test_a_page_says_what_the_record_says(tmp_path: Path) -> None:
    scripts = {CURE: "0"}
    remedy = RemedyResult(name=CURE, result=RemedyOutcome.VERIFIED, price="the price", scripts=scripts)
    step = ExperimentStep(changes=["without sysctl a.b=0"], outcome=StepOutcome.PASSES, seconds=3.0)
    site = output.site_of(
        tmp_path,
        failed(
            tests=[TestResult(name="box_starts", outcome=Outcome.FAIL, seconds=1.5, message="no sandbox")],
            remedies=[remedy],
            experiment=Experiment(tests=["box_starts"], steps=[step], turning=[["without sysctl a.b=0"]]),
            retried=["the machine died"],
            differs={"Ubuntu 24.04": ["bubblewrap starts in it"]},
            repeats=[RepeatResult(status=Status.FAIL, failed=["box_starts"])],
            facts=facts(),
            context=context(),
            seconds={"fork": 1.25, "suite": 20.0},
            rerun="lab matrix -g debian-13 -v stock",
        ),
    )
    text = output.Parsed(site / CELL).words
    for words in (
        "fail userns-sysctl (try 2)",
        "userns-sysctl, proved: the sysctl is 0",
        "box_starts fail 1.5 no sandbox",
        "lab remedies show userns-clone-on --script",
        "the price",
        "In what this guest differs from Ubuntu 24.04 bubblewrap starts in it",
        "without sysctl a.b=0 passes 3.0",
        "the machine died",
        "1 fail - box_starts",
        "fork 1.2 suite 20.0",
        "6.12.118+deb13-cloud-amd64",
        "0.12.0 (/usr/bin/bwrap)",
        "4.1.0 (mediates user namespaces)",
        "lab matrix -g debian-13 -v stock",
    ):
        assert words in text, words


def test_the_kernels_refusals_and_the_probes_are_shown_and_shortened(tmp_path: Path) -> None:
    files = ["kernel.log", "probes.json"]
    result = failed(evidence=[f"cells/debian-13/stock/0.10.8/{name}" for name in files])
    run = output.run_folder(tmp_path, result)
    line = f"{DENIED_CREATE.strip().splitlines()[0]}{'x' * 1000}<b>"
    (run / result.folder / "kernel.log").write_text(f"{line}\n" * (MOST_LINES + 5))
    refused = probed({"unshare_user": probe(1, "no permission <script>", ["unshare", "-U"])})
    (run / result.folder / "probes.json").write_text(refused.model_dump_json())
    publish([run], tmp_path / "site")
    html = (tmp_path / "site" / CELL).read_text()
    assert html.count('apparmor="DENIED"') + html.count("apparmor=&#34;DENIED&#34;") == MOST_LINES
    assert "5 more lines there" in html and "x" * LONGEST_LINE not in html
    assert "no permission &lt;script&gt;" in html and "failed (1)" in html
    assert "<b>" not in html


def test_files_are_linked_and_what_could_not_be_read_is_said(tmp_path: Path) -> None:
    cells = [
        failed(evidence=[f"cells/debian-13/stock/0.10.8/{name}.log" for name in ("suite", "gone")]),
        cell(variant="unread", status=Status.NOT_RUN, reason="image not available"),
        # What is in this file is no answer of the probes.
        failed(variant="damaged", evidence=["cells/debian-13/damaged/0.10.8/probes.json"]),
    ]
    run = output.run_folder(tmp_path, *cells)
    (run / cells[0].folder / "suite.log").write_text("a line of the suite\n" * 1000)
    (run / cells[0].folder / "gone.log").unlink()
    publish([run], tmp_path / "site")
    parsed = output.Parsed(tmp_path / "site" / CELL)
    assert "a line of the suite" not in parsed.text and "gone.log: there is no such file" in parsed.text
    [link] = [address for address in parsed.attributes("href") if "suite.log" in address]
    assert (tmp_path / "site" / CELL).parent.joinpath(link).resolve().read_text().startswith("a line")
    unread, damaged = (
        output.Parsed(tmp_path / "site" / f"cells/debian-13/{name}/0.10.8.html").words
        for name in ("unread", "damaged")
    )
    assert "guest not known: the lab did not read it" in unread and "image not available" in unread
    assert "What the kernel allows" not in damaged and "fail userns-sysctl" in damaged


def test_a_page_leads_to_its_neighbours_to_other_builds_and_names_other_runs(tmp_path: Path) -> None:
    old = output.run_folder(tmp_path, failed(), name="a-run")
    cells = cell(), cell(build="0.10.0"), cell(variant="z")
    new = output.run_folder(tmp_path, *cells, name="b-run", started=datetime(2026, 11, 25, tzinfo=UTC))
    publish([old, new], tmp_path / "site")
    first = output.Parsed(tmp_path / "site" / CELL)
    relations = {str(link["rel"]): str(link["href"]) for link in first.of("a") if "rel" in link}
    assert relations == {"next": "0.10.0.html"}
    assert "a-run, started 2026-11-24 16:00 UTC: fail userns-sysctl" in first.words
    assert [link for link in first.of("a") if link["href"] == "0.10.0.html" and "rel" not in link]
    middle = output.Parsed(tmp_path / "site" / "cells/debian-13/stock/0.10.0.html")
    assert [str(link["rel"]) for link in middle.of("a") if "rel" in link] == ["prev", "next"]


def test_the_pages_say_what_confines_boxes_and_where_they_are_less_protected(tmp_path: Path) -> None:
    def passed(guest: str, **other: Any) -> CellResult:
        tests = [TestResult(name="starts", outcome=Outcome.PASS, protection=box(**other))]
        return cell(guest, status=Status.PASS, tests=tests, facts=facts())

    weak = {"seccomp": ["off"], "asked": {"seccomp_enabled": True}}
    site = output.site_of(tmp_path, passed("debian-13", **weak), passed("debian-12"))
    text = {str(file.relative_to(site)): output.Parsed(file).words for file in output.pages(site)}
    unmet = "starts asked for a seccomp filter (seccomp_enabled): no thread of libkrun VM has one"
    lacks = "debian-13 stock: less protected: the box of starts lacked seccomp filter; debian-12 stock has that"
    weaker = text[CELL]
    assert unmet in weaker and lacks in weaker and "What confined its boxes" in weaker
    other = text["cells/debian-12/stock/0.10.8.html"]
    assert "no_new_privs, seccomp filter, no capabilities" in other
    assert unmet not in other and lacks not in other
    assert unmet in text["findings.html"]
    assert text["matrix.html"].count("pass less protected") == 1
    [host] = [path for path, words in text.items() if path.startswith("hosts/") and lacks in words]
    assert "What confines a box here" in text[host]


# -- findings on what boxlite itself says

SAID = "boxlite.errors.ConfigError: <b>The sandbox</b> could not be initialized on this host."
LOG = """\
2026-11-25T23:35:20Z ERROR boxlite::jailer: Sandbox preflight failed.

Cause: Unknown restriction.
2026-11-25T23:35:20Z ERROR boxlite::task: Task failed: it
"""


def misjudged(variant: str) -> CellResult:
    cured = RemedyResult(name=CURE, result=RemedyOutcome.VERIFIED, price="the price")
    return blocked(
        "apparmor-userns-deny",
        "AppArmor denied it",
        variant=variant,
        tests=[TestResult(name="box", outcome=Outcome.FAIL, message=SAID)],
        evidence=[f"cells/debian-13/{variant}/0.10.8/boxlite/box-1/logs/boxlite.log.2026-11-25"],
        remedies=[cured],
    )


def test_a_wrong_diagnosis_is_shown_with_its_cells_the_cause_and_the_cure(tmp_path: Path) -> None:
    cells = [misjudged("a"), misjudged("b"), cell()]
    run = output.run_folder(tmp_path, *cells)
    for file in (file for result in cells for file in result.evidence):
        (run / file).write_text(LOG)
    publish([run], tmp_path / "site")
    parsed = output.Parsed(tmp_path / "site" / "findings.html")
    text = parsed.words
    assert len([section for section in parsed.of("section") if section.get("class") == "finding"]) == 1
    for words in (
        "boxlite calls it an unknown restriction: AppArmor denied it",
        "unknown in 2 cells",
        "<b>The sandbox</b> could not be initialized",
        "Cause: Unknown restriction.",
        "apparmor-userns-deny, proved: AppArmor denied it",
        "userns-clone-on: verified in 2 of 2 cells; price: the price",
    ):
        assert words in text, words
    links = [address for address in parsed.attributes("href") if address.startswith("cells/")]
    assert links == ["cells/debian-13/a/0.10.8.html", "cells/debian-13/b/0.10.8.html"]
    assert "<b>" not in (tmp_path / "site" / "findings.html").read_text()


def test_what_cannot_be_judged_is_said(tmp_path: Path) -> None:
    passed = output.run_folder(tmp_path, cell(), name="passed")
    without_log = misjudged("a").model_copy(update={"evidence": []})
    publish([passed, output.run_folder(tmp_path, without_log, name="failed")], tmp_path / "site")
    text = output.Parsed(tmp_path / "site" / "findings.html").text
    assert "there is no diagnosis to judge" in text
    assert "not judged" in text and "No finding." in text
