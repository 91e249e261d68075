"""The evidence that a site takes along: copies of a cell's files that no browser executes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lab.evidence import why_not
from lab.site.page import Copy, slug
from lab.site.results import Identity, Published

MIB = 1 << 20
LARGEST = 1 * MIB  # bytes of one file
TOTAL = 100 * MIB  # bytes of all files of a site


@dataclass(frozen=True)
class EvidenceFile:
    """A file of a cell's evidence: its name in the cell's folder, and its copy in the site."""

    name: str
    copy: Copy


@dataclass(frozen=True)
class CellEvidence:
    """The evidence of one cell that the site has, and why it lacks the rest: a reason by a file's name."""

    files: list[EvidenceFile] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def plan(
    cells: Iterable[Published], largest: int = LARGEST, total: int = TOTAL
) -> Mapping[Identity, CellEvidence]:
    """Decide which files are copied; the first cells are served first. Sizes are in bytes."""
    planned: dict[Identity, CellEvidence] = {}
    taken: set[str] = set()
    left = total
    for each in cells:
        planned[each.identity] = found = CellEvidence()
        for file in each.cell.evidence:
            name = _name(each, file)
            size, why_not = _size(each.source.folder, file)
            if not why_not and size > largest:
                why_not = f"larger than {largest / MIB:g} MiB ({size / MIB:.1f} MiB)"
            if not why_not and size > left:
                why_not = f"the site has {total / MIB:g} MiB of evidence already"
            if why_not:
                found.left_out[name] = why_not
                continue
            left -= size
            target = _target(each, name)
            while target in taken:  # `log` and `log.txt` of one cell
                target += ".txt"
            taken.add(target)
            found.files.append(EvidenceFile(name, Copy(target, each.source.folder / file, size)))
    return planned


def _size(run: Path, file: str) -> tuple[int, str]:
    """Return the size of a file, or why it cannot be copied."""
    why = why_not(run, file)
    return (0, why) if why else ((run / file).stat().st_size, "")


def _name(each: Published, file: str) -> str:
    """Return the name of a file of evidence inside its cell's folder."""
    path = PurePosixPath(file)
    return str(path.relative_to(each.cell.folder)) if path.is_relative_to(each.cell.folder) else file


def _target(each: Published, name: str) -> str:
    """Return where the copy goes. It ends in `.txt`, so that a browser shows it and executes nothing in it."""
    cell = [slug(part) for part in each.identity]
    *folders, last = [slug(part) for part in PurePosixPath(name).parts]
    # A folder's name never is a copy's: `notes` and `notes.txt/b` may be evidence of one cell.
    inside = [folder.replace(".txt", "-txt") for folder in folders]
    return "/".join(["evidence", *cell, *inside, last if last.endswith(".txt") else f"{last}.txt"])
