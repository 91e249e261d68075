"""The pages for users: find a host by name or by what a command prints there, and copy what cures it."""

import platform
import subprocess
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from lab.check import judge_host, published
from lab.probes import Probe
from lab.probes.report import read_host_report
from tests.browser.records import CURE, HOSTILE
from tests.builders.facts import LOGIN, context, printed_facts
from tests.builders.probe_script import output
from tests.conftest import Visiting

INDEX = "index.html"
DENIED = Probe(status=13, stderr="", command=())


def compare(page: Page, text: str) -> Locator:
    """Paste a text into the front page and return what the page answers."""
    # At once, as pasting does: typing a large text takes long.
    page.locator("#host-output").evaluate("(area, text) => (area.value = text)", text)
    page.get_by_role("button", name="Compare").click()
    return page.locator("#host-result")


def printed(**changes: Any) -> str:
    return output(printed_facts(**changes))


def os_release(name: str, version: str, title: str) -> dict[str, str | None]:
    return {"id": name, "version_id": version, "version_codename": None, "pretty_name": title}


def test_a_name_finds_its_distribution(visit: Visiting) -> None:
    page = visit().open(INDEX)
    rows = page.locator("#hosts tbody tr:visible")
    everything = rows.count()
    page.locator("#name").fill("Debian 13")
    # Each architecture has a row.
    expect(rows).to_have_count(2)
    expect(page.locator("#found")).to_have_text(f"2 of {everything}")
    page.locator("#name").fill("Debian 13 x86_64")
    expect(rows).to_have_count(1)
    rows.locator("a").click()
    expect(page.locator("h1")).to_have_text("Debian 13 (trixie) on x86_64")
    expect(page.locator(".verdict").first).to_have_attribute("data-kind", "works")


def test_pasted_settings_that_block_boxlite_find_the_cause_and_the_remedy(visit: Visiting) -> None:
    page = visit().open(INDEX)
    answer = compare(page, printed(sysctls={"kernel.unprivileged_userns_clone": "0"}))
    expect(answer.locator(".verdict").first).to_have_attribute("data-kind", "blocked")
    answer.get_by_role("link", name="Commands and script").click()
    expect(page.locator("h1")).to_contain_text("Debian 13")
    expect(page.locator("section.setting:target")).to_contain_text("Verified remedy")
    expect(page.locator(f"section.setting:target a[download][href$='{CURE}.sh']").first).to_be_visible()


def test_what_the_command_of_the_page_prints_on_this_host_is_understood(visit: Visiting) -> None:
    page = visit().open(INDEX)
    command = page.locator("#probe").inner_text()
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=30)
    answer = compare(page, done.stdout)
    here = platform.freedesktop_os_release()
    if (here["ID"], here.get("VERSION_ID")) == ("debian", "13"):
        expect(answer.locator("h3")).to_contain_text("Debian 13")
        expect(answer).to_contain_text("compared")
    else:
        expect(answer.locator("h3")).to_be_visible()
        expect(answer.locator(".verdict").first).to_be_visible()


SLACKWARE = os_release("slackware", "15.0", "Slackware 15.0")


@pytest.mark.parametrize(
    ("text", "title", "kind", "says"),
    [
        (printed(), "Debian 13", "works", "as tested"),
        # Settings that nobody tested are no promise.
        (printed(sysctls={"kernel.yama.ptrace_scope": "3"}, selinux={}), "Debian 13", "untested", "SELinux"),
        (printed(os=SLACKWARE), "Slackware 15.0", "untested", "No published run has this system"),
        # What was tested on x86_64 says nothing of other architectures.
        (printed(arch="aarch64"), "Debian 13 (trixie) on aarch64", "untested", "no published run has it"),
        (printed(arch="riscv64"), "(trixie) on riscv64", "untested", "No published run has this system"),
        # What the host itself shows comes first.
        (output(printed_facts(), {"open_kvm": DENIED}), "Debian 13", "blocked", "open_kvm: error 13"),
    ],
    ids=["tested", "other settings", "no result", "no result of arm64", "no guest", "refused"],
)
def test_pasted_facts_find_the_answer(visit: Visiting, text: str, title: str, kind: str, says: str) -> None:
    answer = compare(visit().open(INDEX), text)
    expect(answer.locator("h3")).to_contain_text(title)
    expect(answer.locator(".verdict").first).to_have_attribute("data-kind", kind)
    expect(answer).to_contain_text(says)


