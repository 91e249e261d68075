"""The systems that a report names: distributions, their releases, and which of them is the host.

A report names many systems: its host, a container's, one where all works, one that was upgraded from.
What a program printed about its own system outweighs the field of a form, and that outweighs a sentence.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cache, partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from lab.repro import messages
from lab.repro.lines import END_OF_SENTENCE, Read, Text, matches, place, quote
from lab.repro.report import AuditLine, Kernel, Place, Statement, System
from lab.repro.source import Kind, Line

TABLE = Path(__file__).with_suffix(".toml")


class Distribution(BaseModel):
    """A distribution, as /etc/os-release calls it, and as people write it: see the table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    names: str
    version: str = r"\d\d?\.\d\d?"
    parts: int | None = None
    like: str | None = None
    alone: tuple[str, ...] = ()
    codenames: dict[str, str] = Field(default_factory=dict)
    kernels: dict[str, str] = Field(default_factory=dict)

    def release(self, written: str) -> str:
        """The version in /etc/os-release of a version or a codename as it is written."""
        if codename := self.codenames.get(written.lower()):
            return codename
        written = re.sub(r"[ -]?sp(?=\d)", ".", written.lower()).removesuffix(".x")
        if self.id == "ubuntu" and written.isdecimal():
            # ubuntu24 and ubuntu2404.
            return f"{written[:2]}.{written[2:] or '04'}"
        return ".".join(written.split(".")[: self.parts])

    @property
    def family(self) -> str:
        """The distribution at the root: itself, or the one that it derives from."""
        return self.like or self.id


