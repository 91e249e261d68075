"""What a build's files need of a guest: its processor and glibc, read from the ELF files themselves.

Names are only claims: a wheel is tagged manylinux_2_28 if whoever built it says so. The dynamic loader goes by
the files. Source: the Linux Standard Base, about versions of symbols.
"""

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, cast

from packaging.version import Version

from lab.base import archives, scratch
from lab.base.architecture import ARCHITECTURES, X86_64
from lab.base.errors import NotApplicable
from lab.probes import Facts
from lab.probes.facts import parse_version

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile
    from elftools.elf.gnuversions import GNUVerNeedSection

GLIBC = re.compile(r"GLIBC_(\d+(?:\.\d+)+)", re.ASCII)
# A version without a number that linkers write, with the first glibc that knows it.
UNNUMBERED = {"GLIBC_ABI_DT_RELR": Version("2.36")}
# Where a file's header has its kind and its processor, and the kinds that are programs or libraries.
HEADER, EXECUTABLE, SHARED = struct.Struct("<4s12xHH"), 2, 3
# The flag of a version that a program can do without.
WEAK = 0x2
# How often pyelftools may read from a file, or from all files of one archive, and how many bytes: a hostile
# file has it read one place for ever. boxlite 0.10.8's library takes 753 reads, libLLVM 14 takes 38,000.
MOST_READS, MOST_READ = 200_000, 16 << 20


@dataclass(frozen=True)
class ElfNeeds:
    """What one ELF file needs. `glibc` None: it asks for no version."""

    file: str
    processor: str = X86_64.elf
    glibc: Version | None = None


def check_files(files: Mapping[str, Path], facts: Facts) -> None:
    """Raise NotApplicable with the reason if one of a build's files cannot run in a guest with these facts."""
    for path in files.values():
        if reason := find_unmet_need(read_needs(path), facts):
            raise NotApplicable(reason)


def find_unmet_need(needs: Sequence[ElfNeeds], facts: Facts) -> str | None:
    """The first of these needs that a guest does not meet, in words; None if none is known to be unmet."""
    glibc, guest_processor = parse_version(facts.glibc), ARCHITECTURES[facts.arch].elf
    for need in needs:
        if need.processor != guest_processor:
            return f"{need.file} is for the processor {need.processor}, and the guest's is {guest_processor}"
        if need.glibc and glibc and need.glibc > glibc:
            return f"{need.file} needs glibc {need.glibc}, and the guest has {facts.glibc}"
    return None


def read_processor(path: Path) -> str | None:
    """The processor that a program or a library is for, by its header alone; None if the file is neither.

    A host may start a program in which pyelftools finds damage. Raises OSError.
    """
    from elftools.elf.enums import ENUM_E_MACHINE

    with path.open("rb") as stream:
        header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    magic, kind, number = HEADER.unpack(header)
    if magic != b"\x7fELF" or kind not in (EXECUTABLE, SHARED):
        return None
    return next((name for name, value in ENUM_E_MACHINE.items() if value == number), str(number))


def read_needs(path: Path) -> Sequence[ElfNeeds]:
    """What an ELF file, or each one in an archive, needs; nothing for anything else.

    Damaged files are passed over: what becomes of a build with such files is for its suite to show. Raises
    OSError.
    """
    if path.is_dir():
        return ()
    status = path.stat()
    return _read(path, status.st_size, status.st_mtime_ns)


@lru_cache
def _read(path: Path, _size: int, _changed: int) -> list[ElfNeeds]:
    """Read a file once as long as it stays the same: unpacking boxlite's library takes seconds."""
    budget = _Budget()
    if path.suffix not in (".whl", ".tgz", ".zst"):
        return _needs(path, path.name, budget)
    with scratch.make_temporary_folder() as folder, suppress(archives.DamagedArchive):
        archives.unpack_archive(path, folder)
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        return [need for file in files for need in _needs(file, f"{file.name} in {path.name}", budget)]
    return []


class _Budget:
    """What may still be read of the files of an archive. Reading raises ValueError once it is used up."""

    def __init__(self) -> None:
        self.reads, self.bytes = MOST_READS, MOST_READ

    def open(self, stream: IO[bytes]) -> "ELFFile":
        """An ELF file that is read from a stream, within the budget. Raises whatever comes up in pyelftools."""
        from elftools.elf.elffile import ELFFile  # Every command knows the kinds of build, and few read a file.

        self._stream, self.seek, self.tell = stream, stream.seek, stream.tell
        return ELFFile(cast(BinaryIO, self))

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(min(size, self.bytes) if size >= 0 else self.bytes)
        self.reads -= 1
        self.bytes -= len(content)
        if self.reads < 0 or self.bytes <= 0:
            raise ValueError("it has too much to read")
        return content


def _needs(path: Path, name: str, budget: _Budget) -> list[ElfNeeds]:
    """What an ELF file needs; nothing if it is none, or damaged."""
    from elftools.elf.gnuversions import GNUVerNeedSection

    with path.open("rb") as stream:
        try:
            elf = budget.open(stream)
            sections = [part for part in elf.iter_sections() if isinstance(part, GNUVerNeedSection)]
            glibc = max((version for section in sections for version in _glibc(section)), default=None)
            return [ElfNeeds(name, str(elf["e_machine"]), glibc)]
        except Exception:
            # pyelftools raises whatever comes up in it: ELFError, OverflowError, ArrayError and others.
            return []


def _glibc(section: "GNUVerNeedSection") -> Iterator[Version]:
    """The versions of glibc whose symbols a file cannot do without."""
    for _, versions in section.iter_versions():
        for version in versions:
            if version["vna_flags"] & WEAK:
                continue
            if numbered := GLIBC.fullmatch(version.name):
                yield Version(numbered[1])
            elif version.name in UNNUMBERED:
                yield UNNUMBERED[version.name]
