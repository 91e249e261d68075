"""The checks themselves: a page with every fault fails each of them, and a missing program fails the tests."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser import checks, chromium
from tests.browser.chromium import PHONE, Visit

FAULTY = """<!doctype html><html><head><title>x</title><style>
.wide { width: 900px } .scroll { overflow-x: auto } .spin { animation: spin 2s infinite }
@keyframes spin { to { rotate: 1turn } }
</style></head><body>
<div class=wide>wide</div><div class=scroll><p class=wide>scrolls, and no key reaches it</p></div>
<p class=spin>turns</p><details><summary>more</summary><p>folded</p></details>
<img src=../outside.png><img src=https://example.invalid/x.png><p id=a></p><p id=a></p>
<script>setTimeout(() => { throw new Error("a bug") })</script>
</body></html>"""


def test_a_page_with_every_fault_fails_every_check(browser: Browser, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text(FAULTY)
    (tmp_path / "outside.png").touch()
    tab = Visit(browser, site, {"size": PHONE})
    page = tab.open("index.html")
    assert any("image-alt" in line for line in tab.axe())
    assert any("DIV.wide" in line for line in checks.sideways(page))
    assert any('class="scroll"' in line for line in checks.scrolling_without_focus(page))
    assert len(checks.unreadable_on_paper(page)) == 1
    assert any('class="spin"' in line for line in checks.moving(page))
    assert any("Duplicate ID" in line for line in checks.invalid_html([site / "index.html"]))
    tab.close()
    assert set(tab.foreign) == {(tmp_path / "outside.png").as_uri(), "https://example.invalid/x.png"}
    assert any("a bug" in line for line in tab.errors)
    with pytest.raises(AssertionError):
        tab.check()


def test_a_missing_program_fails_the_tests_and_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": "debian"})
    with pytest.raises(pytest.fail.Exception, match=r"./setup.sh test installs it \(the package chromium\)"):
        chromium.browser_program()


def test_only_ubuntu_without_google_chrome_skips_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/snap/bin/{name}" if name == "chromium" else None)
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": "ubuntu"})
    with pytest.raises(pytest.skip.Exception, match="as a snap only"):
        chromium.browser_program()
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert chromium.browser_program() == "/usr/bin/google-chrome"
