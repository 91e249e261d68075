"""Distributions and their releases."""

import re
from collections.abc import Iterator

from lab.repro.reading import distributions
from lab.repro.reading.rules._base import END_OF_SENTENCE, Found, Rule, Text, matches, place, quote
from lab.repro.reading.structure import Line
from lab.repro.report import Place, System

# What follows a name that stands for what derives from it.
FAMILY = re.compile(
    r"[ -]*(?:(?:family|derivatives?|flavou?rs?)\b|based\b|like\b|or (?:a )?derivatives?\b)", re.IGNORECASE
)
BASED = re.compile(r"[ -]*(?:based|like)\b", re.IGNORECASE)
# Systems that a report names to compare with, or as an example.
NOT_THIS = re.compile(
    r"\b(?:works?|worked|fine|passes|succeeds|no problems?)\s+(?:\w+\s+)?on\b|\bunlike\b|\be\.g\.|\bsuch as\b|"
    r"\bships in\b|\bdefault\b|\bbased on\s*$|\bderived from\s*$|\bhttps?:|\banother\b|"
    r"\bother (?:machine|host|laptop|computer|server|system)s?\b|\belsewhere\b|\bimage\s*=\s*[\"']?$",
    re.IGNORECASE,
)
NOR_THIS = re.compile(
    r"^[^.;]{0,20}\b(?:everything|it all|all|it) (?:works|worked|runs|passes) (?:fine|well)\b", re.IGNORECASE
)
# The tag of a container's image that tells its system by a codename, as python:3.12-slim-bookworm does.
TAG = re.compile(r"(?<![\w=\"'])[a-z][\w./-]*:[\w.]+-(?:slim-)?([a-z]{3,12})\b")
# Lines of /etc/os-release, and programs whose messages name a distribution.
OS_RELEASE = re.compile(r"^\s*([A-Z_]+)=[\"']?([^\"']*)[\"']?\s*$")
NAMING = ("PRETTY_NAME", "NAME", "VERSION", "ID")
OTHERS_WORDS = re.compile(r"\bbwrap: ")


class Distributions(Rule):
    def read(self, text: Text) -> Iterator[Found]:
        release: dict[str, tuple[Line, str]] = {}
        for line in text.lines:
            if OTHERS_WORDS.search(line.text):
                continue
            pair = OS_RELEASE.match(line.text)
            if pair:
                release[pair[1]] = (line, pair[2])
            if pair is None or pair[1] in NAMING:
                yield from self._named(line)
                yield from self._tagged(line)
        yield from self._of_os_release(release)

    def _named(self, line: Line) -> Iterator[Found]:
        found = list(matches(distributions.pattern(), line.text))
        for match in found:
            group = next(name for name in match.re.groupindex if match[name] and not name.endswith("_version"))
            known = distributions.table()[group.replace("_", "-")]
            version = match[f"{group}_version"]
            after = line.text[match.end() :]
            family = FAMILY.match(after)
            sentence = END_OF_SENTENCE.split(line.text[: match.start()])[-1]
            if NOT_THIS.search(sentence) or NOR_THIS.match(after) or after.startswith("+"):
                continue
            if known.id == "windows" and "WSL" in line.text:
                continue  # The system in question is the one inside it.
            if BASED.match(after) and len(found) > 1:
                continue  # It tells what another name on the line derives from.
            name = match[0].rstrip(" -:,(_") + (family[0] if family else "")
            yield Found(
                System(
                    quote(line),
                    id=known.id,
                    version=known.release(version) if version else None,
                    name=name,
                    place=place(line, match.start()),
                    like=known.like,
                    or_derivative=family is not None,
                ),
                line.number,
            )

    def _tagged(self, line: Line) -> Iterator[Found]:
        for match in matches(TAG, line.text):
            for known in distributions.table().values():
                if match[1] == known.id or match[1] in known.codenames:
                    version = known.codenames.get(match[1])
                    system = System(
                        quote(line), known.id, version, f"{known.id} ({match[0]})", Place.CONTAINER, known.like
                    )
                    yield Found(system, line.number)

    def _of_os_release(self, release: dict[str, tuple[Line, str]]) -> Iterator[Found]:
        """Yield the system of a pasted /etc/os-release."""
        if "ID" not in release or "NAME" not in release:
            return
        name = release["ID"][1]
        lines = sorted((line for line, _ in release.values()), key=lambda each: each.number)
        version = release["VERSION_ID"][1] if "VERSION_ID" in release else None
        like = release["ID_LIKE"][1].split() if "ID_LIKE" in release else []
        pretty = release.get("PRETTY_NAME", release["NAME"])[1]
        known = distributions.table().get(name)
        if known is None and not re.fullmatch(r"[a-z0-9._-]{1,40}", name):
            return
        family = known.like if known else (like[0] if like else None)
        system = System(quote(lines[0]), name, version or None, pretty, place(lines[0]), family)
        yield Found(system, lines[-1].number)
