"""Reading a bug report: its text, in any of the forms in which it arrives, as statements.

Nothing of a report is executed or fetched. Its size is bounded, and each line is read in linear time. Messages,
systems and settings have modules of their own; what is short stands here.
"""

import re
import signal
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from itertools import islice
from pathlib import Path

from lab.base.errors import UsageError
from lab.base.files import bounded
from lab.probes import report as probe_report
from lab.probes.report import QUOTE_MARKS, HostReport
from lab.repro import changes, messages, source, systems
from lab.repro.lines import LONGEST, Read, Text, matches, quote
from lab.repro.report import (
    AuditLine,
    Boxlite,
    Command,
    Ended,
    Kernel,
    LogLine,
    Mood,
    NamedTest,
    Place,
    Probed,
    Program,
    Quote,
    Report,
    Setting,
    Statement,
    System,
)
from lab.repro.source import MOST_BYTES, Kind, Line, how_to_give, parse

__all__ = ["MOST_BYTES", "how_to_give", "read"]

# The most lines that are kept as not understood, the longest title in characters, and the most statements of
# one kind that a report is read for; a log may hold thousands.
MOST_UNREAD = 200
LONGEST_TITLE = 200
MOST = 200
# As many are looked at: most of a long log says the same.
MOST_READ = 1_000
NO_TITLE = re.compile(r'^[$#] |="[^"]*" \w+=|:$')
# What an error of Python's shows beside the error.
TRACEBACK = re.compile(r'^\s*(?:Traceback \(most recent call last\):|File ".*", line \d+.*)$')
# What a line of prose holds that nothing understood and that may matter.
TECHNICAL = re.compile(
    r"\b(?:errors?|denied|permission|permitted|panic(?:ked)?|errno|killed|signal|unable|refused|seccomp|apparmor|"
    r"selinux|capabilit(?:y|ies)|cap_\w+|sysctl|kvm|landlock|cgroups?)\b|/(?:proc|sys|dev|etc)/|\w=\w",
    re.IGNORECASE,
)
KNOWLEDGE = Path(__file__).with_name("judging.toml")


def read(data: bytes) -> Report:
    """Read a report. Raises UsageError for what is none."""
    origin = source.source(data)
    lines = parse(origin.text)
    output = _probe_lines(lines)
    exact = {line.number for line in output}
    text = Text([line for line in lines if line.number not in exact])
    of_lines = (
        _audit_lines(text),
        _boxlites(text),
        _commands(text),
        systems.read(text),
        _endings(text),
        _kernels(text),
        _log_lines(text),
        _named_tests(text),
        _programs(text),
        changes.read(text),
        messages.read(text, AUDIT_BEGINS),
    )
    everything = [*_probed(output), *(each for kind in of_lines for each in islice(kind, MOST_READ))]
    everything.sort(key=lambda each: each.statement.quote.number)
    named = merged(each.statement for each in everything)
    named = merged(systems.completed(named))
    statements = sorted([*named, *systems.inferred(named)], key=lambda each: each.quote.number)
    return Report(
        title=_title(text.lines),
        statements=tuple(statements),
        unread=_unread(text, everything),
        size=origin.size,
        cut=origin.cut,
        topics=_topics(text),
    )


def _title(lines: Iterable[Line]) -> str:
    """The first line in words; a heading only if it is a page's, not a form's or a section's."""
    texts = (
        line.text.strip()
        for line in lines
        if (line.kind is Kind.PROSE and not line.raw.startswith(">"))
        or (line.kind is Kind.HEADING and not line.raw.lstrip().startswith("##"))
    )
    return bounded(
        next((text for text in texts if " " in text and not NO_TITLE.search(text)), ""), LONGEST_TITLE
    )


