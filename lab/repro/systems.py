"""The systems that a report names: distributions, their releases, and which of them is the host.

A report names many systems: its host, a container's, one where all works, one that was upgraded from.
What a program printed about its own system outweighs the field of a form, and that outweighs a sentence.
The distributions, the patterns and the words around a name are in `systems.toml`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cache, cached_property

from lab.repro import messages
from lab.repro.report import AuditLine, KernelStatement, Place, Statement, System
from lab.repro.source import (
    END_OF_SENTENCE,
    LineKind,
    ReportLine,
    ReportText,
    find_matches,
    find_place,
    load_table,
    quote_line,
)

TABLE = load_table(__file__)
# The table's patterns, and its lists of words, each list as one pattern.
SAYS: dict[str, re.Pattern[str]] = {
    name: re.compile(pattern) for name, pattern in TABLE["patterns"].items()
} | {name: re.compile("|".join(parts), re.IGNORECASE) for name, parts in TABLE["words"].items()}
# So many mentions of systems, and as many names of hosts, are looked at: more say the same.
MOST = 500
# Most fields between a system's name and its version.
MOST_FIELDS = 3


@dataclass(frozen=True)
class Distribution:
    """A distribution, as /etc/os-release calls it, and as people write it: see the table."""

    id: str
    names: str
    version: str = r"\d\d?(?:\.\d\d?)?"
    parts: int | None = None
    like: str | None = None
    alone: Sequence[str] = ()
    told: Sequence[str] = ()
    outer: bool = False
    rolling: bool = False
    called: str = "(?!)"
    codenames: dict[str, str] = field(default_factory=dict)

    @cached_property
    def written(self) -> re.Pattern[str]:
        """A version or a codename, as a group, right after a name."""
        versions = "|".join([self.version, *self.codenames])
        ends = rf"(?P<version>{versions}){TABLE['END']}"
        return re.compile(rf"{TABLE['FILLER']}{TABLE['BETWEEN']}{ends}", re.IGNORECASE)

    def release(self, written: str) -> str:
        """The version in /etc/os-release of a version or a codename as it is written."""
        if codename := self.codenames.get(written.lower()):
            return codename
        written = (
            re.sub(r"[ -]?sp(?=\d)|(?<=\d)-(?=\d)", ".", written.lower())
            .removeprefix("v")
            .removesuffix(" lts")
            .partition("pre")[0]
        )
        if self.id == "ubuntu" and written.isdecimal():
            # ubuntu24 and ubuntu2404.
            return f"{written[:2]}.{written[2:] or '04'}"
        return ".".join(written.split(".")[: self.parts])

    def on(self, line: ReportLine, name: str, written: str | None, place: Place, last: int = 0) -> System:
        """It as the system that a line names so, with its version or codename as it is written."""
        version = self.release(written) if written else None
        return System(quote_line(line, last), self.id, version, name, place, self.like)


class Rank(IntEnum):
    """How much a line counts that names a system."""

    KERNEL = 0
    PROSE = 1
    OWN = 2
    FIELD = 3
    PRINTED = 4


# A system that lines name, and how much they count.
type Mention = tuple[Rank, System]

DISTRIBUTIONS = {
    row["id"]: Distribution(**row, codenames=TABLE["codenames"].get(row["id"], {}))
    for row in TABLE["distribution"]
}
OUTER = {row.id for row in DISTRIBUTIONS.values() if row.outer}
ROLLING = {row.id for row in DISTRIBUTIONS.values() if row.rolling}


def find_family(name: str) -> str | None:
    """The id of the distribution at the root of one; None if the table does not have it."""
    row = DISTRIBUTIONS.get(name)
    return (row.like or row.id) if row else None


@cache
def compile_names(*, alone: bool) -> re.Pattern[str]:
    """The names of all distributions, or the codenames that need none beside them; each row is a group."""
    patterns = {row.id: "|".join(row.alone) if alone else row.names for row in DISTRIBUTIONS.values()}
    parts = (f"(?P<{_group(name)}>{pattern})" for name, pattern in patterns.items() if pattern)
    # How all of them begin: elsewhere a hundred patterns would be tried in vain.
    begin, prefix, suffix = (
        ("[a-z0-9]{2}", r"(?<![\w./:-])", r"(?![\w-]|\.\w)")
        if alone
        else ("[a-z][a-z0-9]", TABLE["patterns"]["before"], r"(?![a-z])")
    )
    return re.compile(rf"(?={begin}){prefix}(?:{'|'.join(parts)}){suffix}", re.IGNORECASE)


def _group(name: str) -> str:
    return name.replace("-", "_")


ROWS = {_group(row.id): row for row in DISTRIBUTIONS.values()}


def read_systems(text: ReportText) -> Iterator[System]:
    """Yield the systems of a report: its host's, by the lines that count most, and those of containers."""
    mentions = [*_os_release(text)]
    block, inside = -1, set[int]()
    for index, line in enumerate(text.lines):
        # What programs tell below a prompt in a container is the container's.
        if line.kind is LineKind.CODE and SAYS["container_prompt"].search(line.text):
            block = line.block
        if line.block == block:
            inside.add(line.number)
        if len(mentions) >= MOST:
            break
        if index not in text.advice and not SAYS["not_printed"].match(line.text):
            mentions += _named(text, index)
    mentions = [
        (rank, replace(system, place=Place.CONTAINER) if system.quote.number in inside else system)
        for rank, system in mentions
    ]
    hosts = [mention for mention in mentions if mention[1].place is Place.HOST]
    inner = [mention for mention in hosts if mention[1].id not in OUTER]
    if inner or any(SAYS["inside"].search(line.text) for line in text.lines):
        # A form's field names the Windows around WSL, with its release, where nothing names what is in it.
        hosts = inner or [one for one in hosts if one[0] >= Rank.FIELD and one[1].version]
    with_version = {system.id for _, system in hosts if system.version}
    versions = {name: _told(text, name) for name in {system.id for _, system in hosts} - with_version}
    hosts = [
        (rank, replace(system, version=system.version or versions.get(system.id))) for rank, system in hosts
    ]
    most = max((rank for rank, _ in hosts), default=Rank.KERNEL)
    selected = [system for rank, system in hosts if rank == most]
    # Another line may say more of the same system.
    ids = {system.id for system in selected if system.version is None}
    selected += [system for rank, system in hosts if rank != most and system.id in ids]
    selected += [system for _, system in mentions if system.place is Place.CONTAINER]
    yield from sorted(selected, key=lambda system: system.quote.number)