class KernelName(BaseModel):
    """What a distribution calls its kernels. `version`: the pattern's group is the distribution's release."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pattern: str
    id: str
    name: str
    version: bool = False


class Rank(IntEnum):
    """How much a line counts that names a system."""

    PROSE = 0
    OWN = 1
    FIELD = 2
    PRINTED = 3


@dataclass(frozen=True)
class Named:
    """A system that lines name, the number of the last of them, and how much they count."""

    system: System
    last: int
    rank: Rank

    @property
    def read(self) -> Read:
        return Read(self.system, self.last)


@cache
def _tables() -> tuple[dict[str, Distribution], tuple[tuple[re.Pattern[str], KernelName], ...]]:
    tables = tomllib.loads(TABLE.read_text())
    rows = (Distribution.model_validate(row) for row in tables["distribution"])
    kernels = (KernelName.model_validate(row) for row in tables["kernel"])
    return {row.id: row for row in rows}, tuple((re.compile(row.pattern), row) for row in kernels)


@cache
def _words() -> dict[str, re.Pattern[str]]:
    """The lists of words of the table, each as one pattern."""
    lists = tomllib.loads(TABLE.read_text())["words"]
    return {name: re.compile("|".join(parts), re.IGNORECASE) for name, parts in lists.items()}


def table() -> dict[str, Distribution]:
    """Every distribution by its id, in the order of the table."""
    return _tables()[0]


def family(name: str) -> str | None:
    """The id of the distribution at the root of one; None if the table does not have it."""
    row = table().get(name)
    return row.family if row else None


@cache
def pattern() -> re.Pattern[str]:
    """A name, with the version or codename if one follows: groups `ID` and `ID_version`, with `_` for `-`."""
    parts = []
    for row in table().values():
        group = row.id.replace("-", "_")
        versions = "|".join([row.version, *row.codenames])
        parts.append(
            rf"(?P<{group}>(?:{row.names})(?: linux)?)"
            r"(?:[\"'`]?[ :,_v/-]{0,3}(?:(?:release|version|lts|snapshot)[ :]{1,2})?\(?[vr]?"
            rf"(?P<{group}_version>{versions})(?![\d.]*\d))?"
        )
    return re.compile(
        rf"(?<![a-z0-9.@])(?<!(?<!library)/)(?<!\d-)(?:{'|'.join(parts)})(?!(?!lts\b)[a-z0-9]|\.[a-z])",
        re.IGNORECASE,
    )


@cache
def _codenames() -> re.Pattern[str]:
    names = "|".join(name for row in table().values() for name in row.alone)
    return re.compile(rf"(?<![\w./:-])({names})(?![\w-]|\.\w)", re.IGNORECASE)


# What follows a name that stands for what derives from it.
FAMILY = re.compile(
    r"[ -]*(?:(?:family|derivatives?|flavou?rs?)\b|based\b|like\b|or (?:a )?derivatives?\b)", re.IGNORECASE
)
BASED = re.compile(r"[ -]*(?:based|like)\b", re.IGNORECASE)
UPGRADED = re.compile(r"^\s*(?:to|->|→)\s+(?:version |release )?(\d[\d.]*\d|[a-z]+)", re.IGNORECASE)
UPGRADE = re.compile(r"\b(?:(?:up|down)grad\w+|moved|migrated|switched) (?:\w+ )?from\s*$", re.IGNORECASE)
# The tag of a container's image that tells its system by a codename, as python:3.12-slim-bookworm does.
TAG = re.compile(r"(?<![\w=\"'])[a-z][\w./-]*:[\w.]+-(?:slim-)?([a-z]{3,12})\b")
# Fields of forms that name the host's system, and what programs print about their own.
FIELD = re.compile(
    r"^\W*(?:host )?(?:os|operating system|distro(?:s|bution)?|distribution|linux distribution|system|platform|"
    r"host(?: os)?|environment)\b[^:\n]{0,40}(?::|\|| - )",
    re.IGNORECASE,
)
UNLISTED = re.compile(
    r"^\W*(?i:(?:host )?(?:os|operating system|distro|(?:linux )?distribution)(?: name)?)\W{0,4}:\W{0,4}"
    r"([A-Z][\w!]{1,20}(?: [A-Z][\w!]{1,20}){0,2}?(?: ?OS| Linux))\b(?:[ v]{1,2}(\d[\d.]{0,8}))?",
)
OS_RELEASE = re.compile(r"^\s*([A-Z_]+)=[\"']?([^\"']*)[\"']?\s*$")
LSB_RELEASE = re.compile(r"^\s*(Distributor ID|Description|Release|Codename):\s+(.+?)\s*$")
OS_RELEASE_NAMES = ("PRETTY_NAME", "NAME", "VERSION", "ID", "DISTRIB_ID", "DISTRIB_DESCRIPTION")
# A file whose only line is the version.
VERSION_FILE = re.compile(r"\bcat /etc/(alpine-release|debian_version)\s*$")
VERSION_LINE = re.compile(r"^\s*(\d+(?:\.\d+)*)\s*$")
PRINTED_NAME = re.compile(r"^\s*(?:PRETTY_NAME=|NAME=|VERSION=|ID=|DISTRIB_|Operating System: |Description:\s)")
URL = re.compile(r"https?://\S+|\bwww\.\S+|\[e\.g\.[^\]\n]{0,80}\]")
# What a program supports: bubblewrap (Linux), sandbox-exec (macOS); and Linux, macOS and Windows.
PLATFORM = r"(?:linux|mac ?os(?: x)?|windows|\w*bsd)"
PLATFORM_IN_BRACKETS = re.compile(rf"\({PLATFORM}\)", re.IGNORECASE)
PLATFORMS = re.compile(rf"\b{PLATFORM}(?:(?:, ?|/| ?\| ?|,? (?:and|or|&) ){PLATFORM}){{2,}}\b", re.IGNORECASE)
# What `rpm-ostree status` says of the system that runs: Fedora's release, and a date.
OSTREE_VERSION = re.compile(r"^\s*Version: (\d\d)\.20\d{6}\b")
# A prompt in a container: its host is called by the container's number.
CONTAINER_PROMPT = re.compile(r"\w+@[0-9a-f]{12}\b|^\s*[0-9a-f]{12}:\S* ?[$#]")
# A field with the version of the system that the field before it names.
VERSION_FIELD = re.compile(
    r"^\W*(?:os |distro(?:bution)? |distrib_|linux |ubuntu |debian |fedora )?"
    r"(?:version|release)(?:[ _](?:number|id))?\W{1,6}",
    re.IGNORECASE,
)
# Another field that may stand between the two, as `podman info` prints it.
PLAIN_FIELD = re.compile(r"^\s*\w{1,20}: \S{1,40}$")
MOST_FIELDS = 3
# A container's image as a name and a tag.
LISTED = re.compile(r"[\s,/&]*(?:and|or)?\s*")
IMAGE = re.compile(r"[a-z-]+:\w")
# Systems around the one in question: a virtual machine's, or Windows around WSL.
OUTER = ("windows", "macos", "pve")
# How Ubuntu's kernels say that they move a program into another profile.
UBUNTU_INFO = re.compile(r"transitioning\s*profile")
# The release for which Ubuntu built a kernel.
BUILT_FOR = re.compile(r"~(\d\d\.\d\d)(?:\.\d+)?(?:~\w+)?-Ubuntu\b")


def read(text: Text) -> Iterator[Read]:
    """Yield the systems of a report: its host's, by the lines that count most, and those of containers."""
    named = [*_printed(text)]
    for index, line in enumerate(text.lines):
        pair = OS_RELEASE.match(line.text)
        if pair is None or pair[1] in OS_RELEASE_NAMES:
            named += _named(text, index)
        named += _tagged(line)
    named = [*_in_containers(text, _with_ostree(text, named))]
    hosts = [each for each in named if each.system.place is Place.HOST]
    inner = [each for each in hosts if each.system.id not in OUTER]
    if inner or any(_words()["inside"].search(line.text) for line in text.lines):
        # A form's field names Windows around WSL where nothing names what is in it.
        hosts = inner or [each for each in hosts if each.rank >= Rank.FIELD]
    most = max((each.rank for each in hosts), default=Rank.PROSE)
    kept = [each for each in hosts if each.rank == most]
    # Another line may say more of the same system.
    ids = {each.system.id for each in kept if each.system.version is None}
    kept += [each for each in hosts if each.rank != most and each.system.id in ids]
    kept += [each for each in named if each.system.place is Place.CONTAINER]
    yield from sorted((each.read for each in kept), key=lambda each: each.statement.quote.number)


