"""The systems that a report names: distributions, their releases, and which of them is the host.

A report names many systems: its host, a container's, one where all works, one that was upgraded from.
What a program printed about its own system outweighs the field of a form, and that outweighs a sentence.
The distributions, the patterns and the words around a name are in `systems.toml`.
"""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any

from lab.repro import messages
from lab.repro.lines import END_OF_SENTENCE, Text, matches, place, quote
from lab.repro.report import AuditLine, Kernel, Place, Statement, System
from lab.repro.source import Kind, Line

TABLE: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
# The table's patterns, and its lists of words, each list as one pattern.
SAYS: dict[str, re.Pattern[str]] = {
    name: re.compile(pattern) for name, pattern in TABLE["patterns"].items()
} | {name: re.compile("|".join(parts), re.IGNORECASE) for name, parts in TABLE["words"].items()}
OS_RELEASE_NAMES = ("PRETTY_NAME", "NAME", "VERSION", "ID", "DISTRIB_ID", "DISTRIB_DESCRIPTION")
# Most fields between a system's name and its version.
MOST_FIELDS = 3
# Systems around the one in question: a virtual machine's, or Windows around WSL.
OUTER = ("windows", "macos", "pve")


@dataclass(frozen=True)
class Distribution:
    """A distribution, as /etc/os-release calls it, and as people write it: see the table."""

    id: str
    names: str
    version: str = r"\d\d?\.\d\d?"
    parts: int | None = None
    like: str | None = None
    alone: Sequence[str] = ()
    codenames: dict[str, str] = field(default_factory=dict)
    kernels: dict[str, str] = field(default_factory=dict)

    def release(self, written: str) -> str:
        """The version in /etc/os-release of a version or a codename as it is written."""
        if codename := self.codenames.get(written.lower()):
            return codename
        written = re.sub(r"[ -]?sp(?=\d)", ".", written.lower()).removesuffix(" lts").removesuffix(".x")
        if self.id == "ubuntu" and written.isdecimal():
            # ubuntu24 and ubuntu2404.
            return f"{written[:2]}.{written[2:] or '04'}"
        return ".".join(written.split(".")[: self.parts])

    @property
    def family(self) -> str:
        """The distribution at the root: itself, or the one that it derives from."""
        return self.like or self.id

    @property
    def group(self) -> str:
        """The name of its group in `pattern()`."""
        return self.id.replace("-", "_")


class Rank(IntEnum):
    """How much a line counts that names a system."""

    PROSE = 0
    OWN = 1
    FIELD = 2
    PRINTED = 3


@dataclass(frozen=True)
class Mention:
    """A system that lines name, and how much they count."""

    system: System
    rank: Rank


DISTRIBUTIONS = {row["id"]: Distribution(**row) for row in TABLE["distribution"]}


def family(name: str) -> str | None:
    """The id of the distribution at the root of one; None if the table does not have it."""
    row = DISTRIBUTIONS.get(name)
    return row.family if row else None


@cache
def pattern() -> re.Pattern[str]:
    """A name, with the version or codename if one follows: groups `ID` and `ID_version`, with `_` for `-`."""
    parts = [
        rf"(?P<{row.group}>(?:{row.names})(?: linux)?)"
        r"(?:[\"'`]?[ :,_v/-]{0,3}(?:(?:release|version|lts|snapshot)[ :]{1,2})?\(?[vr]?"
        rf"(?P<{row.group}_version>{'|'.join([row.version, *row.codenames])})(?![\d.]*\d))?"
        for row in DISTRIBUTIONS.values()
    ]
    return re.compile(
        rf"(?<![a-z0-9.@])(?<!(?<!library)/)(?<!\d-)(?:{'|'.join(parts)})(?!(?!lts\b)[a-z0-9]|\.[a-z])",
        re.IGNORECASE,
    )


@cache
def _alone() -> re.Pattern[str]:
    parts = [f"(?P<{row.group}>{'|'.join(row.alone)})" for row in DISTRIBUTIONS.values() if row.alone]
    return re.compile(rf"(?<![\w./:-])(?:{'|'.join(parts)})(?![\w-]|\.\w)", re.IGNORECASE)


def _row(match: re.Match[str]) -> Distribution:
    """The distribution that a match of `pattern()` names."""
    names = (name for name in match.re.groupindex if match[name] and not name.endswith("_version"))
    return DISTRIBUTIONS[next(names).replace("_", "-")]