def _told(text: ReportText, name: str) -> str | None:
    """The version of a distribution that lines tell which do not name it; None if they do not agree."""
    row = DISTRIBUTIONS.get(name)
    for pattern in row.told if row else ():
        versions = {
            match[1]
            for line in text.lines
            for match in find_matches(re.compile(pattern), line.text)
            if find_place(line, match.start()) is Place.HOST
        }
        if len(versions) == 1:
            return versions.pop()
    return None


# -- what the kernel's words tell


def find_system_of_kernel(kernel: KernelStatement) -> System | None:
    """Return the distribution that calls its kernels like this one, with its release if the words tell it.

    The same kernels run on what derives from it.
    """
    words = kernel.quote.text
    for row in TABLE["kernel"]:
        match = re.search(row["pattern"], kernel.release)
        if match is None and not ("line" in row and re.search(row["line"], words)):
            continue
        distribution = DISTRIBUTIONS.get(row["id"])
        releases = TABLE["kernels"].get(row["id"], {})
        version = match.expand(row["version"]) if match and "version" in row else None
        if built := SAYS["built_for"].search(words):
            version = built[1]
        elif (
            version is None
            and ".bpo" not in kernel.release
            and (row["id"] != "ubuntu" or SAYS["of_ubuntu"].search(words))
        ):
            series = ".".join(kernel.release.split(".")[:2])
            version = next((release for release, first in releases.items() if first == series), None)
        like = distribution.like if distribution else None
        return System(
            kernel.quote, row["id"], version, row["name"], like=like, or_derivative=True, inferred=True
        )
    return None


def complete_statements(text: ReportText, statements: Sequence[Statement]) -> list[Statement]:
    """Return statements with what only the kernel's words tell: a named host's release, or the host itself.

    Where nothing names the host, what is only found in one distribution tells it: files, packages, its tracker.
    """
    inferred = [
        System(line.quote, "ubuntu", None, "Ubuntu", or_derivative=True, inferred=True)
        for line in statements
        if isinstance(line, AuditLine) and SAYS["ubuntu_info"].search(line.fields.get("info", ""))
    ]
    inferred += filter(
        None, (find_system_of_kernel(kernel) for kernel in statements if isinstance(kernel, KernelStatement))
    )
    if not any(isinstance(one, System) and one.place is Place.HOST for one in statements):
        statements = [*statements, *(inferred[:1] or _traced(text))]
    releases = {system.id: system.version for system in inferred if system.version}

    def complete(system: System) -> System:
        version = releases.get(system.id) if system.place is Place.HOST else None
        return replace(system, version=system.version or version, rolling=system.id in ROLLING)

    return [complete(one) if isinstance(one, System) else one for one in statements]


