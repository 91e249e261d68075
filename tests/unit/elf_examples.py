"""Tiny ELF files that say what they need and hold nothing else."""

import struct
from collections.abc import Mapping, Sequence

X86_64, AARCH64 = 62, 183
STRTAB, NOTE, VERNEED = 3, 7, 0x6FFFFFFE
ISA_NEEDED, ISA_USED = 0xC0008002, 0xC0010002


def elf(
    *,
    versions: Mapping[str, Sequence[str]] | None = None,
    weak: Sequence[str] = (),
    levels: Mapping[int, int] | None = None,
    kernel: tuple[int, int, int] | None = None,
    machine: int = X86_64,
) -> bytes:
    """An ELF file with these versions of symbols, by library, these properties and this ABI tag."""
    strings = bytearray(b"\0")
    sections = [(0, b"", 0, 0), (STRTAB, b"", 0, 0)]
    if versions:
        sections.append((VERNEED, _needed(versions, weak, strings), 1, len(versions)))
    if levels:
        properties = b"".join(struct.pack("<IIII", kind, 4, bits, 0) for kind, bits in levels.items())
        sections.append((NOTE, struct.pack("<III4s", 4, len(properties), 5, b"GNU") + properties, 0, 0))
    if kernel:
        sections.append((NOTE, struct.pack("<III4sIIII", 4, 16, 1, b"GNU", 0, *kernel), 0, 0))
    # As Go's: a note of another owner, with the number of the GNU property's type.
    sections.append((NOTE, struct.pack("<III4s4s", 3, 4, 5, b"Go", b"made"), 0, 0))
    sections[1] = (STRTAB, bytes(strings), 0, 0)
    body, headers = bytearray(64), bytearray()
    for kind, content, link, info in sections:
        headers += struct.pack("<IIQQQQIIQQ", 0, kind, 0, 0, len(body), len(content), link, info, 4, 0)
        body += content + bytes(-len(content) % 8)
    body[:64] = struct.pack(
        "<4s5B7xHHIQQQIHHHHHH",
        *(b"\x7fELF", 2, 1, 1, 0, 0, 3, machine, 1, 0, 0, len(body), 0, 64, 0, 0, 64, len(sections), 1),
    )
    return bytes(body + headers)


def _needed(versions: Mapping[str, Sequence[str]], weak: Sequence[str], strings: bytearray) -> bytes:
    def place(text: str) -> int:
        strings.extend(text.encode() + b"\0")
        return len(strings) - len(text) - 1

    needed = b""
    for number, (library, names) in enumerate(versions.items(), 1):
        size = 16 * (1 + len(names))
        following = size if number < len(versions) else 0
        needed += struct.pack("<HHIII", 1, len(names), place(library), 16, following)
        for name in names:
            last = name == names[-1]
            needed += struct.pack("<IHHII", 0, 2 if name in weak else 0, 2, place(name), 0 if last else 16)
    return needed