def read(text: Text) -> Iterator[System]:
    """Yield the systems of a report: its host's, by the lines that count most, and those of containers."""
    mentions = [*_printed(text)]
    for index, line in enumerate(text.lines):
        pair = SAYS["os_release"].match(line.text)
        if pair is None or pair[1] in OS_RELEASE_NAMES:
            mentions += _named(text, index)
        mentions += _tagged(line)
    # What programs tell below a prompt in a container is the container's.
    begun: dict[int, int] = {}
    for line in text.lines:
        if line.kind is Kind.CODE and SAYS["container_prompt"].search(line.text):
            begun.setdefault(line.block, line.number)
    below = {line.number for line in text.lines if line.block in begun and line.number >= begun[line.block]}
    mentions = [
        replace(mention, system=replace(mention.system, place=Place.CONTAINER))
        if mention.system.quote.number in below
        else mention
        for mention in mentions
    ]
    hosts = [mention for mention in mentions if mention.system.place is Place.HOST]
    if not any(mention.system.version for mention in hosts):
        # rpm-ostree tells the release of Fedora, and of what derives from it.
        told = next((match[1] for line in text.lines if (match := SAYS["ostree"].match(line.text))), None)
        hosts = [
            replace(mention, system=replace(mention.system, version=told))
            if family(mention.system.id) == "fedora"
            else mention
            for mention in hosts
        ]
    inner = [mention for mention in hosts if mention.system.id not in OUTER]
    if inner or any(SAYS["inside"].search(line.text) for line in text.lines):
        # A form's field names Windows around WSL where nothing names what is in it.
        hosts = inner or [mention for mention in hosts if mention.rank >= Rank.FIELD]
    most = max((mention.rank for mention in hosts), default=Rank.PROSE)
    kept = [mention for mention in hosts if mention.rank == most]
    # Another line may say more of the same system.
    ids = {mention.system.id for mention in kept if mention.system.version is None}
    kept += [mention for mention in hosts if mention.rank != most and mention.system.id in ids]
    kept += [mention for mention in mentions if mention.system.place is Place.CONTAINER]
    kept.sort(key=lambda mention: mention.system.quote.number)
    yield from (mention.system for mention in kept)


# -- what the kernel's words tell


def of_kernel(release: str) -> tuple[str, str, str | None] | None:
    """Return the id, the name and the version of the distribution that calls its kernels like this one."""
    for row in TABLE["kernel"]:
        if match := re.search(row["pattern"], release):
            return row["id"], row["name"], match[1] if row.get("version") else None
    return None


def completed(statements: Sequence[Statement]) -> list[Statement]:
    """Return statements with what only the kernel's words tell: a named host's release, or the host itself."""
    told = list(_told(statements))
    hosts = [one for one in statements if isinstance(one, System) and one.place is Place.HOST]
    if not hosts:
        return [*statements, *told[:1]]
    releases = {system.id: system.version for system in told if system.version}
    return [
        replace(statement, version=releases.get(statement.id))
        if isinstance(statement, System) and statement in hosts and statement.version is None
        else statement
        for statement in statements
    ]


def _told(statements: Sequence[Statement]) -> Iterator[System]:
    # The same kernels run on what derives from a distribution.
    for line in statements:
        if isinstance(line, AuditLine) and SAYS["ubuntu_info"].search(line.fields.get("info", "")):
            yield System(line.quote, "ubuntu", None, "Ubuntu", or_derivative=True, inferred=True)
    for kernel in statements:
        if isinstance(kernel, Kernel) and (told := of_kernel(kernel.release)):
            name, title, version = told
            like = DISTRIBUTIONS[name].like if name in DISTRIBUTIONS else None
            release = _release_of(kernel, name, version)
            yield System(kernel.quote, name, release, title, like=like, or_derivative=True, inferred=True)


def _release_of(kernel: Kernel, name: str, version: str | None) -> str | None:
    """The release for which a kernel was built; None if it is not of one release alone."""
    words = kernel.quote.text
    if built := SAYS["built_for"].search(words):
        return built[1]
    if version is not None or name not in ("ubuntu", "debian"):
        return version
    if name == "ubuntu" and not SAYS["of_ubuntu"].search(words):
        return None
    series = re.match(r"\d+\.\d+", kernel.release)
    kernels = DISTRIBUTIONS[name].kernels
    return next((release for release, first in kernels.items() if series and series[0] == first), None)