def _traced(text: ReportText) -> list[System]:
    """The distribution that a report has traces of, unless it has those of several."""
    systems: dict[str, System] = {}
    texts = set[str]()
    for line in text.lines:
        written = {name for match in find_matches(SAYS["host"], line.text) for name in match.groups() if name}
        names = sorted(written - texts) if len(texts) < MOST else []
        texts |= written
        pairs = [
            (key, pattern.fullmatch(name)) for name in names for key, pattern in compile_host_patterns().items()
        ]
        pairs_of_release = [(key, key, match["version"]) for key, match in pairs if match]
        for row in TABLE["trace"]:
            if match := re.search(row["pattern"], line.text):
                pairs_of_release.append((row["id"], row["name"], match.expand(row.get("version", ""))))
        for key, name, release in pairs_of_release:
            version = DISTRIBUTIONS[key].release(release) if release else None
            system = System(quote_line(line), key, version, name, or_derivative=True, inferred=True)
            systems.setdefault(key, system)
    traced = list(systems.values()) if len(systems) == 1 else []
    return [replace(system, version=system.version or _told(text, system.id)) for system in traced]


@cache
def compile_host_patterns() -> Mapping[str, re.Pattern[str]]:
    """The users and hosts that are named by each distribution: debian12, my-ubuntu-jammy."""
    patterns = {}
    for row in DISTRIBUTIONS.values():
        versions = "|".join([row.version, *row.codenames])
        name = rf"(?:\w+-)*(?:{row.names}|{row.called})-?(?P<version>{versions})?(?:-\w+)*"
        if not row.outer:
            patterns[row.id] = re.compile(name, re.IGNORECASE)
    return patterns


# -- what lines name


def _named(text: ReportText, index: int) -> Iterator[Mention]:
    """Yield the systems that a line names and that are the host's or a container's."""
    line = text.lines[index]
    words = _blanked(line.text)
    rank, parent, end = Rank.PROSE, None, 0
    for match in find_matches(compile_names(alone=False), words):
        row = ROWS[match.lastgroup or ""]
        start, lead, between = match.start(), words[: match.start()], words[end : match.start()]
        version = row.written.match(words, match.end())
        if start < end or (version is None and SAYS["no_end"].match(words, match.end())):
            continue
        # "I use Debian 12 and Fedora 43" names two of one's own.
        if rank is not Rank.OWN or not SAYS["listed"].fullmatch(between):
            rank = _rank(line, lead)
        end = version.end() if version else match.end()
        tail = words[end:]
        derivative = SAYS["family"].match(tail)
        is_child = parent is not None and parent.id != row.id and find_family(parent.id) == find_family(row.id)
        # A name after another may tell what that one derives from.
        is_base = is_child and SAYS["derives"].search(between[:40]) is not None
        is_base = is_base or bool(parent and not parent.outer and SAYS["based"].match(tail))
        parent = row
        written = version["version"] if version else None
        if written is None and (ahead := SAYS["version_before"].search(lead)):
            written = ahead[1] if re.fullmatch(row.version, ahead[1], re.IGNORECASE) else None
        if SAYS["upgrade"].search(lead):
            target = SAYS["upgraded"].match(tail)
            written = target[1] if target else None
            if written is None or not re.fullmatch(row.version, written, re.IGNORECASE):
                continue
            end = match.end()
        elif is_base or is_another_system(line, lead, match[0], tail, is_family=derivative is not None):
            continue
        if SAYS["of_kernel"].match(tail):
            if written is None:
                continue
            rank = Rank.KERNEL
        written = written or _next_field(text, index, row, tail)
        name = words[start:end].rstrip(" -:,(_")
        where = _place(line, lead, words[start:end], tail)
        system = replace(row.on(line, name, written, where), or_derivative=derivative is not None)
        yield rank, system
        more = SAYS["more"].match(tail)
        if version and more and more[1].lower() in row.codenames:
            yield rank, replace(system, version=row.release(more[1]), name=f"{row.id} {more[1]}")
    if parent is None:
        yield from _without_a_name(line, words)


def _next_field(text: ReportText, index: int, row: Distribution, tail: str) -> str | None:
    """The version that a field below a system's name gives."""
    if not SAYS["name_ends"].match(tail):
        return None
    versions = re.compile(rf"(?:{'|'.join([row.version, *row.codenames])}){TABLE['END']}", re.IGNORECASE)
    fields = [
        line for line in text.lines[index + 1 : index + 3 * MOST_FIELDS] if line.kind is not LineKind.HEADING
    ]
    for line in fields[:MOST_FIELDS]:
        label = SAYS["version_field"].match(line.labelled)
        version = versions.match(line.labelled, label.end()) if label else None
        if version or not SAYS["plain_field"].match(line.labelled):
            return version[0] if version else None
    return None


