"""The version of boxlite, and how it was installed."""

import re
from collections.abc import Iterator

from lab.repro.reading.rules._base import Found, Rule, Text, matches, quote
from lab.repro.report import Boxlite

VERSION = r"(\d+\.\d+(?:\.\d+)?(?:(?:a|b|rc|\.dev|\.post|-alpha\.|-beta\.|-rc\.)\d+)?)"
PATTERN = re.compile(
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
# What `pip show boxlite` prints, and a form's field of that name.
# A question whose answer is the next line.
ASKS = re.compile(r"\bboxlite\.__version__|\bboxlite (?:--version|-V)\s*$")
ANSWER = re.compile(rf"^\s*{VERSION}\s*$")
NAME, VERSION_LINE = re.compile(r"^\s*Name:\s*boxlite\s*$"), re.compile(rf"^\s*Version:\s*{VERSION}\s*$")
# How it was installed; a wheel may also be a version's own form.
INSTALLED = {
    "pip": r"\b(?:pip3? install|pip show|uv add|poetry add)\b[^|;&]{0,80}\bboxlite\b",
    "npm": r"\b(?:npm|pnpm|yarn) (?:i|install|add)\b[^|;&]{0,80}boxlite|@boxlite-ai/boxlite\b",
    "cargo": r"\bcargo (?:add|install)\b[^|;&]{0,80}\bboxlite\b(?!-cli)",
    "cli": r"\bcargo install\b[^|;&]{0,80}\bboxlite-cli\b|\bboxlite (?:run|--version)\b",
    "source": r"\bgit clone\b[^|;&]{0,80}/boxlite\b|\bmake (?:runtime|test):\w+",
}


class Boxlites(Rule):
    def read(self, text: Text) -> Iterator[Found]:
        shown = asked = False
        for line in text.lines:
            for pattern in (PATTERN, RUNTIME):
                for match in matches(pattern, line.labelled):
                    way = WAY.match(line.labelled[match.end() :])
                    how = way[1].lower().replace("pypi", "pip") if way else None
                    yield Found(Boxlite(quote(line), match[1], how), line.number)
            if shown and (printed := VERSION_LINE.match(line.text)):
                yield Found(Boxlite(quote(line), version=printed[1], installed_by="pip"), line.number)
            if asked and (printed := ANSWER.match(line.text)):
                yield Found(Boxlite(quote(line), version=printed[1]), line.number)
            asked = ASKS.search(line.raw) is not None
            shown = NAME.match(line.text) is not None
            for how, command in INSTALLED.items():
                if re.search(command, line.text):
                    yield Found(Boxlite(quote(line), installed_by=how), line.number)
