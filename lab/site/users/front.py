"""The front page: find a host by its distribution, or by what a command on it prints."""

from collections.abc import Iterator

from lab.site.model import Site
from lab.site.page import Output, Page
from lab.site.users import changes, host_data, host_pages, hosts

# What the command reads beside the sysctls. It needs no root and changes nothing. No single quote: sh -c '...'.
COMMAND = """\
sh -c '
export LC_ALL=C
cat /etc/os-release
uname -r
cat /sys/kernel/security/lsm
{sysctls}
getenforce
bwrap --version
ls -ld /usr/bin/bwrap /dev/kvm
echo "home: $(findmnt -no OPTIONS -T "$HOME")"
echo "tmp: $(findmnt -no OPTIONS -T /tmp)"
' 2>&1"""


def outputs(site: Site) -> Iterator[Output]:
    """Yield the front page and the data that its script compares with."""
    known = hosts.load(site)
    values = {
        **host_pages.HELPERS,
        "site": site,
        "hosts": known,
        "command": command(host_data.sysctls(site)),
        "changed": changes.summary(changes.find(site.history)),
    }
    scripts = (host_data.DATA_FILE, "host-finder.js")
    yield Page("index.html", "Will boxlite work on my host?", "index.html", values, "Hosts", scripts)
    yield host_data.output(site, known)


def command(sysctls: list[str]) -> str:
    """Return the command that prints what decides about boxlite on a host."""
    # A name comes from a record, and goes into a command that users run: only names that need no quoting.
    files = [f"/proc/sys/{name.replace('.', '/')}" for name in sysctls if _is_plain(name)]
    return COMMAND.format(sysctls="grep -H . " + " \\\n  ".join(files) if files else "true")


def _is_plain(name: str) -> bool:
    return name.isascii() and name.replace(".", "").replace("_", "").isalnum() and ".." not in name