def _in_containers(text: Text, named: Iterable[Named]) -> Iterator[Named]:
    """Systems that programs tell below a prompt in a container are the container's."""
    below: set[int] = set()
    begun: int | None = None
    for line in text.lines:
        if line.kind is Kind.CODE and CONTAINER_PROMPT.search(line.text):
            begun = line.block
        if line.block == begun:
            below.add(line.number)
    for each in named:
        is_below = each.system.quote.number in below
        yield replace(each, system=replace(each.system, place=Place.CONTAINER)) if is_below else each


def _with_ostree(text: Text, named: Sequence[Named]) -> Iterator[Named]:
    """Give Fedora, and what derives from it, the release that rpm-ostree tells, if no line names one."""
    told = next((match[1] for line in text.lines if (match := OSTREE_VERSION.match(line.text))), None)
    hosts = [each.system for each in named if each.system.place is Place.HOST]
    is_unsaid = told is not None and not any(each.version for each in hosts)
    for each in named:
        is_its = is_unsaid and each.system in hosts and family(each.system.id) == "fedora"
        yield replace(each, system=replace(each.system, version=told)) if is_its else each


def inferred(statements: Sequence[Statement]) -> list[System]:
    """Return the system that the kernel's words tell, if no statement names the host's; else nothing."""
    if any(isinstance(each, System) and each.place is Place.HOST for each in statements):
        return []
    return [*_told(statements)][:1]


def of_kernel(release: str) -> tuple[str, str, str | None] | None:
    """Return the id, the name and the version of the distribution that calls its kernels like this one."""
    for name_pattern, row in _tables()[1]:
        if match := name_pattern.search(release):
            return row.id, row.name, match[1] if row.version else None
    return None


def completed(statements: Sequence[Statement]) -> list[Statement]:
    """Return statements with the release of a named host, if only its kernel tells it."""
    releases = {told.id: told.version for told in _told(statements) if told.version}
    return [
        replace(each, version=releases[each.id])
        if isinstance(each, System)
        and each.place is Place.HOST
        and each.version is None
        and each.id in releases
        else each
        for each in statements
    ]


def _release_of(kernel: Kernel, name: str, version: str | None) -> str | None:
    """The release for which a kernel was built; None if it is not of one release alone."""
    words = kernel.quote.text
    if built := BUILT_FOR.search(words):
        return built[1]
    if version is not None or name not in ("ubuntu", "debian"):
        return version
    if name == "ubuntu" and not re.search(r"#\d+-Ubuntu\b", words):
        return None
    series = re.match(r"\d+\.\d+", kernel.release)
    kernels = table()[name].kernels
    return next((release for release, first in kernels.items() if series and series[0] == first), None)


def _told(statements: Sequence[Statement]) -> Iterator[System]:
    # The same kernels run on what derives from a distribution.
    inferred_ = partial(System, or_derivative=True, inferred=True)
    for each in statements:
        if isinstance(each, AuditLine) and UBUNTU_INFO.search(each.fields.get("info", "")):
            yield inferred_(each.quote, "ubuntu", None, "Ubuntu")
    for each in statements:
        if isinstance(each, Kernel) and (told := of_kernel(each.release)):
            name, title, version = told
            row = table().get(name)
            like = row.like if row else None
            yield inferred_(each.quote, name, _release_of(each, name, version), title, like=like)