def test_the_page_and_lab_check_compare_alike(visit: Visiting, site: Path) -> None:
    results = published.load_published([str(site)], site).published
    page = visit().open(INDEX)
    switches = [{"kernel.unprivileged_userns_clone": value} for value in ("0", "1")]
    # A profile that no tested host has, one that confines the user, and another session.
    apparmor = {"profiles": {"boxlite-bwrap": "enforce"}}
    texts = [
        *(output(printed_facts(kernel="7.0", sysctls=switch)) for switch in switches),
        output(printed_facts(kernel="7.0", kvm=None), unreadable=["apparmor.profiles", "selinux"]),
        output(
            printed_facts(kernel="7.0", landlock=None, kernel_options={"TUN": None}),
            context=dict(context(nofile=256, nproc=7795, memlock=None)),
        ),
        output(
            printed_facts(kernel="7.0", apparmor=apparmor),
            context={
                "apparmor": "unconfined//&boxlite-user (enforce)",
                "session": LOGIN | {"kind": "user unit", "manager": False},
            },
        ),
    ]
    found = set()
    for text in texts:
        report = read_host_report(text)
        assert report is not None
        near = judge_host(report, results).nearest
        assert near is not None
        differing = sorted(difference.name for difference in near.comparison.differing)
        answer = compare(page, text)
        assert sorted(answer.locator("#host-differences tbody th").all_inner_texts()) == differing
        expect(answer).to_contain_text(f"of {len(near.comparison.compared)} compared settings")
        found |= set(differing)
    assert {"AppArmor profile boxlite-bwrap", "AppArmor confines the user by"} <= found
    assert {"session", "the user's service manager answers"} <= found
    assert {"limit nofile", "Landlock", "kernel built without"} <= found
    assert "limit nproc" not in found


def test_an_output_as_it_comes_by_mail_is_read_and_one_with_holes_is_not(visit: Visiting) -> None:
    page = visit().open(INDEX)
    text = printed()
    mailed = "Hello,\r\n" + "".join(f"> > {line}\r\n\r\n" for line in text.splitlines())
    expect(compare(page, mailed).locator("h3")).to_contain_text("Debian 13")
    lines = text.splitlines()
    expect(compare(page, "\n".join(lines[:20]))).to_contain_text("The end of the output is missing")
    expect(compare(page, "\n".join(lines[:-5] + lines[-4:]))).to_contain_text("Lines are missing")
    expect(compare(page, "ID=debian")).to_contain_text("holds no output of the script")


def test_no_paste_breaks_the_page_becomes_markup_or_is_sent(visit: Visiting) -> None:
    tab = visit()
    page = tab.open(INDEX)
    before = len(tab.requests)
    odd = [
        "",
        " ",
        "{",
        "null",
        "[]",
        "{}",
        '{"os": 1, "sysctls": [], "apparmor": 3}',
        "\x00\x1b[31m",
        "=\n" * 100_000,
    ]
    hostile_os = os_release(HOSTILE, HOSTILE, HOSTILE)
    outputs = [printed(os=hostile_os), printed(kernel=HOSTILE), printed(sysctls={HOSTILE: HOSTILE})]
    for text in [*outputs, *odd]:
        answer = compare(page, text)
        assert answer.locator("img, script").count() == 0
        tab.check()
        expect(answer).not_to_be_empty()
    assert page.title() != "owned"
    assert [address for address in tab.requests[before:] if not address.endswith("icon.svg")] == []
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#host-result")).to_be_empty()


def test_a_command_is_copied_by_keyboard(visit: Visiting) -> None:
    page = visit().open(INDEX)
    button = page.locator("button[data-copies=probe]")
    button.focus()
    page.keyboard.press("Enter")
    # A page from a file may have no access to the clipboard: then the text is selected, and one key copies it.
    expect(button).not_to_have_text("Copy the command")
    copied = page.evaluate(
        """async () => {
          const selected = getSelection().toString();
          return selected || navigator.clipboard.readText().catch(() => "");
        }"""
    )
    if "Selected" in button.inner_text():
        assert copied.strip() == page.locator("#probe").inner_text().strip()


def test_every_way_on_the_front_page_is_reached_by_keyboard(visit: Visiting) -> None:
    page = visit().open(INDEX)
    expected = [
        "#name",
        "#hosts a",
        "#probe",
        "button[data-copies=probe]",
        "#host-output",
        "button[type=submit]",
    ]
    reached: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        here = page.evaluate(
            "(selectors) => selectors.find((selector) => document.activeElement.matches(selector)) ?? ''",
            expected,
        )
        if here and here not in reached:
            reached.append(here)
    assert reached == expected


def test_a_script_can_be_read_and_downloaded(visit: Visiting) -> None:
    tab = visit()
    page = tab.open(INDEX)
    page.locator("#hosts a", has_text="Debian 13").first.click()
    with page.expect_download() as waiting:
        page.get_by_role("link", name=f"Download {CURE}.sh").first.click()
    assert waiting.value.suggested_filename == f"{CURE}.sh"
    assert waiting.value.path().read_text().startswith("#!/bin/sh")
    page.get_by_role("link", name="Read it here").first.click()
    expect(page.locator(f"#text-of-{CURE}")).to_be_visible()
