"""The front page: find a host by its distribution, or by what the probe script prints on it."""

from collections.abc import Iterator

from markupsafe import escape

from lab.probes import script
from lab.site.model import Site
from lab.site.page import Output, Page, Text
from lab.site.users import changes, host_data, host_pages, hosts

SCRIPT_FILE = "probe.sh"


def outputs(site: Site) -> Iterator[Output]:
    """Yield the front page and the data that its script compares with."""
    known = hosts.load(site)
    values = {
        **host_pages.HELPERS,
        "site": site,
        "hosts": known,
        # The lab's own text, and not cut as a record's text is.
        "command": escape(script.command(host_data.sysctls(site))),
        "script": SCRIPT_FILE,
        "changed": changes.summary(changes.find(site.history)),
    }
    scripts = (host_data.DATA_FILE, "host-reader.js", "host-finder.js")
    yield Page("index.html", "Will boxlite work on my host?", "index.html", values, "Hosts", scripts)
    yield host_data.output(site, known)
    yield Text(SCRIPT_FILE, script.text(host_data.sysctls(site)))
