"""The site's pages for users: what they say about a distribution, and which remedies they offer."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lab.catalog import remedies
from lab.check import published
from lab.check.distributions import ask
from lab.check.published import Published, SystemName, list_comparable_cells
from lab.check.results import AnswerKind
from lab.record import CellResult, Outcome, RemedyOutcome, RemedyResult, Status, TestResult
from lab.report.site import model
from lab.report.site.model import History, Site
from lab.report.site.publish import publish_site
from tests.builders.cells import blocked as a_blocked_cell
from tests.builders.cells import cell as a_cell
from tests.builders.cells import changed
from tests.builders.facts import DEBIAN, facts
from tests.builders.output import Parsed, run_folder, site_of

KNOWN = remedies.load_remedies()


def loaded(base: Path, *cells: CellResult) -> Site:
    return model.load_site([run_folder(base, *cells)], History())


def tried(name: str, result: RemedyOutcome = RemedyOutcome.VERIFIED, **more: Any) -> RemedyResult:
    scripts = {part: KNOWN[part].digest for part in name.split("+") if KNOWN[part].host}
    return RemedyResult(**({"name": name, "result": result, "price": "something", "scripts": scripts} | more))


def blocked(cause: str = "userns-sysctl", *trials: RemedyResult, **more: Any) -> CellResult:
    given: dict[str, Any] = {
        "variant": "userns-clone-off",
        "remedies": list(trials),
        "facts": facts(sysctls={"kernel.unprivileged_userns_clone": "0"}),
    }
    return a_blocked_cell(cause, **(given | more))


def page(site: Path, name: str) -> str:
    return Parsed(site / "hosts" / f"{name}.html").words


def test_guests_of_one_release_are_one_distribution(tmp_path: Path) -> None:
    rolling = facts(os=dict(DEBIAN["os"]) | {"version_id": None, "version_codename": "forky"})
    site = loaded(
        tmp_path,
        a_cell(facts=facts()),
        a_cell("debian-13-podman", facts=facts(engines=["podman"])),
        a_cell("server", facts=facts()),
        a_cell("twin-wsl2", facts=facts()),
        *(a_cell(guest, facts=rolling) for guest in ("debian-14", "debian-sid")),
    )
    by_name = {distribution.name: distribution for distribution in site.distributions}
    guests = list(by_name["debian-13"].guests)
    assert guests[0] == "debian-13"
    assert {"debian-13-podman", "server", "debian-13-cloud"} < set(guests)
    assert by_name["debian-13"].title == "Debian 13 (trixie) on x86_64"
    # A twin is shown as itself, whatever its os-release says.
    assert list(by_name["twin-wsl2"].guests) == ["twin-wsl2"]
    assert by_name["twin-wsl2"].title.startswith("Twin of WSL2, not WSL2")
    # Testing and unstable are two, although their os-release is the same.
    assert "debian-14" in by_name
    assert [name for name in by_name if name.startswith("debian")][-1] == "debian-sid"


def test_each_architecture_of_a_release_is_a_distribution_of_its_own(tmp_path: Path) -> None:
    cells = [
        a_cell(facts=facts()),
        a_blocked_cell("runtime-library", guest="debian-13-arm64", facts=facts(arch="aarch64")),
        a_cell("server", facts=facts(arch="riscv64")),
    ]
    site = loaded(tmp_path, *cells)
    [amd64, arm64, other] = [one for one in site.distributions if one.release == "debian-13"]
    assert [one.name for one in (amd64, arm64, other)] == ["debian-13", "debian-13-arm64", "debian-13-riscv64"]
    assert [one.answer.kind for one in (amd64, arm64)] == [AnswerKind.WORKS, AnswerKind.BLOCKED]
    assert list(arm64.guests) == ["debian-13-arm64"] and "debian-13-arm64" not in amd64.guests
    assert amd64.trouble("stock") == []
    folder = publish_site([tmp_path / "run"], tmp_path / "site").parent
    text = (folder / "support.md").read_text()
    assert "| Debian 13 (trixie) on x86_64 | works as installed | 0.10.8 |" in text
    assert "| Debian 13 (trixie) on aarch64 | blocked; no cure was tried | 0.10.8 |" in text
    for name, machine in (("debian-13", "x86_64"), ("debian-13-arm64", "aarch64")):
        assert f"Debian 13 (trixie) on {machine}" in page(folder, name)
        assert f"<td>{machine}</td>" in (folder / f"hosts/{name}.html").read_text()
        assert f"on {machine}" in json.loads((folder / f"badges/{name}.json").read_text())["label"]


def test_a_release_that_was_never_up_has_the_architecture_of_its_definition(tmp_path: Path) -> None:
    made = published.publish_distributions(loaded(tmp_path, a_cell(facts=facts())).distributions)
    [arm64] = [one for one in made.distributions if one.name == "debian-13-arm64"]
    assert arm64.systems == (SystemName(id="debian", version="13", codename=None, arch="aarch64"),)
    assert (arm64.kind, arm64.title) == (AnswerKind.UNTESTED, "Debian 13 (trixie) on aarch64")


def test_what_was_not_tested_says_so_and_why(tmp_path: Path) -> None:
    site = site_of(
        tmp_path,
        a_cell(facts=facts()),
        # A Debian with Ubuntu's policy is no Ubuntu.
        blocked("apparmor-userns-nocaps", variant="apparmor-userns-nocaps"),
        a_cell("debian-12", status=Status.NOT_RUN, reason="the image cannot be downloaded"),
        a_cell("debian-13-selinux", status=Status.NOT_APPLICABLE, reason="this user cannot build it"),
    )
    ubuntu = page(site, "ubuntu-24.04")
    assert "Not tested" in ubuntu and "no published run has it" in ubuntu and "0.10.8" not in ubuntu
    assert "Not tested" in page(site, "debian-12")
    assert "the image cannot be downloaded" in page(site, "debian-12")
    assert "this user cannot build it" in page(site, "debian-13")
    assert "does not apply" not in page(site, "debian-13")


def test_a_verified_remedy_is_offered_to_all_guests_that_fail_alike(tmp_path: Path) -> None:
    cured = blocked("userns-sysctl", tried("userns-clone-on"))
    site = site_of(
        tmp_path,
        a_cell(facts=facts()),
        a_cell(variant="podman", facts=facts()),
        cured,
        changed(cured, guest="debian-13-podman"),
        changed(cured, guest="debian-13-selinux", remedies=[]),
    )
    parsed = Parsed(site / "hosts" / "debian-13.html")
    groups = [div["data-guests"] for div in parsed.of("div") if div.get("class") == "group"]
    assert groups == ["debian-13 debian-13-podman", "debian-13-selinux"]
    assert "../scripts/userns-clone-on.sh" in parsed.attributes("href")
    text = page(site, "debian-13")
    assert "cured by userns-clone-on" in text and "sudo sh userns-clone-on.sh" in text
    assert KNOWN["userns-clone-on"].price in text and KNOWN["userns-clone-on"].does in text
    assert "2026-11-24 on debian-13: every test passed with boxlite 0.10.8, kernel 6.12.118" in text
    assert (site / "scripts" / "userns-clone-on.sh").read_text() == KNOWN["userns-clone-on"].script()
    assert "1 of 2 block it1 with a verified cure" in Parsed(site / "index.html").text


@pytest.mark.parametrize(
    ("result", "scripts"),
    [
        (RemedyOutcome.DOES_NOT_HELP, None),
        (RemedyOutcome.AVOIDS, None),
        (RemedyOutcome.ERROR, None),
        (RemedyOutcome.VERIFIED, {"userns-clone-on": "0" * 64}),
        (RemedyOutcome.VERIFIED, {}),
    ],
)
def test_no_other_remedy_is_offered(
    tmp_path: Path, result: RemedyOutcome, scripts: dict[str, str] | None
) -> None:
    more = {} if scripts is None else {"scripts": scripts}
    site = site_of(tmp_path, blocked("userns-sysctl", tried("userns-clone-on", result, **more)))
    text = page(site, "debian-13")
    assert "No remedy is verified here" in text and "sudo sh" not in text
    assert ("an earlier form of its script" in text) is (result is RemedyOutcome.VERIFIED)
    assert not (site / "scripts").exists()


def test_what_was_tried_elsewhere_or_could_not_be_judged_is_named_as_such(tmp_path: Path) -> None:
    unknown = tried("userns-clone-on", RemedyOutcome.NOT_JUDGED, reason="the suite starts in the profile")
    cells = [
        blocked("userns-sysctl", unknown, tried("preflight", RemedyOutcome.AVOIDS)),
        blocked("userns-sysctl", tried("userns-clone-on"), guest="debian-14"),
        blocked(guest="debian-12", facts=None),
    ]
    folder = site_of(tmp_path, *cells)
    _, text = page(folder, "debian-13").split("No cure here (2)", 1)
    assert "userns-clone-on: not judged here: the suite starts in the profile preflight: avoids it" in text
    site = model.load_site([tmp_path / "run"], History())
    answer = ask(site, "debian-13", "userns-clone-off")
    assert ([trial.name for trial in answer.no_cures], answer.cures) == (["userns-clone-on", "preflight"], [])
    other = ask(site, "debian-12", "userns-clone-off")
    assert other.cures == [] and "userns-clone-on" in [remedy.name for remedy in other.untried]
    assert other.headline == "blocked; no cure was tried"
    front = Parsed(folder / "index.html").text
    assert "1 of 1 block itno cure tried" in front and "0 with a verified cure" in front


def test_a_remedy_of_an_older_run_counts_if_the_cause_is_the_same(tmp_path: Path) -> None:
    def run(day: int, cell: CellResult) -> Path:
        return run_folder(tmp_path, cell, name=str(day), started=datetime(2026, 11, day, tzinfo=UTC))

    older = run(24, blocked("userns-sysctl", tried("userns-clone-on")))
    for newer, cures in ((run(25, blocked()), ["24"]), (run(26, blocked("userns-limit")), [])):
        answer = ask(model.load_site([newer, older], History()), "debian-13", "userns-clone-off")
        assert answer.result and answer.result.source.id == newer.name
        assert [cure.source.id for cure in answer.cures] == cures


def test_two_remedies_together_are_one_cure_and_an_unknown_cause_is_said_to_be_unknown(tmp_path: Path) -> None:
    unknown = a_cell(status=Status.FAIL, cause="unknown", reason="x")
    site = site_of(tmp_path, blocked("userns-sysctl", tried("userns-clone-on+userns-limit-raise")), unknown)
    text = page(site, "debian-13")
    assert "sudo sh userns-clone-on.sh sudo sh userns-limit-raise.sh" in text
    assert "none of the causes that the lab knows" in text


def test_the_newest_build_that_ran_answers(tmp_path: Path) -> None:
    site = loaded(
        tmp_path,
        a_cell(build="0.10.0"),
        a_cell(build="0.10.8", status=Status.FAIL, cause="unknown"),
        a_cell(build="0.11.0", status=Status.ERROR),
    )
    answer = ask(site, "debian-13")
    assert (answer.kind, answer.build) == (AnswerKind.BLOCKED, "0.10.8")


def test_what_did_not_pass_is_never_said_to_work() -> None:
    assert [status for status in Status if AnswerKind.of(status) is AnswerKind.WORKS] == [
        Status.PASS,
        Status.XPASS,
    ]
    assert AnswerKind.of(None) is AnswerKind.UNTESTED


def test_badges_and_support_md_are_truthful_and_escaped(tmp_path: Path) -> None:
    subjects = {"starts": "start", "isolates": "confinement"}
    passed = [TestResult(name=name, outcome=Outcome.PASS, subject=of) for name, of in subjects.items()]
    site = site_of(
        tmp_path,
        a_cell("debian-13", tests=passed),
        blocked(guest="debian-12", variant="stock", facts=None),
        a_cell("debian-11", status=Status.NOT_APPLICABLE, reason="no wheel"),
        a_cell("evil-1", status=Status.ERROR, reason="<img src=x> | [x](y) `z`\n# heading"),
    )
    badges = {file.stem: json.loads(file.read_text()) for file in (site / "badges").iterdir()}
    assert badges["debian-13"]["schemaVersion"] == 1
    assert badges["debian-13"]["label"] == "boxlite on Debian 13 (trixie) on x86_64"
    states = {guest: (badge["message"], badge["color"]) for guest, badge in badges.items()}
    assert states["debian-13"] == ("0.10.8: works as installed", "brightgreen")
    assert states["debian-12"][1] == "red"
    assert states["debian-11"] == states["ubuntu-24.04"] == ("not tested", "lightgrey")
    text = (site / "support.md").read_text()
    assert "| Debian 13 (trixie) on x86_64 | works as installed | 0.10.8 |" in text
    assert (
        "| Ubuntu 24.04 LTS (Noble Numbat) on x86_64 | not tested: no published run has it | - | - | - |"
        in text
    )
    covers = "Works covers: a box starts and runs a command; a box is confined"
    assert f"{covers}: " in text
    assert f"{covers}: " in (site / "index.html").read_text()
    assert "That covers: a box starts" in (site / "hosts/debian-13.html").read_text()
    assert "&lt;img" in text and "<img" not in text and "\n# heading" not in text and r"\[x\](y)" in text


def test_the_data_of_the_front_page_has_each_tested_cell_and_no_other(tmp_path: Path) -> None:
    site = loaded(
        tmp_path,
        a_cell(facts=facts()),
        blocked("userns-sysctl", tried("userns-clone-on")),
        a_cell(variant="max-userns-zero", status=Status.ERROR, facts=facts()),
    )
    distributions = published.publish_distributions(site.distributions).distributions
    assert [cell.variant for cell in list_comparable_cells(distributions)] == ["stock", "userns-clone-off"]
    stock, changed = list_comparable_cells(distributions)
    assert stock.settings["kernel.unprivileged_userns_clone"] == "1"
    assert stock.settings["kernel.apparmor_restrict_unprivileged_userns"] is None
    assert changed.settings["kernel.unprivileged_userns_clone"] == "0"
    assert changed.remedy is not None
    assert changed.remedy.title == KNOWN["userns-clone-on"].title
    assert changed.part == "setting-userns-clone-off"
    [debian] = [distribution for distribution in distributions if distribution.name == "debian-13"]
    assert debian.systems == (SystemName(id="debian", version="13", codename="trixie", arch="x86_64"),)


def test_the_front_page_holds_what_is_published_and_the_probe_script(tmp_path: Path) -> None:
    hostile = blocked(
        guest="</script><!--\u2028-1", build="</script>", facts=facts(sysctls={"vm.swappiness": "60"})
    )
    site = site_of(tmp_path, hostile)
    text, data = (site / "index.html").read_text(), (site / "published.json").read_bytes()
    inside = text.split('<script id="published" type="application/json">')[1].split("</script>")[0]
    in_page, published = Published.model_validate_json(inside), Published.model_validate_json(data)
    assert in_page == published.model_copy(update={"lab": ""})
    assert "<" not in inside
    distributions = Published.model_validate_json(data).distributions
    guests = [cell.guest for distribution in distributions for cell in distribution.cells]
    assert guests == ["</script><!---1"]
    # The script is there as a command and as a file.
    script = (site / "probe.sh").read_text()
    assert script.startswith("#!/bin/sh\n")
    assert "vm.swappiness" in script
    body = script.removeprefix("#!/bin/sh\n")
    assert f"sh -c '\n{body}'" in Parsed(site / "index.html").text


def test_the_next_publication_shows_what_changed(tmp_path: Path) -> None:
    site = site_of(tmp_path, a_cell(), a_cell("debian-12"))
    assert "first publication" in Parsed(site / "changes.html").text
    worse = run_folder(
        tmp_path, blocked(variant="stock", facts=None), name="worse", started=datetime(2026, 11, 25, tzinfo=UTC)
    )
    publish_site([worse], site)
    rows = [row["data-kind"] for row in Parsed(site / "changes.html").of("tr") if "data-kind" in row]
    assert rows == ["blocked", "untested"]
    text = Parsed(site / "changes.html").words
    assert "Another result (1)" in text and "passrun run xfail: userns-sysctlrun worse" in text
    assert "No longer published (1)" in text and "New here" not in text
    summary = "published before: 1 with another result, 1 no longer published."
    assert summary in Parsed(site / "index.html").text
    # Publishing the same again forgets nothing.
    publish_site([worse], site)
    assert summary in Parsed(site / "index.html").text
    history = json.loads((site / "history.json").read_text())
    assert {cell["run"] for cell in history["shown"]} == {"worse"}
