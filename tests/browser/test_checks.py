"""The checks themselves: a page with every fault fails each of them."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser import checks
from tests.browser.chromium import PHONE, Visit

FAULTY = """<!doctype html><html><head><title>x</title><style>
.wide { width: 900px; colour: red } .scroll { overflow-x: auto } .spin { animation: spin 2s infinite }
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
    invalid = checks.invalid_html([site / "index.html"])
    assert any("Duplicate ID" in line for line in invalid)
    assert any(": CSS: " in line for line in invalid)
    tab.close()
    assert set(tab.foreign) == {(tmp_path / "outside.png").as_uri(), "https://example.invalid/x.png"}
    assert any("a bug" in line for line in tab.errors)
    with pytest.raises(AssertionError):
        tab.check()