def _unread(text: Text, everything: Iterable[Read]) -> tuple[Quote, ...]:
    """The lines that look technical and that nothing understood, each text once."""
    understood = {number for each in everything for number in range(each.statement.quote.number, each.last + 1)}
    understood |= {text.lines[index].number for index in text.advice}
    left = {
        line.raw.strip(): quote(line)
        for line in reversed(text.lines)
        if line.number not in understood
        and (line.kind is Kind.CODE or TECHNICAL.search(line.text))
        and not TRACEBACK.match(line.text)
    }
    return tuple(sorted(left.values(), key=lambda each: each.number)[:MOST_UNREAD])


@cache
def _topic_patterns() -> Mapping[str, re.Pattern[str]]:
    rows = tomllib.loads(KNOWLEDGE.read_text())["topic"]
    return {row["name"]: re.compile(row["pattern"], re.IGNORECASE) for row in rows}


def _topics(text: Text) -> dict[str, Quote]:
    """What the text is about beside its statements, each with the first line that says so."""
    topics: dict[str, Quote] = {}
    for line in text.lines:
        words = line.labelled
        for name, pattern in _topic_patterns().items():
            if name not in topics and pattern.search(words):
                topics[name] = quote(line)
    return topics


# -- the kernel's audit log, in every form in which people paste it

AUDIT_BEGINS = re.compile(r"apparmor=\\?\"?[A-Z]+|avc:\s+(?:denied|granted)|\btype=(?:1326|SECCOMP)\b")
# Another line of a log: it does not continue the one before.
NEW_LINE = re.compile(r"^\W*(?:type=|audit|\[ *\d+\.\d+\]|avc:|\w{3} +\d+ \d\d:|\d{4}-\d\d-\d\d|[$#] )")
CONTINUES = re.compile(r"^\s*\S*\w=\S")
# At most so many lines are one wrapped line.
MOST_WRAPPED = 8
KEY = re.compile(r"(?:^|(?<=[\s,(]))(\w+)=")
DENIED = re.compile(r"avc:\s+denied\s+\{([^}]*)\}")
# Without these the line says too little to be one.
TELLING = ("operation", "avc", "syscall", "sig")
# What `ausearch -i` prints for numbers; capabilities(7).
CAPABILITIES = {
    "sys_admin": "21",
    "setpcap": "8",
    "sys_ptrace": "19",
    "setuid": "7",
    "setgid": "6",
    "net_admin": "12",
}
# Fields whose values hold spaces, which `ausearch -i` prints without quotes.
SPACED = ("info", "name", "comm", "exe", "proctitle", "denied", "requested", "flags")


def _audit_lines(text: Text) -> Iterator[Read]:
    index = 0
    while index < len(text.lines):
        line = text.lines[index]
        index += 1
        if not AUDIT_BEGINS.search(line.text):
            continue
        whole, last, written = line.text, line.number, [line.raw.strip()]
        for after in text.lines[index : index + MOST_WRAPPED]:
            if not _continues(whole, last, after):
                break
            whole, last, index = _joined(whole, after.text), after.number, index + 1
            written.append(after.raw.strip())
        values = _fields(whole.replace('\\"', '"'))
        if any(key in values for key in TELLING):
            whole_quote = replace(quote(line), text=bounded(" ".join(written), LONGEST))
            yield Read(AuditLine(whole_quote, values), last)


def _continues(begun: str, last: int, line: Line) -> bool:
    if line.number != last + 1 or NEW_LINE.match(line.text):
        return False
    if begun.replace('\\"', '"').count('"') % 2 == 1:
        return True
    # A line that begins as an audit line does is one of its own.
    return CONTINUES.match(line.text) is not None and not AUDIT_BEGINS.match(line.text.strip())


def _joined(begun: str, rest: str) -> str:
    """Join what a terminal wrapped: within a word if the last word is no whole `key=value`."""
    word = begun.rsplit(None, 1)[-1] if begun.strip() else ""
    quotes = begun.replace('\\"', '"').count('"')
    whole = "=" in word or word.endswith(('"', "}", ":", "for")) or begun.endswith(" ")
    return f"{begun}{'' if quotes % 2 == 1 or not whole else ' '}{rest.strip()}"


