"""The support table in other forms: `support.md` for a repository, and a badge for each distribution."""

import json
from collections.abc import Iterator, Sequence

from lab.base.files import plain
from lab.report import markdown
from lab.site.model import Site
from lab.site.page import Text
from lab.site.users import hosts
from lab.site.users.answer import Answer, Kind
from lab.site.users.hosts import Host

# Names of shields.io's colours. What was not tested is never green.
COLOURS = {
    Kind.WORKS: "brightgreen",
    Kind.BLOCKED: "red",
    Kind.TROUBLE: "orange",
    Kind.UNTESTED: "lightgrey",
}
BLOCKED_BUT_CURED = "yellow"


def outputs(site: Site) -> Iterator[Text]:
    """Yield the Markdown table and the badges."""
    known = hosts.load(site)
    yield Text("support.md", table(site, known))
    for host in known:
        yield Text(host.distribution.badge, badge(host))


def table(site: Site, known: Sequence[Host]) -> str:
    """Return the support table as Markdown, escaped as all Markdown of the lab."""
    return markdown.page("support.md", site=site, hosts=known, words=words)


def badge(host: Host) -> str:
    """Return what an endpoint badge of shields.io reads: https://shields.io/badges/endpoint-badge."""
    answer = host.answer
    colour = BLOCKED_BUT_CURED if answer.cures else COLOURS[answer.kind]
    content = {
        "schemaVersion": 1,
        "label": f"boxlite on {plain(host.distribution.title)[:80]}",
        "message": plain(words(answer))[:80],
        "color": colour,
    }
    return f"{json.dumps(content, indent=1)}\n"


def words(answer: Answer) -> str:
    """Return the headline with the version that it holds for."""
    return answer.headline if answer.kind is Kind.UNTESTED else f"{answer.build}: {answer.headline}"