def _named(text: Text, index: int) -> Iterator[Named]:
    """Yield the systems that a line names and that are the host's or a container's."""
    line = text.lines[index]
    words = _blanked(line.text)
    found = list(matches(pattern(), words))
    rank = Rank.PROSE
    for number, match in enumerate(found):
        # "I use Debian 12 and Fedora 43" names two of one's own.
        between = words[found[number - 1].end() if number else 0 : match.start()]
        if rank is not Rank.OWN or not LISTED.fullmatch(between):
            rank = _rank(line, words[: match.start()])
        group = next(name for name in match.re.groupindex if match[name] and not name.endswith("_version"))
        row = table()[group.replace("_", "-")]
        version = match[f"{group}_version"]
        after = words[match.end() :]
        derivative = FAMILY.match(after)
        if UPGRADE.search(words[: match.start()]):
            target = UPGRADED.match(after)
            if target is None or not re.fullmatch(row.version, target[1], re.IGNORECASE):
                continue
            version = target[1]
        elif _is_another(line, words, match, derivative is not None):
            continue
        if number and _derives_from(found[number - 1], row, words):
            continue  # It tells what the name before it derives from.
        if BASED.match(after) and len(found) > 1:
            continue
        name = match[0].rstrip(" -:,(_") + (derivative[0] if derivative else "")
        where = _place(line, words, match)
        version = version or _next_field(text, index, row, after)
        release = row.release(version) if version else None
        system = System(
            quote(line), row.id, release, name, where, row.like, or_derivative=derivative is not None
        )
        yield Named(system, line.number, rank)
        # "bullseye and buster"
        more = re.match(r"(?:,| and| or| &)+ ([a-z]+)\b", after, re.IGNORECASE)
        if version and more and more[1].lower() in row.codenames:
            other = replace(system, version=row.release(more[1]), name=f"{row.id} {more[1]}")
            yield Named(other, line.number, rank)
    if not found:
        yield from _without_a_name(line, words)


def _next_field(text: Text, index: int, row: Distribution, after: str) -> str | None:
    """The version that a field below a system's name gives."""
    if after.strip(" `*\"'|"):
        return None
    for line in text.lines[index + 1 : index + 1 + MOST_FIELDS]:
        field = VERSION_FIELD.match(line.labelled)
        version = (
            re.match(
                rf"(?:{'|'.join([row.version, *row.codenames])})(?![\d.]*\d)", line.labelled[field.end() :]
            )
            if field
            else None
        )
        if version or not PLAIN_FIELD.match(line.labelled):
            return version[0] if version else None
    return None


def _without_a_name(line: Line, words: str) -> Iterator[Named]:
    """Yield the system of a codename alone, or one that the table lacks and a form's field names."""
    for match in matches(_codenames(), words):
        row = next(row for row in table().values() if match[1].lower() in row.alone)
        if _words()["not_this"].search(words[: match.start()]):
            continue
        where = _place(line, words, match)
        system = System(
            quote(line), row.id, row.release(match[1]), f"{row.id.capitalize()} {match[1]}", where, row.like
        )
        yield Named(system, line.number, _rank(line))
    if unlisted := UNLISTED.match(line.labelled):
        name = unlisted[1]
        slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\s*(?:Linux|OS)$", "", name).lower()).strip("-")
        if slug and slug not in ("gnu", "linux", "host", "linux-os"):
            system = System(quote(line), slug, unlisted[2], name, place(line))
            yield Named(system, line.number, Rank.FIELD)


def _blanked(words: str) -> str:
    """A line without addresses and without bubblewrap's message, which names other systems."""
    if span := messages.span(words):
        start, end = span
        words = f"{words[:start]}{' ' * (end - start)}{words[end:]}"
    if re.search(r"://|www\.|\[e\.g\.", words):
        words = URL.sub(_spaces, words)
    if len(PLATFORM_IN_BRACKETS.findall(words)) > 1:
        words = PLATFORM_IN_BRACKETS.sub(_spaces, words)
    return PLATFORMS.sub(_spaces, words)


def _spaces(match: re.Match[str]) -> str:
    return " " * len(match[0])


def _is_another(line: Line, words: str, match: re.Match[str], is_family: bool) -> bool:
    """Whether a name is of a system that is neither the host nor a container on it."""
    before, after = words[: match.start()], words[match.end() :]
    sentence = _words()["but"].split(END_OF_SENTENCE.split(before)[-1])[-1]
    rest = _words()["but"].split(END_OF_SENTENCE.split(after)[0])[0]
    if _words()["not_this"].search(sentence) or _words()["nor_this"].match(after):
        return True
    if _words()["excluded"].search(END_OF_SENTENCE.split(before)[-1]):
        return True
    if _words()["of_something"].match(after) and not is_family:
        return True
    if (
        _words()["there"].match(sentence)
        and _words()["works"].search(rest)
        and not _words()["fails"].search(f"{sentence} {rest}")
    ):
        return True
    return match[0].lower().startswith("windows") and "WSL" in line.text and _rank(line) is Rank.PROSE