def _fields(line: str) -> dict[str, str]:
    """Return the fields of a line. See `lab.causes.evidence`, which reads lines that nobody edited."""
    values: dict[str, str] = {}
    keys = list(KEY.finditer(line))
    interpreted = '="' not in line
    at = 0
    for key, following in zip(keys, [*keys[1:], None], strict=False):
        if key.start() < at:
            continue  # Inside the quotes of the field before.
        rest = line[key.end() :]
        if rest.startswith('"'):
            value = rest[1:].partition('"')[0]
            at = key.end() + len(value) + 2
        elif interpreted and key[1] in SPACED:
            value = line[key.end() : following.start() if following else len(line)].strip()
        else:
            value = (rest.split(None, 1) or [""])[0].rstrip("`)\"',")
        values.setdefault(key[1], value)
    if denied := DENIED.search(line):
        values["avc"] = denied[1].strip()
        # A record of the system call that was refused tells that the denial was enforced, even if it was cut
        # off.
        if "permissive" not in values and values.get("success") == "no":
            values["permissive"] = "0"
    capability = values.get("capability", "")
    if capability in CAPABILITIES:
        values |= {"capability": CAPABILITIES[capability], "capname": capability}
    return values


# -- boxlite: its version, and how it was installed

VERSION = r"(\d+\.\d+(?:\.\d+)?(?:(?:a|b|rc|\.dev|\.post|-alpha\.|-beta\.|-rc\.)\d+)?)"
BOXLITE = re.compile(
    r"(?:@boxlite-ai/)?boxlite(?:[ -](?:sdk|cli|version|release|python|wheel)){0,3}"
    rf"[ :=\"'(v@~^-]{{1,6}}{VERSION}(?![\w+])(?!\.\d)",
    re.IGNORECASE,
)
# How it was installed, beside the version.
WAY = re.compile(
    r"\s*(?:\(|,?(?: installed)? (?:with|via|by|from|using) )(?:the )?(pip|PyPI|npm|cargo|source)\b",
    re.IGNORECASE,
)
RUNTIME = re.compile(rf"/boxlite/runtimes/v{VERSION}")
# A question whose answer is the next line.
ASKS_VERSION = re.compile(r"\bboxlite\.__version__|\bboxlite (?:--version|-V)\s*$")
VERSION_ALONE = re.compile(rf"^\s*{VERSION}\s*$")
# What `pip show boxlite` prints.
NAME_LINE, VERSION_LINE = re.compile(r"^\s*Name:\s*boxlite\s*$"), re.compile(rf"^\s*Version:\s*{VERSION}\s*$")
INSTALLED = {
    "pip": re.compile(r"\b(?:pip3? install|pip show|uv add|poetry add)\b[^|;&]{0,80}\bboxlite\b"),
    "npm": re.compile(r"\b(?:npm|pnpm|yarn) (?:i|install|add)\b[^|;&]{0,80}boxlite|@boxlite-ai/boxlite\b"),
    "cargo": re.compile(r"\bcargo (?:add|install)\b[^|;&]{0,80}\bboxlite\b(?!-cli)"),
    "cli": re.compile(r"\bcargo install\b[^|;&]{0,80}\bboxlite-cli\b|\bboxlite (?:run|--version)\b"),
    "source": re.compile(r"\bgit clone\b[^|;&]{0,80}/boxlite\b|\bmake (?:runtime|test):\w+"),
}


