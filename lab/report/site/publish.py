"""Writes a site: all files beside its folder, then the whole folder in one step."""

import ctypes
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab import __version__
from lab.base import notices, scratch
from lab.base.errors import LabError, UsageError, format_error
from lab.base.files import format_free_space, is_full, open_regular, sync_tree
from lab.report.site import host_pages, maintainers, model, records
from lab.report.site.model import HISTORY_FILE, History, Site
from lab.report.site.page import STATIC, Copy, Output, Page, TextFile, make_renderer, make_stand_in


def evidence_files(site: Site) -> Iterator[Copy]:
    for evidence in site.evidence.values():
        yield from evidence.files


def static_files(_site: Site) -> Iterator[TextFile]:
    for file in sorted(STATIC.iterdir()):
        yield TextFile(file.name, file.read_text("utf-8"))


# The functions that make the files of a site, those for users first. A new page is added here.
PARTS: list[Callable[[Site], Iterable[Output]]] = [
    static_files,
    host_pages.make_front_page,
    host_pages.make_host_pages,
    host_pages.make_changes_page,
    host_pages.make_support_files,
    maintainers.make_matrix_page,
    maintainers.make_findings_page,
    maintainers.make_run_pages,
    maintainers.make_cell_pages,
    evidence_files,
    records.make_records,
]

# From <linux/fs.h>: exchange two paths in one step.
RENAME_EXCHANGE = 2
AT_FDCWD = -100


def publish_site(runs: Sequence[Path], folder: Path, *, host_names: bool = False) -> Path:
    """Make the site of these runs in a folder, which is replaced in one step. Returns its front page.

    Hosts have numbers instead of their names, unless `host_names` is set.
    Raises UsageError for a run that cannot be read, and for a folder that holds anything but such a site.
    """
    target = folder.resolve()
    history = _known_site(target)
    site = model.load_site(runs, history, host_names=host_names)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _folder_beside(target) as new:
            _write(site, new)
            sync_tree(new)
            _replace(target, new)
    except OSError as error:
        # A write to a full disk names no file.
        file = f": {error.filename}" if error.filename else ""
        free = f"; {format_free_space(target)}" if is_full(error) else ""
        raise LabError(
            f"the site cannot be written to {target}: {error.strerror or format_error(error)}{file}{free}",
            hint="free some disk space, or choose another folder with -o DIR; the old site was left as it was",
        ) from error
    return target / "index.html"


def _known_site(folder: Path) -> History:
    """Return the history of the site in a folder. Raises UsageError if the folder holds anything else."""
    if not folder.exists():
        return History()
    if not folder.is_dir():
        raise UsageError(f"-o {folder}: is a file, not a folder", hint="name a new folder")
    history = model.read_history(folder)
    foreign = sorted({entry.name for entry in folder.iterdir()} - {*history.entries, HISTORY_FILE})
    if foreign:
        raise UsageError(
            f"-o {folder}: `lab publish` would replace the folder, which has files that it did not make: "
            f"{', '.join(foreign[:3])}{' and more' if len(foreign) > 3 else ''}",
            hint="name a new or empty folder, or that of an earlier `lab publish`",
        )
    return history


def _write(site: Site, folder: Path) -> None:
    render = make_renderer([source.id for source in site.sources])
    for output in (output for part in PARTS for output in part(site)):
        path = folder / output.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(render_output(render, output))
    entries = sorted({entry.name for entry in folder.iterdir()})
    history = site.history.model_copy(update={"entries": entries, "lab": __version__})
    text = history.model_dump_json(by_alias=True, indent=1)
    (folder / HISTORY_FILE).write_text(f"{text}\n", "utf-8")


def render_output(render: Callable[[Page], str], output: Output) -> bytes:
    """Return what a file of the site holds; if it cannot be made, why."""

    def copied(copy: Copy) -> bytes:
        # A link or a pipe may have taken the place of the run's file since.
        with open_regular(copy.source, os.O_NOFOLLOW) as stream:
            return stream.read(copy.size)

    match output:
        case Page():
            text = notices.show_or_explain(
                lambda: render(output), lambda reason: render(make_stand_in(output.path, output.title, reason))
            )
        case TextFile():
            text = output.text
        case Copy():
            return notices.show_or_explain(lambda: copied(output), str.encode)
    return text.encode(errors="replace")


@contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """Make a folder beside the target, and delete it at the end with what is in it by then.

    First deletes those that a killed lab left.
    """
    prefix = f".{target.name}.publish-"
    for old in scratch.find_abandoned_folders(target.parent, prefix):
        shutil.rmtree(old, ignore_errors=True)
    with scratch.make_locked_folder(target.parent, prefix) as new:
        try:
            inner = new / "site"
            inner.mkdir(mode=0o755)
            yield inner
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _replace(target: Path, new: Path) -> None:
    """Put a new folder in the place of the target in one step; the old one then is where the new one was."""
    if not target.exists():
        new.rename(target)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, os.fsencode(new), AT_FDCWD, os.fsencode(target), RENAME_EXCHANGE) == 0:
        return
    # This file system cannot exchange folders: for a moment there is none.
    old = new.with_name("old")
    target.rename(old)
    try:
        new.rename(target)
    except OSError:
        old.rename(target)
        raise