# -- what lines name


def _named(text: Text, index: int) -> Iterator[Mention]:
    """Yield the systems that a line names and that are the host's or a container's."""
    line = text.lines[index]
    words = _blanked(line.text)
    rank, before = Rank.PROSE, None
    for match in matches(pattern(), words):
        # "I use Debian 12 and Fedora 43" names two of one's own.
        between = words[before.end() if before else 0 : match.start()]
        if rank is not Rank.OWN or not SAYS["listed"].fullmatch(between):
            rank = _rank(line, words[: match.start()])
        row, base, before = _row(match), before, match
        after = words[match.end() :]
        derivative = SAYS["family"].match(after)
        version = match[f"{row.group}_version"]
        if SAYS["upgrade"].search(words[: match.start()]):
            target = SAYS["upgraded"].match(after)
            if target is None or not re.fullmatch(row.version, target[1], re.IGNORECASE):
                continue
            version = target[1]
        elif _is_another(line, words, match, derivative is not None):
            continue
        is_parent = base is not None and _row(base).id != row.id and _row(base).family == row.family
        if is_parent and ("(" in between[:40] or "based" in between[:40]):
            continue  # It tells what the name before it derives from.
        if base and SAYS["based"].match(after):
            continue
        version = version or _next_field(text, index, row, after)
        name = match[0].rstrip(" -:,(_") + (derivative[0] if derivative else "")
        system = System(
            quote(line),
            row.id,
            row.release(version) if version else None,
            name,
            _place(line, words, match),
            row.like,
            or_derivative=derivative is not None,
        )
        yield Mention(system, rank)
        more = SAYS["more"].match(after)
        if version and more and more[1].lower() in row.codenames:
            other = replace(system, version=row.release(more[1]), name=f"{row.id} {more[1]}")
            yield Mention(other, rank)
    if before is None:
        yield from _without_a_name(line, words)


def _next_field(text: Text, index: int, row: Distribution, after: str) -> str | None:
    """The version that a field below a system's name gives."""
    if after.strip(" `*\"'|"):
        return None
    versions = rf"(?:{'|'.join([row.version, *row.codenames])})(?![\d.]*\d)"
    for line in text.lines[index + 1 : index + 1 + MOST_FIELDS]:
        label = SAYS["version_field"].match(line.labelled)
        version = re.match(versions, line.labelled[label.end() :]) if label else None
        if version or not SAYS["plain_field"].match(line.labelled):
            return version[0] if version else None
    return None


def _without_a_name(line: Line, words: str) -> Iterator[Mention]:
    """Yield the system of a codename alone, or one that the table lacks and a form's field names."""
    for match in matches(_alone(), words):
        row = _row(match)
        if not SAYS["not_this"].search(words[: match.start()]):
            name = f"{row.id.capitalize()} {match[0]}"
            release = row.release(match[0])
            system = System(quote(line), row.id, release, name, _place(line, words, match), row.like)
            yield Mention(system, _rank(line))
    if unlisted := SAYS["unlisted"].match(line.labelled):
        name = unlisted[1]
        slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\s*(?:Linux|OS)$", "", name).lower()).strip("-")
        if slug and slug not in ("gnu", "linux", "host", "linux-os"):
            system = System(quote(line), slug, unlisted[2], name, place(line))
            yield Mention(system, Rank.FIELD)


def _blanked(words: str) -> str:
    """A line without addresses and without bubblewrap's message, which name other systems."""
    if span := messages.span(words):
        start, end = span
        words = f"{words[:start]}{' ' * (end - start)}{words[end:]}"
    blanks = ["platforms"]
    if re.search(r"://|www\.|\[e\.g\.", words):
        blanks.append("address")
    if len(SAYS["in_brackets"].findall(words)) > 1:
        blanks.append("in_brackets")
    for name in blanks:
        words = SAYS[name].sub(lambda match: " " * len(match[0]), words)
    return words


