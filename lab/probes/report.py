"""Reading what the probe script printed on a user's host, out of a longer text such as a bug report."""

import json
import re
from collections.abc import Sequence
from itertools import batched
from typing import Any
from urllib.parse import unquote

from pydantic import Field, ValidationError

from lab.base.errors import UsageError, format_error
from lab.base.files import clean_text, cut_text
from lab.base.formats import KEY, check_version
from lab.probes import script
from lab.probes.facts import Facts, FactsModel, Probes, ProcessUser

# Characters of one line, and of the part of an output that is JSON: far more than the script prints.
LONGEST_LINE, LONGEST = 100_000, 200_000
# The first and the last line, without white space.
BEGIN = re.compile(rf"={script.BEGIN} (\d{{1,4}})=".replace(" ", ""))
END = re.compile(rf"={script.END} \d{{1,4}}: (\d{{1,9}}) characters".replace(" ", ""))
# A line of the summary, or of the JSON, which has no white space.
PART = re.compile(r"[\w./ -]{1,80}: .*|[!-~]+", re.ASCII)
# What mail programs put before the lines that they quote.
QUOTE_MARKS = " \t>|"
# What programs make of plain characters. The script prints none of these itself, and no backslash.
UNDONE = str.maketrans({"–": "--", "—": "--", "‑": "-", "…": "...", "\\": None, "“": '"', "”": '"', "„": '"'})
HINT = (
    f"ask for the whole output, from the line `===== {script.BEGIN}` to the line `===== {script.END}`; "
    "`lab probe` prints the script"
)


class HostReport(FactsModel):
    """What the probe script tells of a host, as far as an ordinary user may read it.

    The fields of `facts` that are named in `unreadable` hold no finding, and sysctls and mounts named there are
    not in `facts` at all. `facts.command_line` has only the words of `script.COMMAND_LINE`, and
    `facts.apparmor` only the profiles and files of `script.PROFILES`. `facts.glibc` is empty on a host with
    another C library.
    """

    facts: Facts = Field(description="What the host is.")
    unreadable: tuple[str, ...] = Field(
        description="Facts that the user may not read, or that the script keeps to itself: for example "
        "apparmor.profiles, or sysctls.kernel.apparmor_restrict_unprivileged_unconfined."
    )
    id_like: tuple[str, ...] = Field(
        description="ID_LIKE of /etc/os-release: the distributions that this one derives from."
    )
    who: ProcessUser = Field(description="The user who ran the script.")
    probes: Probes = Field(description="What the kernel allows this user.")

    def knows(self, fact: str) -> bool:
        """Whether a fact, by its path such as apparmor.profiles, is a finding."""
        parts = fact.split(".")
        return not any(".".join(parts[:count]) in self.unreadable for count in range(1, len(parts) + 1))


def find_probe_lines(lines: Sequence[str]) -> slice:
    """Return which lines are the first output of the script; where it is cut off, those before other text."""
    begin = next((number for number, line in enumerate(lines) if BEGIN.search(_packed(line))), None)
    if begin is None:
        return slice(0, 0)
    following = lines[begin + 1 :]
    last = next((number for number, line in enumerate(following) if END.search(_packed(line))), None)
    if last is not None:
        return slice(begin, begin + last + 2)
    foreign = (number for number, line in enumerate(following) if not PART.fullmatch(line.strip(QUOTE_MARKS)))
    return slice(begin, begin + 1 + next(foreign, len(following)))


def read_host_report(text: str) -> HostReport | None:
    """Return the first whole output of the probe script in a text; None if the text has none.

    Raises UsageError if there are only outputs that are damaged, or made by the script of another lab.
    """
    joined = "".join(map(_packed, text.splitlines()))
    first_error: UsageError | None = None
    # What is before the first output, and then the form and the rest of each.
    _, *outputs = BEGIN.split(joined)
    for form, output in batched(outputs, 2):
        try:
            return _read(int(form), output)
        except UsageError as error:
            first_error = first_error or error
    if first_error:
        raise first_error
    return None


def _packed(line: str) -> str:
    """A line without white space and marks of quotations, of which it gains some where lines are folded."""
    return "".join(clean_text(line[:LONGEST_LINE]).translate(UNDONE).strip(QUOTE_MARKS).split())


def _read(form: int, output: str) -> HostReport:
    """Read one output. Raises UsageError if it is damaged or of another form."""
    check_version("probe's output", {KEY: form}, "the probe's output")
    end = END.search(output)
    if end is None:
        raise _damaged("its last line is missing")
    _summary, brace, body = output[: end.start()].partition("{")
    document = f"{brace}{body}".rstrip("=")[:LONGEST]
    if len(document) != int(end[1]):
        raise _damaged(f"it has {len(document)} of {end[1]} characters")
    try:
        return HostReport.model_validate(_unescaped(json.loads(document)))
    except ValidationError as error:
        raise _damaged(cut_text(format_error(error), 300)) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(f"it is not JSON: {cut_text(format_error(error), 300)}") from error


def _damaged(reason: str) -> UsageError:
    return UsageError(f"the probe's output is damaged: {reason}", hint=HINT)


def _unescaped(value: Any) -> Any:
    """Return a document without the script's escapes, and without characters that control a terminal."""
    match value:
        case str():
            return clean_text(unquote(value, errors="replace"))
        case dict():
            return {_unescaped(name): _unescaped(inner) for name, inner in value.items()}
        case list():
            return [_unescaped(inner) for inner in value]
    return value