def _derives_from(before: re.Match[str], row: Distribution, words: str) -> bool:
    """Whether the name before this one is of a distribution that derives from this one's."""
    group = next(name for name in before.re.groupindex if before[name] and not name.endswith("_version"))
    one = table()[group.replace("_", "-")]
    between = words[before.end() :][:40]
    return one.id != row.id and one.family == row.family and ("(" in between or "based" in between)


def _place(line: Line, words: str, match: re.Match[str]) -> Place:
    before, after = words[: match.start()], words[match.end() :]
    if _words()["host_after"].match(after):
        return Place.HOST
    if _words()["container_after"].match(after) and not re.match(
        r"^[^,;.]{0,30}\b(?:ami|free tier|cloud image)\b", after, re.I
    ):
        return Place.CONTAINER
    if _words()["container_before"].search(before) or (
        IMAGE.match(match[0]) and re.search(r"\bimage\b|docker|podman", line.labelled)
    ):
        return Place.CONTAINER
    return place(line, match.start())


def _rank(line: Line, before: str = "") -> Rank:
    if PRINTED_NAME.match(line.text):
        return Rank.PRINTED
    if FIELD.match(line.labelled):
        return Rank.FIELD
    is_own = _words()["own"].search(END_OF_SENTENCE.split(before)[-1])
    return Rank.OWN if is_own else Rank.PROSE


def _tagged(line: Line) -> Iterator[Named]:
    for match in matches(TAG, line.text):
        for row in table().values():
            if match[1] == row.id or match[1] in row.codenames:
                name, version = f"{row.id} ({match[0]})", row.codenames.get(match[1])
                system = System(quote(line), row.id, version, name, Place.CONTAINER, row.like)
                yield Named(system, line.number, Rank.PROSE)
                break


def _printed(text: Text) -> Iterator[Named]:
    """Yield the systems of a pasted /etc/os-release, of lsb_release's output, and of a version's file."""
    release: dict[str, tuple[Line, str]] = {}
    lsb: dict[str, tuple[Line, str]] = {}
    for index, line in enumerate(text.lines):
        if pair := OS_RELEASE.match(line.text):
            release.setdefault(pair[1], (line, pair[2]))
        if pair := LSB_RELEASE.match(line.text):
            lsb.setdefault(pair[1], (line, pair[2]))
        file = VERSION_FILE.search(line.text)
        if file and index + 1 < len(text.lines) and (version := VERSION_LINE.match(text.lines[index + 1].text)):
            row = table()["alpine" if file[1].startswith("alpine") else "debian"]
            system = System(
                quote(line), row.id, row.release(version[1]), f"{row.id.capitalize()} {version[1]}", place(line)
            )
            yield Named(system, text.lines[index + 1].number, Rank.PRINTED)
    if "ID" in release and "NAME" in release:
        yield from _of_os_release(release)
    if "Distributor ID" in lsb and "Release" in lsb:
        name = lsb["Distributor ID"][1].lower()
        listed = [row for row in table().values() if re.fullmatch(row.names, name, re.IGNORECASE)]
        for row in listed[:1]:
            line, title = lsb.get("Description", lsb["Distributor ID"])
            version_ = lsb["Release"][1]
            known = re.fullmatch(row.version, version_, re.IGNORECASE)
            system = System(
                quote(line), row.id, row.release(version_) if known else None, title, place(line), row.like
            )
            yield Named(system, max(each.number for each, _ in lsb.values()), Rank.PRINTED)


def _of_os_release(release: dict[str, tuple[Line, str]]) -> Iterator[Named]:
    name = release["ID"][1]
    lines = sorted((line for line, _ in release.values()), key=lambda line: line.number)
    version = release["VERSION_ID"][1] if "VERSION_ID" in release else None
    like = release["ID_LIKE"][1].split() if "ID_LIKE" in release else []
    pretty = release.get("PRETTY_NAME", release["NAME"])[1]
    row = table().get(name)
    if row is None and not re.fullmatch(r"[a-z0-9._-]{1,40}", name):
        return
    parent = row.like if row else (like[0] if like else None)
    system = System(quote(lines[0]), name, version or None, pretty, place(lines[0]), parent)
    yield Named(system, lines[-1].number, Rank.PRINTED)