def _boxlites(text: Text) -> Iterator[Read]:
    shows = asks = False
    for line in text.lines:
        for pattern in (BOXLITE, RUNTIME):
            for match in matches(pattern, line.labelled):
                way = WAY.match(line.labelled[match.end() :])
                how = way[1].lower().replace("pypi", "pip") if way else None
                yield Read(Boxlite(quote(line), match[1], how), line.number)
        if shows and (printed := VERSION_LINE.match(line.text)):
            yield Read(Boxlite(quote(line), version=printed[1], installed_by="pip"), line.number)
        if asks and (printed := VERSION_ALONE.match(line.text)):
            yield Read(Boxlite(quote(line), version=printed[1]), line.number)
        asks = ASKS_VERSION.search(line.raw) is not None
        shows = NAME_LINE.match(line.text) is not None
        for how, command in INSTALLED.items():
            if command.search(line.text):
                yield Read(Boxlite(quote(line), installed_by=how), line.number)


# -- commands that the reporter ran

PROMPT = re.compile(r"^\s*(?:\[?[\w.-]+@[\w.-]+[: ][^$#%]{0,80}\]?)?[$#%❯➜] +(?=\S)")
# In prose it would be a quotation.
QUOTE_PROMPT = re.compile(r"^\s*> +(?=\S)")
PROGRAM = re.compile(
    r"^(?:sudo (?:-\w+ )*)?(?:\w+=\S* )*(?:\./)?"
    r"(?:git|make|cargo|apt(?:-get)?|dnf|pacman|pip3?|uv|npm|sysctl|cat|echo|grep|ls|bwrap|unshare|dmesg|journalctl|"
    r"ausearch|aa-\w+|apparmor_parser|getenforce|setenforce|docker|podman|python3?|curl|"
    r"boxlite(?= (?:run|exec|ls|list|ps|pull|rm|start|stop|create|logs|images|-))|"
    r"modprobe|uname|lsb_release|lsmod|id|groups|usermod|chmod|chown|systemctl|strace|mount|kvm-ok|firejail|node|npx|ulimit|"
    r"prlimit)(?: |$)"
)
# Words of a sentence, which no command line holds, and how a sentence ends; a version after a program's name.
SENTENCE = re.compile(
    r"(?:^|[\s(])(?:the|that|is|are|and|sure|it|this|to|does|not|no|with|we|you|fails?|failed|succeeds|then|when|because|"
    r"but|cannot|can't|error|again|working|works|crash(?:es|ed)?)(?=[\s),]|$)|"
    r"[.?!:,;]$|\w:\s|^\S+ (?:version )?v?\d+\.\d+\S*"
)
# A sentence about a command line, for example: bwrap --unshare-user ... succeeds
ABOUT = re.compile(
    r"^((?:sudo )?(?:bwrap|unshare|boxlite|aa-exec|cargo|docker|podman) "
    r"(?:-{1,2}\S+|run|exec|test|build).{0,400}?) "
    r"(?:succeeds|works|fails|prints|says|gives|returns)\b"
)


# A command of a chat program, such as /sandbox.
SLASH_COMMAND = re.compile(r"/[\w-]+(?: |$)")


def _commands(text: Text) -> Iterator[Read]:
    goes_on = False
    for index, line in enumerate(text.lines):
        # A title is no command, nor is the rest of one.
        if not goes_on and index not in text.advice and line.kind is not Kind.HEADING:
            command = _command(line)
            if command and not SLASH_COMMAND.match(command):
                yield Read(Command(quote(line), command), line.number)
        goes_on = line.text.rstrip().endswith("\\")


def _command(line: Line) -> str | None:
    if prompt := PROMPT.match(line.text) or (QUOTE_PROMPT.match(line.text) if line.kind is Kind.CODE else None):
        rest = line.text[prompt.end() :].strip()
        # A line of code that begins with # may also be a comment.
        return rest if "#" not in prompt[0] or (PROGRAM.match(rest) and not SENTENCE.search(rest)) else None
    words = line.text.strip()
    if about := ABOUT.match(words):
        return about[1]
    return words if PROGRAM.match(words) and not SENTENCE.search(words) else None


# -- exit statuses and signals

