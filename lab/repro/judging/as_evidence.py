"""A report as the evidence of a cell, as far as it goes."""

import re
from collections.abc import Iterable, Sequence

from lab.causes.evidence import Evidence
from lab.probes import NONE_RUN, Probe
from lab.probes.facts import STACKED, read_label
from lab.repro.judging._base import BUBBLEWRAP
from lab.repro.report import AuditLine, Ended, Mood, Place, Probed, Report, Setting, Speaker, Statement, Words

# How messages begin that tell of a refused user namespace, and of what is refused in one.
REFUSED = ("unshare: unshare failed", "clone(CLONE_NEWUSER) errno")
UID_MAP = "unshare: write failed"
# A report is judged for no more programs than this.
MOST_PROGRAMS = 10
# boxlite's own threads and processes, which make namespaces before and after bubblewrap.
BOXLITE = re.compile(r"boxlite.*|tokio-rt-worker")


def programs(report: Report) -> list[str]:
    """Return the programs that audit lines name, bubblewrap first: each may be blocked for its own reason."""
    named = [program_of(line) for line in report.of(AuditLine)]
    return list(dict.fromkeys([BUBBLEWRAP, *(each for each in named if each != "unshare")]))[:MOST_PROGRAMS]


def program_of(line: AuditLine) -> str:
    """Return the program that an audit line is about: bubblewrap if it names boxlite's own or none."""
    name = line.fields.get("comm", BUBBLEWRAP)
    return BUBBLEWRAP if BOXLITE.fullmatch(name) else name


def evidence_of(statements: Iterable[Statement], program: str = BUBBLEWRAP) -> Evidence:
    """Return the evidence of statements about a program, which stands for bubblewrap in it.

    What was tried as a cure does not hold. What the probe script found out is a cell's own evidence.
    """
    known: Sequence[Statement] = tuple(statements)
    words = [each for each in known if isinstance(each, Words)] if program == BUBBLEWRAP else []
    settings = [each for each in known if isinstance(each, Setting)] if program == BUBBLEWRAP else []
    lines = [each for each in known if isinstance(each, AuditLine) and program_of(each) in (program, "unshare")]
    failed = _failure([each for each in words if each.speaker is Speaker.BUBBLEWRAP])
    if program != BUBBLEWRAP:
        failed = Probe(status=1, stderr="", command=())
    probes = {
        "bwrap_user": failed,
        "unshare_user": _failure([each for each in words if each.text.startswith(REFUSED)]),
        "unshare_user_root": _failure([each for each in words if each.text.startswith((*REFUSED, UID_MAP))]),
    }
    # boxlite tells how the shim ended in a line of its message.
    ended = tuple(each.quote.text for each in known if isinstance(each, Ended) and program == BUBBLEWRAP)
    said = NONE_RUN.model_copy(update={name: each for name, each in probes.items() if each is not None})
    probed = [each.host for each in known if isinstance(each, Probed) and each.host and program == BUBBLEWRAP]
    label = read_label(probed[0].who.context.apparmor) if probed else None
    return Evidence(
        probes=probed[0].probes if probed else said,
        profile=STACKED.join(label.profiles) if label and label.confines else None,
        sysctls={
            **{
                each.name: each.value
                for each in settings
                if each.value is not None and each.mood is Mood.HOLDS and each.place is Place.HOST
            },
            **{
                name: value
                for host in probed
                for name, value in host.facts.sysctls.items()
                if value is not None
            },
        },
        audit=[{"comm": program, **line.fields} for line in lines],
        messages=tuple(each.text for each in words if each.speaker is Speaker.BOXLITE) + ended,
        programs=tuple(dict.fromkeys([program, *(line.fields.get("comm", program) for line in lines)])),
    )


def _failure(words: Sequence[Words]) -> Probe | None:
    """A probe that failed with these messages; None if there are none."""
    return Probe(status=1, stderr="\n".join(each.text for each in words), command=()) if words else None
