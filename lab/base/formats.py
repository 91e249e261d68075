"""The formats of the files that outlive a release, with every version that a release writes.

A file says its version as `schema`. One that does not say it has the newest version: people write it, and leave
the key out.
"""

from dataclasses import dataclass
from typing import Any, Final

from lab import __version__
from lab.base.errors import UsageError
from lab.base.files import join_lines

# The key of a file's version, and the largest one that is taken for a version.
KEY: Final = "schema"
LARGEST: Final = 9999


@dataclass(frozen=True)
class FormatVersion:
    """One version of a format.

    `release` is the first release that writes it. `digest` is that of the JSON Schema of the format's models;
    `tests/unit/test_formats.py` computes it, and says what to do if it has changed.
    """

    name: str
    version: int
    release: str
    digest: str


# Of each format the newest version comes last. A row that a release has is never changed or removed.
FORMATS: Final = (
    FormatVersion("record", 3, "1.0.0", "f0c117570a31b9b4"),
    FormatVersion("baseline", 1, "1.0.0", "da994290ab9fc985"),
    FormatVersion("expectations", 1, "1.0.0", "23c896103f52763a"),
    FormatVersion("inventory", 1, "1.0.0", "5493303329384c06"),
    FormatVersion("site's history", 1, "1.0.0", "ce2c2d69942916c0"),
    FormatVersion("published results", 1, "1.0.0", "ef5ba07bed5647d5"),
    FormatVersion("probe's output", 4, "1.0.0", "9deaa8978ac75835"),
    FormatVersion("definition", 1, "1.0.0", "2290a9222fa39660"),
)


def list_versions(name: str) -> list[int]:
    """Return the versions of a format that this lab reads; the last one is the one that it writes."""
    return [row.version for row in FORMATS if row.name == name]


def check_version(name: str, content: Any, source: object) -> None:
    """Raise UsageError if a file's content is of a version that this lab does not read; it says which lab does.

    `content` is the whole file as Python has it, and `source` is what the message calls the file.
    """
    if not isinstance(content, dict) or content.get(KEY) is None:
        return
    found, known = content[KEY], list_versions(name)
    reads = f"version{'s' * (len(known) > 1)} {', '.join(map(str, known))}"
    # True is equal to 1, and 1.0 is, too. A number may have too many digits to be shown.
    if type(found) is not int or not 0 <= found <= LARGEST:
        raise UsageError(
            f"{source}: {KEY}: expected {reads}, found a value of the type {type(found).__name__}",
            hint="name another file, or write this one again",
        )
    if found not in known:
        raise UsageError(
            f"{source} has version {found} of its format, and this lab, {__version__}, reads {reads}",
            hint=f"read it with {_describe_writer(content, is_newer=found > known[-1])}",
        )


def _describe_writer(content: dict[str, Any], *, is_newer: bool) -> str:
    """Which lab reads a file: the one that it names as its writer. A record names it with its run."""
    run = content.get("run", content)
    writer = run.get("lab") if isinstance(run, dict) else None
    named = join_lines(writer, 40) if isinstance(writer, str) else ""
    by_name = f"lab {named}, which wrote it" if named else "the lab that wrote it"
    if not is_newer:
        return f"{by_name}, or write it again with this one"
    return f"{by_name}, or a later release; `pip install --upgrade boxlite-lab` installs the newest"