# A shell's exit status of a program that a signal ended.
BY_SIGNAL = 128
STATUS = re.compile(
    r"(?<![\w-])(?:(?:exit(?:ed)?|return(?:ed)?)(?:\s+(?:with|code|status|value|non-zero)){0,4}|status)[\s:=(]{1,3}"
    r"(\d{1,3})\b(?!\.\d|/|>| OK\b)|\bcode=exited, status=(\d{1,3})/",
    re.IGNORECASE,
)
SIGNAL_NAME = re.compile(r"\b(SIG(?:SYS|SEGV|KILL|TERM|ABRT|BUS|ILL|FPE|TRAP|PIPE|INT|HUP))\b")
SIGNAL_NUMBER = re.compile(
    r"\bsignal[:= ]{1,2}(\d{1,2})\b|(?<!code=exited, )\bstatus=(\d{1,2})/[A-Z]+", re.IGNORECASE
)
# What shells and the kernel print instead of a signal's name.
SIGNAL_WORDS = {
    "Bad system call": "SIGSYS",
    "Segmentation fault": "SIGSEGV",
    "Illegal instruction": "SIGILL",
}
SIGNALS = {each.value: each.name for each in signal.Signals}


def _endings(text: Text) -> Iterator[Read]:
    for line in text.lines:
        for status in _statuses(line.text):
            yield Read(Ended(quote(line), status, SIGNALS.get(status - BY_SIGNAL)), line.number)


def _statuses(text: str) -> Iterator[int]:
    statuses = (int(match[1] or match[2]) for match in matches(STATUS, text))
    yield from (status for status in statuses if status < 256)
    names = [match[1] for match in matches(SIGNAL_NAME, text)]
    names += [name for words, name in SIGNAL_WORDS.items() if words in text]
    yield from (BY_SIGNAL + signal.Signals[name] for name in names)
    numbers = (int(match[1] or match[2]) for match in matches(SIGNAL_NUMBER, text))
    yield from (BY_SIGNAL + number for number in numbers if number in SIGNALS)


# -- kernels, programs, logs, tests

