"""Causes that a report's audit lines and its output of the probe script show, by the rules of the causes.

The rules judge them as they judge a cell's evidence. Only these prove a cause.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from lab import causes
from lab.causes.evidence import Evidence, parse_confining_profile
from lab.probes import NONE_RUN, Probe
from lab.probes.report import HostReport
from lab.record import Confidence
from lab.repro.report import BUBBLEWRAP, AuditLine, ErrorMessage, Finding, ProbeOutput, Report

# Most programs that a report is judged for.
MOST_PROGRAMS = 10
# A child of systemd's before it becomes the program of a service: in brackets, the last characters of its name.
CHILD, MOST_OF_CHILD = re.compile(r"\(.+\)$"), 8
# boxlite's own threads and processes, which make namespaces before and after bubblewrap.
BOXLITE = re.compile(r"boxlite.*|tokio-rt-worker")


def find_findings(report: Report, about_others: Mapping[str, str]) -> Iterator[Finding]:
    """What the rules of the causes find for each program that is blocked, bubblewrap first.

    `about_others`: what a field of an audit line must be, by the cause, if it is about another program.
    """
    lines = list(report.of(AuditLine))
    probed = next((probed for probed in report.of(ProbeOutput) if probed.host), None)
    if not lines and probed is None:
        return
    is_quoted = any(message.operation for message in report.of(ErrorMessage))
    programs = dict.fromkeys([BUBBLEWRAP, *map(_program_of, lines)])
    for program in [name for name in programs if name != "unshare"][:MOST_PROGRAMS]:
        program_lines = [line for line in lines if _program_of(line) in (program, "unshare")]
        host = probed.host if probed and program == BUBBLEWRAP else None
        for name, cause in causes.list_causes().items():
            evidence = cause.rule(_evidence(program_lines, program, host))
            if evidence is None:
                continue
            telling = [line for line in program_lines if cause.rule(_evidence([line], program, None))]
            # systemd's children, "(name)", are denied mounts in containers, too, where something else fails.
            if is_quoted and telling and all(CHILD.match(line.fields.get("comm", "")) for line in telling):
                continue
            # Profiles of services and snaps deny other programs a lot all the time, and nothing fails.
            about = re.compile(about_others.get(name, ""), re.MULTILINE)
            if program != BUBBLEWRAP and not any(about.search(line.written) for line in telling):
                continue
            by_probe = host is not None and cause.rule(_evidence([], program, host)) is not None
            # Lines of boxlite's thread and of `unshare` are logged where bubblewrap works, too.
            by_line = any(
                _is_denial(line.fields) and "comm" in line.fields and _name_of(line) == program
                for line in telling
            )
            is_proved = by_line or (by_probe and evidence.confidence is Confidence.PROVED)
            reason = evidence.reason
            if telling and not any("comm" in line.fields for line in telling):
                reason += "; the audit line, as it is quoted, names no program"
            quotes = [line.quote for line in telling] + ([probed.quote] if probed and by_probe else [])
            yield Finding(
                name, "proved" if is_proved else "likely", reason, tuple(dict.fromkeys(quotes)), program
            )


def _is_denial(fields: Mapping[str, str]) -> bool:
    """Whether the kernel refused something with this audit line, rather than only told of it."""
    return fields.get("apparmor") == "DENIED" or ("avc" in fields and fields.get("permissive") != "1")


def _program_of(line: AuditLine) -> str:
    """Return the program that an audit line is about: bubblewrap if it names boxlite's own or none."""
    name = _name_of(line)
    return BUBBLEWRAP if BOXLITE.fullmatch(name) else name


def _name_of(line: AuditLine) -> str:
    """The program that an audit line names. A child of systemd's counts as the program that it becomes.

    Of a long name systemd keeps only the end: then it stays as it is written.
    """
    name = line.fields.get("comm", BUBBLEWRAP)
    return name if len(name) >= MOST_OF_CHILD + len("()") else name.strip("()")


def _evidence(lines: Sequence[AuditLine], program: str, host: HostReport | None) -> Evidence:
    """Audit lines about a program, which stands for bubblewrap in it, and the probe's output, as evidence.

    Without a probe's output the program failed, and nobody quotes its words.
    """
    failed = NONE_RUN.model_copy(update={"bwrap_user": Probe(status=1, stderr="", command=())})
    sysctls = host.facts.sysctls.items() if host else ()
    return Evidence(
        probes=host.probes if host else failed,
        profile=parse_confining_profile(host.who.context.apparmor) if host else None,
        container=host.who.container if host else None,
        sysctls={name: value for name, value in sysctls if value is not None},
        audit=[{"comm": program, **line.fields} for line in lines],
        programs=tuple(dict.fromkeys([program, *(line.fields.get("comm", program) for line in lines)])),
    )