def _without_a_name(line: ReportLine, words: str) -> Iterator[Mention]:
    """Yield the system of a codename alone."""
    for match in find_matches(compile_names(alone=True), words):
        row, lead = ROWS[match.lastgroup or ""], words[: match.start()]
        if not SAYS["not_this"].search(lead):
            where = _place(line, lead, match[0], words[match.end() :])
            yield _rank(line), row.on(line, f"{row.id.capitalize()} {match[0]}", match[0], where)


def _blanked(words: str) -> str:
    """A line without bubblewrap's message and without what names systems and tells of none."""
    if span := messages.find_message_span(words):
        start, end = span
        words = f"{words[:start]}{' ' * (end - start)}{words[end:]}"
    blanks = ["blank", "families"] + ["in_brackets"] * (len(SAYS["in_brackets"].findall(words)) > 1)
    for name in blanks:
        words = SAYS[name].sub(lambda match: " " * len(match[0]), words)
    return words


def is_another_system(line: ReportLine, lead: str, name: str, tail: str, *, is_family: bool) -> bool:
    """Whether a name is of a system that is neither the host nor a container on it."""
    lead = END_OF_SENTENCE.split(lead)[-1]
    sentence = SAYS["but"].split(lead)[-1]
    clause = SAYS["but"].split(END_OF_SENTENCE.split(tail)[0])[0]
    if SAYS["not_this"].search(sentence) or SAYS["nor_this"].match(tail) or SAYS["excluded"].search(lead):
        return True
    if SAYS["of_something"].match(tail) and not is_family:
        return True
    works = SAYS["there"].match(sentence) and SAYS["works"].search(clause)
    if works and not SAYS["fails"].search(f"{sentence} {clause}"):
        return True
    return name.lower().startswith("windows") and "WSL" in line.text and _rank(line) is Rank.PROSE


def _place(line: ReportLine, lead: str, name: str, tail: str) -> Place:
    if SAYS["host_after"].match(tail):
        return Place.HOST
    if SAYS["container_after"].match(tail) and not SAYS["machine_image"].match(tail):
        return Place.CONTAINER
    is_image = SAYS["image"].match(name) and SAYS["of_image"].search(line.labelled)
    if is_image or SAYS["container_before"].search(lead):
        return Place.CONTAINER
    return find_place(line, len(lead))


def _rank(line: ReportLine, lead: str = "") -> Rank:
    if SAYS["printed"].match(line.text):
        return Rank.PRINTED
    if SAYS["field"].match(line.labelled):
        return Rank.FIELD
    return Rank.OWN if SAYS["own"].search(END_OF_SENTENCE.split(lead)[-1]) else Rank.PROSE


def _os_release(text: ReportText) -> Iterator[Mention]:
    """Yield the systems of a pasted /etc/os-release, and of a file that holds only the version."""
    pasted: dict[str, tuple[ReportLine, str]] = {}
    for line, following in zip(text.lines, text.lines[1:], strict=False):
        file = SAYS["version_file"].search(line.text)
        if file and (version := SAYS["version_line"].match(following.text)):
            row = DISTRIBUTIONS[file[1]]
            name = f"{row.id.capitalize()} {version[1]}"
            yield Rank.PRINTED, row.on(line, name, version[1], find_place(line), following.number)
    for line in text.lines:
        if pair := SAYS["os_release"].match(line.text):
            pasted.setdefault(pair[1], (line, pair[2]))
    values = {key: value for key, (_, value) in pasted.items()}
    if values.keys() & {"NAME", "PRETTY_NAME"} and re.fullmatch(r"[\w.-]{1,40}", values.get("ID", "")):
        lines_of_it = sorted((line for line, _ in pasted.values()), key=lambda line: line.number)
        distribution = DISTRIBUTIONS.get(values["ID"])
        like = distribution.like if distribution else next(iter(values.get("ID_LIKE", "").split()), None)
        name, version_id = values.get("PRETTY_NAME") or values["NAME"], values.get("VERSION_ID") or None
        quotation = quote_line(lines_of_it[0], lines_of_it[-1].number)
        yield Rank.PRINTED, System(quotation, values["ID"], version_id, name, find_place(lines_of_it[0]), like)
