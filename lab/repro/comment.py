"""The first lines of an answer: a comment for the issue of a report, in Markdown that is also plain text.

Whatever it says of the report has the line that says so. Nothing that takes long is imported: remedies, guests
and the explanations of causes are read as data.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.base.architecture import X86_64, get_guest_architecture
from lab.base.files import cut_text, escape_commands, escape_markdown, join_lines
from lab.base.paths import PACKAGE, find_definitions
from lab.repro import judging
from lab.repro.assertions import read_remedies
from lab.repro.report import (
    A_MESSAGE,
    ANY,
    BOXLITE,
    BUBBLEWRAP,
    THE_VERSION,
    AuditLine,
    ErrorMessage,
    Finding,
    JudgedReport,
    KernelStatement,
    Mood,
    ProgramVersion,
    Quote,
    Report,
    Setting,
    Speaker,
    Statement,
    cite_lines,
)
from lab.repro.subjects import SuiteChoice

FILE = "answer.md"
# Most lines of a comment, most characters of one, and of a quotation in it.
MOST_LINES, LONGEST, LONGEST_QUOTE = 12, 900, 160
# Most causes and most remarks that a comment names.
MOST_NAMED, MOST_REMARKS = 3, 2


@dataclass(frozen=True)
class Cure:
    """A remedy as a comment names it: its `title` and its `price`; `script` prints it, if it has one.

    `verified`: on which cell the whole suite passed with it; empty if nothing was run.
    """

    title: str
    price: str
    script: str = ""
    verified: str = ""


def write_comment(
    report: Report,
    judged: JudgedReport,
    choice: SuiteChoice,
    *,
    outcome: Sequence[str] = (),
    cures: Sequence[Cure] | None = None,
) -> list[str]:
    """Return the lines of the comment.

    `outcome` is what a run showed and `cures` are those that it verified, the cheapest first; of a report for
    which nothing was run, the comment says instead what a run would show, and which cure the lab knows.
    """
    lines = [*outcome, *_say_causes(report, judged)]
    if judged.findings:
        lines += _say_cure(judged.findings[0].name, _find_program(report, judged.findings[0]), report, cures)
    elif judged.possible and not judged.instead:
        lines += _say_cure(judged.possible[0].name, "", report, cures, f"If it is {judged.possible[0].name}, ")
    lines += [] if outcome else [_say_run(report, judged, choice)]
    lines += _ask(report, judged)
    remarks = [
        f"- {escape_report(remark.text.removesuffix('.'))}{cite_lines(remark.quotes)}."
        for remark in judged.remarks
    ]
    lines += remarks[: min(MOST_REMARKS, MOST_LINES - len(lines))]
    return [escape_commands(cut_text(line, LONGEST)) for line in lines[:MOST_LINES]]


# -- what it is, and how to tell


def _say_causes(report: Report, judged: JudgedReport) -> Iterator[str]:
    """What the text shows: the cause, why, what it is and what tells it from the next best."""
    for finding in judged.findings[:MOST_NAMED]:
        is_first = finding is judged.findings[0]
        program = "" if finding.program == BUBBLEWRAP else f" for `{_code(finding.program)}`"
        # What a system ships is a reason, too.
        host = [report.host.quote] if report.host and finding.confidence == "likely" else []
        reason = f"{escape_report(finding.reason)}{cite_lines([*finding.quotes, *host])}."
        cause = f"**{finding.confidence.capitalize()}: {finding.name}**{program}"
        yield f"{'' if is_first else '- '}{cause}: {reason}"
        check, other = _say_check(finding.name), _say_check(finding.next_best)
        if is_first:
            yield f"- What it is: {unlink(read_explanation(finding.name))}"
            more = f" The next best is {finding.next_best}: {other}." if other else ""
            yield f"- To check: {check}, if it is this cause.{more}"
    if judged.findings:
        return
    for explanation in judged.instead[:1]:
        says = f"{unlink(explanation.says.removesuffix('.'))}{cite_lines(explanation.quotes)}."
        yield f"**No cause of the lab's catalogue:** {says}"
        yield f"- To check: `{explanation.command}` shows {explanation.shows}."
    if judged.possible and not judged.instead:
        several = "Several causes are" if judged.possible[1:] else "One cause is"
        yield f"**{several} possible, and none is likely:**"
    for candidate in judged.possible[: 1 if judged.instead else MOST_NAMED]:
        reasons = [*candidate.speaks_for, *(f"against it: {reason}" for reason in candidate.speaks_against)]
        said = f": {escape_report('; '.join(reasons))}" if reasons else ""
        name = f"{'If not that, ' if judged.instead else ''}**{candidate.name}**"
        yield f"- {name}{said}{cite_lines(candidate.quotes)}. To check: {_say_check(candidate.name)}."
    if judged.possible or judged.instead:
        return
    quoted: list[Statement] = [*filter(_is_known, report.of(ErrorMessage)), *report.of(AuditLine)]
    message = min((one.quote for one in quoted), key=lambda quote: quote.number, default=None)
    if message is None:
        yield "**No cause found:** the report quotes no error message that the lab knows."
    else:
        yield f"**No cause found:** the lab knows none for `{_code(message.text)}`{cite_lines([message])}."


def _say_check(cause: str) -> str:
    """The command that tells a cause from others, and what it shows."""
    checks = (row for row in judging.TABLE["check"] if row["cause"] == cause)
    return next((f"`{row['command']}` shows {row['shows']}" for row in checks), "")


def read_explanation(cause: str) -> str:
    """Return the explanation of a cause: the docstring of its rule. Empty if no rule has this name.

    It is read from the source, because the rules take as long to import as all else of a comment.
    """
    rule = re.compile(rf'@add_cause\(\s*"{re.escape(cause)}".*?"""(.*?)"""', re.DOTALL)
    texts = (file.read_text("utf-8") for file in sorted((PACKAGE / "causes").glob("*.py")))
    return next((" ".join(found[1].split()) for text in texts if (found := rule.search(text))), "")


# -- what cures it


def _say_cure(
    cause: str, program: str, report: Report, cures: Sequence[Cure] | None, condition: str = ""
) -> Iterator[str]:
    """The cure that gives up least, and its price."""
    for cure in (find_cures(cause, report, program) if cures is None else cures)[:1]:
        script = f" (`{cure.script}` prints the script)" if cure.script else ""
        verified = f"; verified on {escape_report(cure.verified)}" if cure.verified else ""
        begin = f"{condition}what cures it" if condition else "What cures it"
        yield f"- {begin}: {unlink(cure.title)}{script}{verified}. Price: {unlink(cure.price)}"


def _find_program(report: Report, finding: Finding) -> str:
    """The program that a finding is about; bubblewrap stands for boxlite, too. Empty if none is named."""
    if finding.program != BUBBLEWRAP or BOXLITE in report.topics:
        return finding.program
    messages = [message for message in report.of(ErrorMessage) if message.quote in finding.quotes]
    is_own = any(message.speaker is Speaker.BUBBLEWRAP for message in messages)
    if is_own or any(line.quote in finding.quotes for line in report.of(AuditLine)):
        return BUBBLEWRAP
    return next((one.program or "" for one in messages), "")


def find_cures(cause: str, report: Report, program: str) -> list[Cure]:
    """Return the remedies of the catalogue for a cause, the one that gives up least first.

    Left out are those that help only hosts with a setting that the report does not state, or only against
    errors that it does not quote. For another program than bubblewrap, those are left out, too, that are about
    bubblewrap or about how boxlite is run.
    """
    errors = {message.errno for message in report.of(ErrorMessage)}
    against = judging.TABLE["cures_against"]
    stated = {one.name: one.value for one in report.of(Setting) if one.mood is Mood.HOLDS}
    cures = []
    for name, remedy in read_remedies(f'"{cause}"'):
        is_own = "run" in remedy or "bubblewrap" in remedy["title"]
        is_helpful = remedy.get("helps_with", {}).items() <= stated.items()
        is_helpful &= name not in against or not errors.isdisjoint(against[name])
        # A remedy that gives up nothing skips tests, and cures nothing.
        if cause in remedy["cures"] and remedy["loss"] and is_helpful and (program == BUBBLEWRAP or not is_own):
            script = f"lab remedies show {name} --script" if "host" in remedy else ""
            cures.append(Cure(remedy["title"], " ".join(remedy["price"].split()), script))
    return cures


# -- whether it is about boxlite, what a run would show, and what else to send


def _name_programs(report: Report) -> str:
    """Whose messages a report has, each with its line: the end of a sentence."""
    names: dict[str, Quote] = {}
    for message in filter(_is_known, report.of(ErrorMessage)):
        name = message.program if message.speaker is Speaker.OTHER else str(message.speaker)
        if name:
            names.setdefault(name, message.quote)
    for line in report.of(AuditLine):
        names.setdefault(line.fields.get("comm", ANY), line.quote)
    named = [f"`{_code(name)}`{cite_lines([quote])}" for name, quote in names.items() if name != ANY]
    if named:
        return f"; its messages are those of {' and '.join(named[:2])}"
    has_message = names or any(map(_is_known, report.of(ErrorMessage)))
    return ", and the lab does not know whose messages it quotes" if has_message else ""


def _is_known(message: ErrorMessage) -> bool:
    """Whether what a program says is an error, and not only words behind its name."""
    return bool(message.operation or message.errno) or message.speaker is Speaker.BOXLITE


def _say_run(report: Report, judged: JudgedReport, choice: SuiteChoice) -> str:
    """Whether it is about boxlite, and what a run would show, on which guest."""
    ours = BOXLITE in report.topics
    foreign = "" if ours else f"The report does not name boxlite{_name_programs(report)}. "
    if choice.is_untested:
        reason = escape_report("; ".join([choice.reason, *choice.steps]))
        return f"- {foreign}A run would show nothing, so this is not tested: {reason}."
    if not (ours or judged.findings or (judged.possible and not judged.instead)):
        return f"- {foreign}A run would test boxlite in its place, and show nothing about it."
    shows = "shows whether boxlite fails there in the same way"
    if not ours:
        shows = "tests boxlite in its place, to see whether that meets the same cause there"
    system, guest = report.named_host, find_guest(report)
    shows += "".join(f"; {escape_report(step)}" for step in choice.steps)
    if guest:
        return f"- {foreign}A run, `lab repro REPORT`, boots {guest} and {shows}."
    if report.is_in_wsl:
        lack = "the lab has no guest for WSL"
    elif system is None:
        lack = "the report names no host"
        if host := report.host:
            lack += f", only what points to {escape_report(host.title)}{cite_lines([host.quote])}"
    elif system.version is None and not system.rolling:
        lack = f"the report names no release of {escape_report(system.name)}{cite_lines([system.quote])}"
    else:
        lack = f"the lab has no guest for {escape_report(system.title)}{cite_lines([system.quote])}"
    run = "A run, `lab repro REPORT --nearest`, boots the guest that comes nearest"
    return f"- {foreign}{run}, because {lack}, and {shows}."


def find_guest(report: Report) -> str | None:
    """Return the name of the guest of the host's distribution and release; None if there is none.

    If it can be, it is of the same architecture. A system in WSL2 has none, because it has another kernel.
    """
    host = None if report.is_in_wsl else report.host
    if host is None:
        return None

    def is_like_host(file: Path) -> bool:
        return get_guest_architecture(file.stem).name == (report.arch or X86_64.name)

    guests: dict[str, str] = {}
    for file in sorted(sorted((find_definitions() / "images").glob("*.toml")), key=is_like_host):
        system = re.search(r'^system = "(.+)"$', file.read_text("utf-8"), re.MULTILINE)
        guests[system[1] if system else file.stem] = file.stem
    # A rolling distribution has no releases. A point release (24.04.3, 13.2) has the VERSION_ID of its release.
    parts = [] if host.inferred or not host.version else host.version.split(".")
    releases = [f"{host.id}-{'.'.join(parts[:count])}" for count in range(len(parts), 0, -1)]
    return next((guests[name] for name in [host.id, *releases] if name in guests), None)


def _ask(report: Report, judged: JudgedReport) -> Iterator[str]:
    """What the report says of its host, and what it does not say, with the command that shows it."""
    host, kernels = report.named_host, [(f"kernel {one}", one.quote) for one in report.of(KernelStatement)]
    versions = [(str(one), one.quote) for one in report.of(ProgramVersion) if one.name == BOXLITE]
    named = [*([(host.title, host.quote)] if host else []), *kernels[:1], *versions[:1]]
    said = ", ".join(f"{escape_report(name)}{cite_lines([quote])}" for name, quote in named)
    names = f"The report names {said}. " if said else ""
    is_ours = BOXLITE in report.topics
    lacks = dict(report.missing)
    if not is_ours:
        lacks.pop(THE_VERSION, None)
    if any(explanation.quotes for explanation in judged.instead):
        lacks.pop(A_MESSAGE, None)
    if lacks:
        lacking, commands = ", ".join(map(escape_report, lacks)), "; ".join(dict.fromkeys(lacks.values()))
        probe = "; the script that `lab probe` prints shows more" if is_ours else ""
        yield f"- {names}It does not say: {lacking}. Please send what `{commands}` prints{probe}."
    elif names:
        yield f"- {names.rstrip()}"


# -- text of a report in a line of Markdown


def escape_report(text: str) -> str:
    """Escape text of a report, so that it is neither markup nor a mention of a user or of another issue."""
    return unlink(escape_markdown(text))


def unlink(markdown: str) -> str:
    """Part what GitHub would make a mention of a user or of another issue, even of escaped text."""
    return re.sub(r"([@#])(?=\w)", r"\1<!-- -->", markdown)


def _code(text: str) -> str:
    """Text of a report between backticks, where nothing can be escaped."""
    return join_lines(text.replace("`", "'"), LONGEST_QUOTE)
