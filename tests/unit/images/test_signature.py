"""Verification with the real gpgv and keys made for the test."""

from itertools import pairwise
from pathlib import Path

import pytest

from lab.base import process
from lab.base.errors import ImageNotAvailable, LabError
from lab.base.paths import PACKAGE
from lab.images import cloud
from tests.builders.mirror import SigningKey

TEXT = "0123 *disk.img\n"
# As Debian's packages ubuntu-keyring and distribution-gpg-keys have them.
SHIPPED = {
    "almalinux-9": "BF18AC2876178908D6E71267D36CB86CB86B3716",
    "almalinux-10": "EE6DB7B98F5BF5EDD9DA0DE5DEE5C11CC2A1E572",
    "ubuntu-cloud": "D2EB44626FDDC30B513D5BB71A5D6C4C7DB87C81",
    "fedora-43": "C6E7F081CF80E13146676E88829B606631645531",
    "fedora-44": "36F612DCF27F7D1A48A835E4DBFCF71C6D9F90A6",
}


@pytest.fixture
def key(keys: dict[str, SigningKey], tmp_path: Path) -> Path:
    file = tmp_path / "key.asc"
    file.write_text(keys["good"].public)
    return file


def test_what_the_key_signed_counts_and_nothing_around_it(keys: dict[str, SigningKey], key: Path) -> None:
    signed = keys["good"].sign(TEXT, "--detach-sign")
    assert cloud.verify_signature(TEXT.encode(), signed, key, "SUMS") == TEXT
    signed = keys["good"].sign(TEXT, "--clear-sign")
    assert cloud.verify_signature(signed, None, key, "SUMS") == TEXT
    assert cloud.verify_signature(b"6666 *disk.img\n" + signed + b"6666 *disk.img\n", None, key, "SUMS") == TEXT
    # Two signed texts in one file are refused.
    signed += keys["good"].sign("6666 *disk.img\n", "--clear-sign")
    with pytest.raises(ImageNotAvailable, match="gpgv refused it"):
        cloud.verify_signature(signed, None, key, "SUMS")


@pytest.mark.parametrize("how", ["--detach-sign", "--clear-sign"])
@pytest.mark.parametrize(
    ("name", "changed", "reason"),
    [
        ("another", False, "it was signed by another key"),
        ("expired", False, "the key has expired"),
        ("good", True, "the signature does not match the text"),
    ],
)
def test_a_signature_that_does_not_count_is_told(
    keys: dict[str, SigningKey], key: Path, how: str, name: str, changed: bool, reason: str
) -> None:
    if name == "expired":
        key.write_text(keys[name].public)
    made = keys[name].sign(TEXT, how)
    text, detached = (made, None) if how == "--clear-sign" else (TEXT.encode(), made)
    if changed:
        text = text.replace(b"0123", b"0124")
    with pytest.raises(ImageNotAvailable, match=f"the signature of SUMS is not valid: {reason}") as error:
        cloud.verify_signature(text, detached, key, "SUMS")
    assert str(key) in (error.value.hint or "")


@pytest.mark.parametrize("detached", [None, b"", b"<html>no</html>"], ids=["clear", "empty", "a web page"])
def test_a_text_without_a_signature_is_told(key: Path, detached: bytes | None) -> None:
    with pytest.raises(ImageNotAvailable, match="it contains no signature"):
        cloud.verify_signature(TEXT.encode(), detached, key, "SUMS")


@pytest.mark.parametrize("text", ["", "a key\n", "-----BEGIN\n\nno base64!\n-----END"])
def test_a_file_that_is_no_key_is_named(key: Path, text: str) -> None:
    key.write_text(text)
    with pytest.raises(LabError, match=f"{key} "):
        cloud.verify_signature(TEXT.encode(), b"", key, "SUMS")


def test_without_gpgv_it_is_said(
    keys: dict[str, SigningKey], key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = keys["good"].sign(TEXT, "--detach-sign")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "setpriv").symlink_to("/usr/bin/setpriv")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(LabError, match="gpgv could not be run") as error:
        cloud.verify_signature(TEXT.encode(), signed, key, "SUMS")
    assert not isinstance(error.value, ImageNotAvailable)


def test_the_shipped_keys_are_those_of_their_owners(tmp_path: Path) -> None:
    folder = PACKAGE.parent / "images" / "keys"
    assert {file.stem for file in folder.iterdir()} == set(SHIPPED)
    for name, fingerprint in SHIPPED.items():
        assert fingerprints(folder / f"{name}.asc", tmp_path) == [fingerprint]


def fingerprints(key: Path, home: Path) -> list[str]:
    command = ["gpg", "--homedir", str(home), "--with-colons", "--show-keys", str(key)]
    told = process.run_command(command, timeout=60)
    records = [line.split(":") for line in told.splitlines()]
    return [after[9] for record, after in pairwise(records) if record[0] == "pub" and after[0] == "fpr"]