def _is_another(line: Line, words: str, match: re.Match[str], is_family: bool) -> bool:
    """Whether a name is of a system that is neither the host nor a container on it."""
    after = words[match.end() :]
    before = END_OF_SENTENCE.split(words[: match.start()])[-1]
    sentence = SAYS["but"].split(before)[-1]
    rest = SAYS["but"].split(END_OF_SENTENCE.split(after)[0])[0]
    if SAYS["not_this"].search(sentence) or SAYS["nor_this"].match(after) or SAYS["excluded"].search(before):
        return True
    if SAYS["of_something"].match(after) and not is_family:
        return True
    works = SAYS["there"].match(sentence) and SAYS["works"].search(rest)
    if works and not SAYS["fails"].search(f"{sentence} {rest}"):
        return True
    return match[0].lower().startswith("windows") and "WSL" in line.text and _rank(line) is Rank.PROSE


def _place(line: Line, words: str, match: re.Match[str]) -> Place:
    after = words[match.end() :]
    if SAYS["host_after"].match(after):
        return Place.HOST
    if SAYS["container_after"].match(after) and not SAYS["machine_image"].match(after):
        return Place.CONTAINER
    is_image = SAYS["image"].match(match[0]) and SAYS["of_image"].search(line.labelled)
    if is_image or SAYS["container_before"].search(words[: match.start()]):
        return Place.CONTAINER
    return place(line, match.start())


def _rank(line: Line, before: str = "") -> Rank:
    if SAYS["printed"].match(line.text):
        return Rank.PRINTED
    if SAYS["field"].match(line.labelled):
        return Rank.FIELD
    return Rank.OWN if SAYS["own"].search(END_OF_SENTENCE.split(before)[-1]) else Rank.PROSE


def _tagged(line: Line) -> Iterator[Mention]:
    for match in matches(SAYS["tag"], line.text):
        row = next((row for row in DISTRIBUTIONS.values() if match[1] in (row.id, *row.codenames)), None)
        if row is not None:
            name, version = f"{row.id} ({match[0]})", row.codenames.get(match[1])
            system = System(quote(line), row.id, version, name, Place.CONTAINER, row.like)
            yield Mention(system, Rank.PROSE)


def _printed(text: Text) -> Iterator[Mention]:
    """Yield the systems of a pasted /etc/os-release, of lsb_release's output, and of a version's file."""
    release: dict[str, tuple[Line, str]] = {}
    lsb: dict[str, tuple[Line, str]] = {}
    for line, following in zip(text.lines, [*text.lines[1:], None], strict=False):
        if pair := SAYS["os_release"].match(line.text):
            release.setdefault(pair[1], (line, pair[2]))
        if pair := SAYS["lsb_release"].match(line.text):
            lsb.setdefault(pair[1], (line, pair[2]))
        file = SAYS["version_file"].search(line.text)
        if file and following and (version := SAYS["version_line"].match(following.text)):
            row = DISTRIBUTIONS[file[1]]
            name = f"{row.id.capitalize()} {version[1]}"
            system = System(quote(line, following.number), row.id, row.release(version[1]), name, place(line))
            yield Mention(system, Rank.PRINTED)
    values = {key: value for key, (_, value) in release.items()}
    if "ID" in values and "NAME" in values and re.fullmatch(r"[\w.-]{1,40}", values["ID"]):
        lines = sorted((line for line, _ in release.values()), key=lambda line: line.number)
        listed = DISTRIBUTIONS.get(values["ID"])
        like = listed.like if listed else next(iter(values.get("ID_LIKE", "").split()), None)
        name = values.get("PRETTY_NAME", values["NAME"])
        version_id = values.get("VERSION_ID") or None
        system = System(
            quote(lines[0], lines[-1].number), values["ID"], version_id, name, place(lines[0]), like
        )
        yield Mention(system, Rank.PRINTED)
    if "Distributor ID" in lsb and "Release" in lsb:
        name, number = lsb["Distributor ID"][1].lower(), lsb["Release"][1]
        for row in [row for row in DISTRIBUTIONS.values() if re.fullmatch(row.names, name, re.IGNORECASE)][:1]:
            line, title = lsb.get("Description", lsb["Distributor ID"])
            told = row.release(number) if re.fullmatch(row.version, number, re.IGNORECASE) else None
            last = max(line.number for line, _ in lsb.values())
            system = System(quote(line, last), row.id, told, title, place(line), row.like)
            yield Mention(system, Rank.PRINTED)
