"""Hostile inputs: valid ones of which bytes, values or members are changed."""

import gzip
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import tomlkit
import zstandard
from hypothesis import strategies as st

Inputs = st.SearchStrategy[Any]

# fmt: off
# What is put into a text: what ends, steers or fills whatever shows it, and numbers that are none.
FRAGMENTS = [
    b"", b"\0", b"\xff", b"\xed\xa0\x80", b"\x1b[2J", "\u202e\u2028\ufeff".encode(), "\u00b2\u0663".encode(),
    b"\n", b"\r\n", b'"', b"'", b"\\", b"```", b"::error::x", b"<script>", b"../../x", b"/etc/passwd",
    b"{}", b"null", b"nan", b"1e400", b"-1", b"0x", b"1.2.3rc1+x", b"9" * 5_000, b"[" * 5_000, b'{"a":' * 5_000,
    b"=" * 65_536, b" " * 65_536, b"a " * 30_000, b"\n" * 65_536, b'a="' * 20_000, b"(" * 65_536,
]
# What no library writes as a value: RAW[number] stands in place of "\0raw<number>".
RAW = [
    "1e400", "-Infinity", "NaN", "nan", "inf", "1e5000000", "9" * 5_000,
    "[" * 5_000 + "]" * 5_000, '{"a":' * 2_000,
]
# What is put in place of a value.
VALUES: list[Any] = [
    None, True, -1, 0, 2**63, 1.7e308, "", " ", "x" * 65_536, "9" * 5_000, "nan", "\u00b2", "\x1b[2J\u202e",
    "a\nb\0", "../../x", "/etc/passwd", "1.2.3rc1+x", "2026-02-30", "\ud800", "(", [], {}, [[]], {"": ""},
    ["x"] * 5_000, *(f"\0raw{number}" for number in range(len(RAW))),
]
NAMES = ["../x", "/etc/x", "x" * 300, "d/" * 1_000 + "x", "a\nb", "\u202eb", "", ".", "a//b", "a\\b", "C:x"]
TYPES = [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
PAX = [{}, {"mtime": "inf"}, {"size": "9" * 5_000}, {"path": "../x"}, {"GNU.sparse.major": "1"}, {"uid": "x"}]
# fmt: on
LONGEST = 1 << 17


def _one_of(values: list[Any]) -> Inputs:
    """As `sampled_from`, which would show all of these long values in its errors."""
    return st.integers(0, len(values) - 1).map(values.__getitem__)


_EDIT = st.tuples(
    _one_of(["flip", "cut", "drop", "repeat", "put", "replace", "replace"]),
    st.integers(0, 1 << 20),
    st.integers(1, 64),
    _one_of(FRAGMENTS),
)
EDITS = st.lists(_EDIT, max_size=4)


def edit(content: bytes, edits: list[tuple[str, int, int, bytes]]) -> bytes:
    """The content with these changes, one after another."""
    for what, place, size, fragment in edits:
        at = place % (len(content) + 1)
        before, after = content[:at], content[at:]
        match what:
            case "flip" if after:
                content = before + bytes([after[0] ^ size]) + after[1:]
            case "cut":
                content = before
            case "drop":
                content = before + after[size:]
            case "repeat":
                content = before + after[:size] * (2 + place % 1_000) + after[size:]
            case "put":
                content = before + fragment + after
            case "replace":
                # A whole word or number, which is what most readers look for.
                word = re.match(rb"\w*", after)
                left = re.search(rb"\w*$", before)
                assert word and left
                content = before[: left.start()] + fragment + after[word.end() :]
        content = content[:LONGEST]
    return content


def edited(*samples: bytes | str) -> Inputs:
    """One of the samples, with some of its bytes changed."""
    contents = [sample.encode() if isinstance(sample, str) else sample for sample in samples]
    return st.tuples(_one_of(contents), EDITS).map(lambda drawn: edit(*drawn))


def _places(value: Any) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(), *((key, *rest) for key, inner in items for rest in _places(inner))]


def _put(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    copy = value.copy()
    copy[place[0]] = _put(copy[place[0]], place[1:], new)
    return copy


def _tree(sample: Any, dumps: Callable[[Any], str]) -> Inputs:
    """A document with one or two of its values replaced, removed or given to another key."""
    places = _places(sample)

    def made(changes: list[tuple[int, Any]]) -> bytes:
        tree = sample
        for number, new in changes:
            place = places[number % len(places)]
            try:
                tree = _put(tree, place, new)
            except (KeyError, IndexError, TypeError, AttributeError):
                continue  # An earlier change has taken the place away.
        try:
            text = dumps(tree)
        except (TypeError, ValueError):
            text = json.dumps(tree)  # TOML has no null.
        text = re.sub(r'"\\u0000raw(\d+)"', lambda match: RAW[int(match[1])], text)
        return text.encode(errors="surrogatepass")

    return st.lists(st.tuples(st.integers(0, len(places) - 1), _one_of(VALUES)), max_size=2).map(made)


def json_of(sample: Any) -> Inputs:
    """A JSON document with hostile values, or hostile bytes."""
    return st.one_of(_tree(sample, json.dumps), edited(json.dumps(sample)))


def lines_of(*entries: Any) -> Inputs:
    """JSON lines of which one has hostile values, or hostile bytes."""
    lines = [json.dumps(entry).encode() for entry in entries]

    def with_line(number: int) -> Inputs:
        return _tree(entries[number], json.dumps).map(
            lambda line: b"\n".join([*lines[:number], line, *lines[number + 1 :], b""])
        )

    return st.one_of(*map(with_line, range(len(lines))), edited(b"\n".join([*lines, b""])))


def toml_of(sample: bytes) -> Inputs:
    """A TOML document with hostile values, or hostile bytes."""
    return st.one_of(_tree(tomlkit.parse(sample).unwrap(), tomlkit.dumps), edited(sample))


def files_of(files: Mapping[str, bytes | str]) -> Inputs:
    """A folder's files, by name, of which one has hostile bytes."""
    contents = {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
    changed = st.tuples(_one_of(sorted(contents)), EDITS)
    return changed.map(lambda drawn: contents | {drawn[0]: edit(contents[drawn[0]], drawn[1])})


def _tar(members: Mapping[str, bytes], hostile: tuple[str, bytes, dict[str, str]] | None, to: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        if hostile:
            entry = tarfile.TarInfo(hostile[0])
            entry.type, entry.pax_headers, entry.linkname = hostile[1], hostile[2], "/etc/passwd"
            tar.addfile(entry)
    content = packed.getvalue()
    return gzip.compress(content, 1) if to == "gz" else zstandard.compress(content) if to == "zst" else content


def _zip(members: Mapping[str, bytes], hostile: tuple[str, bytes, dict[str, str]] | None, _to: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        if hostile:
            archive.writestr(hostile[0] or "x", b"x")
    return packed.getvalue()


def archives_of(members: Mapping[str, bytes | str], kind: str) -> Inputs:
    """A zip, tar, gz (of a tar) or zst (of a tar) with a hostile file, a hostile member, or hostile bytes."""
    pack, names = (_zip if kind == "zip" else _tar), sorted(members)
    hostile = st.tuples(_one_of([*NAMES, *names]), _one_of(TYPES), _one_of(PAX))
    whole = pack(
        {name: text.encode() if isinstance(text, str) else text for name, text in members.items()}, None, kind
    )
    with_member = st.tuples(files_of(members), st.one_of(st.none(), hostile)).map(
        lambda drawn: pack(*drawn, kind)
    )
    return st.one_of(with_member, with_member, edited(whole))
