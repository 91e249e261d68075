"""Bug reports as people write them, and what tests ask of one that was read.

The hosts are real ones; the words are the tests' own. Their texts are in `tests/unit/data/repro/reports`.
"""

from pathlib import Path

from lab.probes import Probe
from lab.repro.reading import read_report
from lab.repro.report import Statement
from tests.builders import probe_script
from tests.builders.facts import printed_facts

FOLDER = Path(__file__).parents[1] / "unit" / "data" / "repro" / "reports"
# A page's text: flattened, with its quotes escaped, and a second time with its code left out.
TWICE = (FOLDER / "twice.md").read_text()
# boxlite's own seccomp filter, on a distribution that derives from Ubuntu.
KILLED = (FOLDER / "killed.md").read_text()
# Ubuntu's policy without an audit line, for the program that uses bubblewrap.
FAMILY = (FOLDER / "family.md").read_text()
# The same policy, for a program that is not bubblewrap; no host is named.
MOVED = (FOLDER / "moved.md").read_text()

# What the probe script prints on a Debian 13 whose limit on user namespaces is 0.
FULL = Probe(status=1, stderr="unshare: unshare failed: No space left on device", command=())
MISSING = Probe(status=None, stderr="[Errno 2] No such file or directory: 'bwrap'", command=())
PROBE = probe_script.output(
    printed_facts(
        kernel="6.12.57+deb13-amd64",
        sysctls={"user.max_user_namespaces": "0"},
        apparmor=None,
        bubblewrap=None,
    ),
    {
        **{"unshare_user": FULL, "unshare_user_root": FULL},
        **{"bwrap_user": MISSING, "bwrap_all": MISSING},
    },
    uid=1000,
    context={"apparmor": None},
)


CLONE = "kernel.unprivileged_userns_clone"
RESTRICT = "kernel.apparmor_restrict_unprivileged_userns"


def of[S: Statement](kind: type[S], text: str) -> list[S]:
    return list(read_report(text.encode()).of(kind))