RELEASE = r"\d\.\d{1,2}(?:\.\d{1,3})?(?:[-+.~][\w.+~-]*[\w])?"
KERNEL_NAMED = re.compile(
    r"\b(?:linux(?: kernel)?(?: version)?|kernel(?: version| release)?|uname(?: -\w+)?)"
    rf"[\s:=(\"'v-]{{1,4}}({RELEASE})(?![+\w])",
    re.IGNORECASE,
)
# Releases that distributions give to kernels, which need no word before them.
KERNEL_BARE = re.compile(
    r"(?<![\w.-])(\d\.\d{1,2}\.\d{1,3}[-+.~][\w.+~-]*?"
    r"(?:generic|aws|azure|gcp|lowlatency|amd64|arm64|x86_64|pve|zen\d?|hardened|arch\d[\w.-]*|fc\d\d[\w.]*|el\d[\w.]*|"
    r"amzn\d+[\w.]*|rpi-v[78]l?|MANJARO|WSL2|default|lts|tinycore\w*)"
    r"(?:[-.][\w.]+)*)(?![\w-])"
)
# What Python's platform.platform() adds.
PLATFORM = re.compile(r"-(?:x86_64|aarch64)-with-\S+$")
UNAME = re.compile(rf"\bLinux \S{{1,255}} ({RELEASE}) #\d")
# Kernels that have something, not the one that runs.
OTHER_KERNELS = re.compile(
    r"(?:≥|>=?|<=?|since|until|before|from|requires?|needs?)\s*(?:linux |kernel )*$", re.IGNORECASE
)
# Before a version: another one than the reporter has.
OTHER_VERSION = re.compile(
    r"\b(?:(?:revert\w*|downgrad\w+|(?:roll\w*|going|go|went|switch\w*) back)(?: to)?|upgraded? from|fixed in|"
    r"(?:works?|worked|fine) (?:in|with|on)|since|until|before|requires?|needs?|at least|unlike)\s*(?:the )?$|"
    r"[<>≥]=?\s*$",
    re.IGNORECASE,
)
OR_NEWER = re.compile(r"\s*(?:\+|or (?:newer|later|above)|and (?:newer|later|above))")
# How people write the name of each program beside boxlite.
PROGRAMS = {
    "bubblewrap": r"bubblewrap|bwrap",
    "apparmor": r"apparmor(?:_parser)?|AppArmor parser",
    "python": r"c?python3?",
    "podman": "podman",
    "docker": r"docker(?: engine)?",
    "systemd": "systemd",
    "glibc": r"g?libc",
    "libkrun": "libkrun",
    "firejail": "firejail",
    "codex": r"codex(?: cli)?",
    "node": r"node(?:\.?js)?",
    "rustc": r"rustc|rust",
    "qemu": r"qemu",
}
PROGRAM_VERSION = re.compile(
    rf"(?<![\w/.-])(?:{'|'.join(f'(?P<{name}>{written})' for name, written in PROGRAMS.items())})"
    r"(?!:\d)(?:[ ,:=\"'(v@-]|version|is ){1,12}(?P<version>\d+\.\d+(?:\.\d+)*(?:[-~+.][\w.~+-]*\w)?)(?!\w|\+)",
    re.IGNORECASE,
)
LOG_LINE = re.compile(r"^\s*\S{10,40}Z?\s+(TRACE|DEBUG|INFO|WARN|ERROR)\s+([\w:]*\bboxlite[\w:]*): (.+)$")
# How Rust's and Python's test runners name a test that fails.
FAILED_TEST = re.compile(
    r"\btest ([\w:]{3,200}) \.\.\. FAILED|"
    r"\bFAIL(?:ED)?\s+(?:\[[^\]]{1,20}\]\s+)?(?:\([^)]{1,20}\)\s+)?(?:[\w:-]{1,100}\s+)?([\w/.]{1,200}(?:::\w+)+)|"
    r"(?<![\w:])jailer::(\w{3,100})|([\w/.]{1,200}\.py::\w+) FAILED"
)
PASSES = re.compile(r"\b(?:pass(?:es|ed)?|ok|succeeds?|works?)\b", re.IGNORECASE)
FAILS = re.compile(r"\bfail|\berror|\bignore", re.IGNORECASE)


def _kernels(text: Text) -> Iterator[Read]:
    for line in text.lines:
        words = line.labelled
        for pattern in (UNAME, KERNEL_NAMED, KERNEL_BARE):
            for match in matches(pattern, words):
                if OTHER_KERNELS.search(words[: match.start()]) or OR_NEWER.match(words[match.end() :]):
                    continue
                yield Read(Kernel(quote(line), PLATFORM.sub("", match[1])), line.number)


def _programs(text: Text) -> Iterator[Read]:
    for line in text.lines:
        for match in matches(PROGRAM_VERSION, line.labelled):
            if OTHER_VERSION.search(line.labelled[: match.start()]):
                continue
            name = next(name for name in PROGRAMS if match[name])
            yield Read(Program(quote(line), name, match["version"]), line.number)


def _log_lines(text: Text) -> Iterator[Read]:
    for line in text.lines:
        if entry := LOG_LINE.match(line.text):
            yield Read(LogLine(quote(line), entry[1], entry[2], entry[3]), line.number)


def _named_tests(text: Text) -> Iterator[Read]:
    tests: Sequence[str] = ()
    if any("jailer" in line.text or FAILED_TEST.search(line.text) for line in text.lines):
        # Most reports name no test, and the catalog takes long to import.
        from lab import catalog

        tests = tuple(catalog.load_suite("jailer").tests)
    for line in text.lines:
        if PASSES.search(line.text) and not FAILS.search(line.text):
            continue
        here = [name for name in tests if name in line.text]
        for name in here:
            yield Read(NamedTest(quote(line), name, known=True), line.number)
        for match in matches(FAILED_TEST, line.text):
            name = next(filter(None, match.groups()))
            if not any(test in name for test in here):
                yield Read(NamedTest(quote(line), name, known=False), line.number)


