"""The site's pages for users: what they say about a distribution, and which remedies they offer."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lab.catalog import remedies
from lab.check import published
from lab.check.distributions import ask
from lab.check.published import Published, SystemName, cells_of
from lab.check.results import Kind
from lab.probes import Facts
from lab.record import CellResult, RemedyOutcome, RemedyResult, Status
from lab.report.site import model
from lab.report.site.model import History, Site
from lab.report.site.publish import publish
from tests.builders.cells import blocked as a_blocked_cell
from tests.builders.cells import cell as a_cell
from tests.builders.facts import DEBIAN, facts
from tests.builders.output import Parsed, run_folder, site_of

KNOWN = remedies.load()


def loaded(base: Path, *cells: CellResult) -> Site:
    return model.load([run_folder(base, *cells)], History())


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
    return " ".join(Parsed(site / "hosts" / f"{name}.html").text.split())


def os_release(**changes: str | None) -> dict[str, Any]:
    return dict(DEBIAN["os"]) | changes


def test_guests_of_one_release_are_one_distribution(tmp_path: Path) -> None:
    site = loaded(
        tmp_path,
        a_cell(facts=facts()),
        a_cell("debian-13-podman", facts=facts(podman=True)),
        a_cell("server", facts=facts()),
    )
    [debian] = [each for each in site.distributions if each.name == "debian-13"]
    guests = list(debian.guests)
    assert guests[0] == "debian-13"
    assert {"debian-13-podman", "server", "debian-13-cloud"} < set(guests)
    assert debian.title == "Debian 13 (trixie)"


def test_testing_and_unstable_are_two_although_their_os_release_is_the_same(tmp_path: Path) -> None:
    rolling = facts(os=os_release(version_id=None, version_codename="forky"))
    site = loaded(tmp_path, a_cell("debian-14", facts=rolling), a_cell("debian-sid", facts=rolling))
    names = [each.name for each in site.distributions]
    assert {"debian-14", "debian-sid"} < set(names)
    assert [name for name in names if name.startswith("debian")][-1] == "debian-sid"


def test_a_debian_with_ubuntus_policy_is_no_ubuntu(tmp_path: Path) -> None:
    cell = blocked("apparmor-userns-nocaps", variant="apparmor-userns-nocaps")
    site = site_of(tmp_path, a_cell(facts=facts()), cell)
    ubuntu = page(site, "ubuntu-24.04")
    assert "Not tested" in ubuntu and "no published run has it" in ubuntu and "0.10.8" not in ubuntu


def test_a_distribution_that_no_run_has_says_so_and_one_that_could_not_run_says_why(tmp_path: Path) -> None:
    broken = a_cell("debian-12", status=Status.NOT_RUN, reason="the image cannot be downloaded")
    site = site_of(tmp_path, a_cell(), broken)
    assert "Not tested" in page(site, "debian-12")
    assert "the image cannot be downloaded" in page(site, "debian-12")
    assert "no published run has it" in page(site, "fedora-43")


def test_a_verified_remedy_is_offered_with_its_script_price_and_versions(tmp_path: Path) -> None:
    site = site_of(tmp_path, a_cell(facts=facts()), blocked("userns-sysctl", tried("userns-clone-on")))
    text = page(site, "debian-13")
    assert "cured by userns-clone-on" in text and "sudo sh userns-clone-on.sh" in text
    assert KNOWN["userns-clone-on"].price in text and KNOWN["userns-clone-on"].does in text
    assert "2026-11-24 on debian-13: every test passed with boxlite 0.10.8, kernel 6.12.118" in text
    assert (site / "scripts" / "userns-clone-on.sh").read_text() == KNOWN["userns-clone-on"].script()
    links = Parsed(site / "hosts" / "debian-13.html").attributes("href")
    assert "../scripts/userns-clone-on.sh" in links


@pytest.mark.parametrize(
    "trial",
    [
        tried("userns-clone-on", RemedyOutcome.DOES_NOT_HELP),
        tried("userns-clone-on", RemedyOutcome.AVOIDS),
        tried("userns-clone-on", RemedyOutcome.ERROR),
        tried("userns-clone-on", scripts={"userns-clone-on": "0" * 64}),
        tried("userns-clone-on", scripts={}),
    ],
    ids=["does not help", "avoids it", "fault of the lab", "another script", "no script recorded"],
)
def test_no_other_remedy_is_offered(tmp_path: Path, trial: RemedyResult) -> None:
    site = site_of(tmp_path, blocked("userns-sysctl", trial))
    text = page(site, "debian-13")
    assert "No remedy is verified here" in text and "sudo sh" not in text
    is_old = trial.result is RemedyOutcome.VERIFIED
    assert ("an earlier form of its script" in text) is is_old
    assert not (site / "scripts").exists()


def test_a_remedy_that_was_verified_on_another_cell_is_named_as_untried(tmp_path: Path) -> None:
    cured = blocked("userns-sysctl", tried("userns-clone-on"))
    site = loaded(tmp_path, cured, blocked(guest="debian-12", facts=None))
    other = ask(site, "debian-12", "userns-clone-off")
    assert other.cures == [] and "userns-clone-on" in [each.name for each in other.untried]
    assert other.headline == "blocked; no cure is verified"


def test_a_remedy_that_a_cell_cannot_tell_about_is_no_fact_about_the_distribution(tmp_path: Path) -> None:
    unknown = tried("userns-clone-on", RemedyOutcome.NOT_JUDGED, reason="the suite starts in the profile")
    cell = blocked("userns-sysctl", unknown, tried("preflight", RemedyOutcome.AVOIDS))
    site = site_of(tmp_path, cell)
    answer = ask(model.load([tmp_path / "run"], History()), "debian-13", "userns-clone-off")
    assert ([each.name for each in answer.no_cures], answer.cures) == (["userns-clone-on", "preflight"], [])
    _, told = page(site, "debian-13").split("No cure here (2)", 1)
    assert "userns-clone-on: not judged here: the suite starts in the profile preflight: avoids it" in told


def test_a_remedy_of_an_older_run_counts_if_the_cause_is_the_same(tmp_path: Path) -> None:
    older = run_folder(tmp_path, blocked("userns-sysctl", tried("userns-clone-on")), name="older")
    newer = run_folder(tmp_path, blocked(), name="newer", started=datetime(2026, 11, 25, tzinfo=UTC))
    answer = ask(model.load([newer, older], History()), "debian-13", "userns-clone-off")
    assert answer.result and answer.result.source.id == "newer"
    assert [cure.source.id for cure in answer.cures] == ["older"]
    another = run_folder(
        tmp_path, blocked("userns-limit"), name="another", started=datetime(2026, 11, 26, tzinfo=UTC)
    )
    assert ask(model.load([another, older], History()), "debian-13", "userns-clone-off").cures == []


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
    assert (answer.kind, answer.build) == (Kind.BLOCKED, "0.10.8")


@pytest.mark.parametrize("status", list(Status))
def test_what_did_not_pass_is_never_said_to_work(status: Status) -> None:
    assert (Kind.of(status) is Kind.WORKS) == (status in (Status.PASS, Status.XPASS))
    assert Kind.of(None) is Kind.UNTESTED


def test_badges_are_truthful(tmp_path: Path) -> None:
    site = site_of(
        tmp_path,
        a_cell("debian-13"),
        blocked(guest="debian-12", variant="stock", facts=None),
        a_cell("debian-11", status=Status.NOT_APPLICABLE, reason="no wheel"),
    )
    badges = {file.stem: json.loads(file.read_text()) for file in (site / "badges").iterdir()}
    assert badges["debian-13"] == {
        "schemaVersion": 1,
        "label": "boxlite on Debian 13 (trixie)",
        "message": "0.10.8: works as installed",
        "color": "brightgreen",
    }
    assert badges["debian-12"]["color"] == "red"
    for untested in ("debian-11", "ubuntu-24.04"):
        assert (badges[untested]["message"], badges[untested]["color"]) == ("not tested", "lightgrey")


def test_support_md_has_a_row_for_each_distribution_and_escapes(tmp_path: Path) -> None:
    hostile = a_cell("evil-1", status=Status.ERROR, reason="<img src=x> | [x](y) `z`\n# heading")
    text = (site_of(tmp_path, a_cell(), hostile) / "support.md").read_text()
    assert "| Debian 13 (trixie) | works as installed | 0.10.8 |" in text
    assert "| Ubuntu 24.04 LTS (Noble Numbat) | not tested: no published run has it | - | - | - |" in text
    assert "&lt;img" in text and "<img" not in text and "\n# heading" not in text and r"\[x\](y)" in text


def test_the_data_of_the_front_page_has_each_tested_cell_and_no_other(tmp_path: Path) -> None:
    site = loaded(
        tmp_path,
        a_cell(facts=facts()),
        blocked("userns-sysctl", tried("userns-clone-on")),
        a_cell(variant="max-userns-zero", status=Status.ERROR, facts=facts()),
    )
    distributions = published.of_distributions(site.distributions).distributions
    assert [cell.variant for cell in cells_of(distributions)] == ["stock", "userns-clone-off"]
    stock, changed = cells_of(distributions)
    assert stock.settings["kernel.unprivileged_userns_clone"] == "1"
    assert stock.settings["kernel.apparmor_restrict_unprivileged_userns"] is None
    assert changed.settings["kernel.unprivileged_userns_clone"] == "0"
    assert changed.remedy is not None
    assert changed.remedy.title == KNOWN["userns-clone-on"].title
    assert changed.part == "setting-userns-clone-off"
    [debian] = [each for each in distributions if each.name == "debian-13"]
    assert debian.systems == (SystemName(id="debian", version="13", codename="trixie"),)


def test_only_profiles_that_a_host_tells_are_compared(tmp_path: Path) -> None:
    def with_profiles(**profiles: str) -> Facts:
        return facts(apparmor={"profiles": profiles})

    site = loaded(
        tmp_path,
        a_cell(facts=with_profiles(common="enforce")),
        blocked(facts=with_profiles(common="enforce", bwrap="enforce")),
    )
    cells = cells_of(published.of_distributions(site.distributions).distributions)
    profiles = [[name for name in cell.settings if name.startswith("AppArmor profile ")] for cell in cells]
    assert profiles == [[], ["AppArmor profile bwrap"]]


def test_the_front_page_and_a_file_hold_what_is_published_and_no_text_ends_it(tmp_path: Path) -> None:
    site = site_of(tmp_path, blocked(guest="</script><!--\u2028-1", build="</script>"))
    page, file = (site / "index.html").read_text(), (site / "published.json").read_bytes()
    inside = page.split('<script id="published" type="application/json">')[1].split("</script>")[0]
    assert Published.model_validate_json(inside) == Published.model_validate_json(file)
    assert "<" not in inside
    distributions = Published.model_validate_json(file).distributions
    assert [cell.guest for each in distributions for cell in each.cells] == ["</script><!---1"]


def test_the_front_page_has_the_probe_script_as_a_command_and_as_a_file(tmp_path: Path) -> None:
    folder = site_of(tmp_path, a_cell(facts=facts(sysctls={"vm.swappiness": "60"})))
    script = (folder / "probe.sh").read_text()
    assert script.startswith("#!/bin/sh\n")
    assert "vm.swappiness" in script
    body = script.removeprefix("#!/bin/sh\n")
    assert f"sh -c '\n{body}'" in Parsed(folder / "index.html").text


def test_the_next_publication_shows_what_changed(tmp_path: Path) -> None:
    site = site_of(tmp_path, a_cell(), a_cell("debian-12"))
    assert "first publication" in Parsed(site / "changes.html").text
    worse = run_folder(
        tmp_path, blocked(variant="stock", facts=None), name="worse", started=datetime(2026, 11, 25, tzinfo=UTC)
    )
    publish([worse], site)
    rows = [row["data-kind"] for row in Parsed(site / "changes.html").of("tr") if "data-kind" in row]
    assert rows == ["blocked", "untested"]
    text = " ".join(Parsed(site / "changes.html").text.split())
    assert "Another result (1)" in text and "passrun run xfail: userns-sysctlrun worse" in text
    assert "No longer published (1)" in text and "New here" not in text
    said = "published before: 1 with another result, 1 no longer published."
    assert said in Parsed(site / "index.html").text
    # Publishing the same again forgets nothing.
    publish([worse], site)
    assert said in Parsed(site / "index.html").text
    history = json.loads((site / "history.json").read_text())
    assert {cell["run"] for cell in history["shown"]} == {"worse"}


def test_guests_that_fail_alike_are_one_group_and_the_front_page_counts_what_blocks(tmp_path: Path) -> None:
    cured = blocked("userns-sysctl", tried("userns-clone-on"))
    site = site_of(
        tmp_path,
        a_cell(facts=facts()),
        a_cell(variant="podman", facts=facts()),
        cured,
        cured.model_copy(update={"guest": "debian-13-podman"}),
        cured.model_copy(update={"guest": "debian-13-selinux", "remedies": []}),
    )
    parsed = Parsed(site / "hosts" / "debian-13.html")
    groups = [each["data-guests"] for each in parsed.of("div") if each.get("class") == "group"]
    assert groups == ["debian-13 debian-13-podman", "debian-13-selinux"]
    assert "1 of 2 block it1 with a verified cure" in Parsed(site / "index.html").text