# -- the output of the probe script: read exactly, and by nothing else


def _probe_lines(lines: Sequence[Line]) -> list[Line]:
    """Return the lines of the first output of the probe script, which may be cut off."""
    return list(lines[probe_report.find([line.raw for line in lines])])


def _probed(lines: Sequence[Line]) -> list[Read]:
    """Return what the lines of an output tell."""
    if not lines:
        return []
    last = lines[-1].number
    try:
        host = probe_report.read("\n".join(line.raw for line in lines))
    except UsageError as error:
        return [Read(Probed(quote(lines[0]), None, str(error.args[0])), last)]
    if host is None:
        return []
    return [Read(each, last) for each in (Probed(quote(lines[0]), host), *_facts(host, lines))]


def _facts(host: HostReport, lines: Sequence[Line]) -> Iterator[Statement]:
    """Yield the facts that reports tell in words too."""

    def at(name: str) -> Quote:
        begin = f"{name.lower()}: "
        told = (line for line in lines if line.raw.strip(QUOTE_MARKS).lower().startswith(begin))
        return quote(next(told, lines[0]))

    facts, place = host.facts, Place.CONTAINER if host.who.container else Place.HOST
    system = facts.os
    if system.id is not None:
        like = systems.family(system.id) or next(iter(host.id_like), system.id)
        name = system.pretty_name or system.id
        parent = None if like == system.id else like
        yield System(at("system"), system.id, system.version_id, name, place, parent)
    yield Kernel(at("kernel"), facts.kernel)
    versions = {"bubblewrap": facts.bubblewrap, "apparmor": facts.apparmor}
    for program, version in versions.items():
        if version is not None and version.version is not None:
            yield Program(at(program), program, version.version)
    for sysctl, value in facts.sysctls.items():
        if value is not None:
            yield Setting(at(sysctl), sysctl, value, Mood.HOLDS, place=place)


# -- statements that say the same

# Fields of an audit line that differ each time the same is denied.
EACH_TIME = ("pid", "msg", "ino", "ppid", "ses", "auid", "type", "audit")


def merged(statements: Iterable[Statement]) -> tuple[Statement, ...]:
    """Return each statement once, in the order of the text; what another says more exactly is left out."""
    once: dict[object, Statement] = {}
    counts: Counter[type[Statement]] = Counter()
    for statement in statements:
        key = _key(statement)
        if key not in once and counts[type(statement)] < MOST:
            once[key] = statement
            counts[type(statement)] += 1
    kept = list(once.values())
    exact = [each for each in kept if isinstance(each, System | Kernel | Boxlite | Ended)]
    return tuple(each for each in kept if not any(_says_more(other, each) for other in exact))


def _key(statement: Statement) -> object:
    """Everything that a statement says, without the line."""
    if isinstance(statement, AuditLine):
        return frozenset((key, value) for key, value in statement.fields.items() if key not in EACH_TIME)
    if isinstance(statement, Probed):
        return Probed
    if isinstance(statement, System):
        return type(statement), statement.id, statement.version, statement.place
    return type(statement), *(
        getattr(statement, each.name) for each in fields(statement) if each.name != "quote"
    )


def _says_more(other: Statement, than: Statement) -> bool:
    """Whether a statement says all that another does, and more."""
    match other, than:
        case System(), System():
            same = (other.id, other.place) == (than.id, than.place)
            return same and than.version is None and other.version is not None
        case Kernel(), Kernel():
            return other.release != than.release and other.release.startswith(than.release)
        case Boxlite(), Boxlite():
            if other == than or not (
                other.installed_by in (than.installed_by, None) or than.installed_by is None
            ):
                return False
            says_how = than.installed_by is None and other.installed_by is not None
            says_version = than.version is None and other.version is not None
            return (other.version == than.version and says_how) or (
                other.installed_by == than.installed_by and says_version
            )
    return False
