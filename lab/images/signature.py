"""Checksums that a distribution signed, verified by gpgv against the one key that counts.

gpgv's status lines: https://github.com/gpg/gnupg/blob/master/doc/DETAILS
"""

import base64
import binascii
import tempfile
from pathlib import Path

from lab.base import process
from lab.base.errors import ImageNotAvailable, LabError

SECONDS = 60.0
STATUS = "[GNUPG:] "
# What gpgv's words mean. It ends with success for a key that has expired, and calls such a signature valid.
REFUSED = {
    "NODATA": "there is no signature in it",
    "BADSIG": "the signature is not that of this text",
    "EXPKEYSIG": "the key has expired",
    "EXPSIG": "the signature has expired",
    "REVKEYSIG": "the key was revoked",
    "NO_PUBKEY": "it was signed by another key",
}


def verified(text: bytes, signature: bytes | None, key: Path, name: str) -> str:
    """What of a checksum file was signed; `signature` is the detached one, None where the text holds it.

    `key` is the file of an ASCII-armoured key, `name` what to call the checksum file. Raises ImageNotAvailable.
    """
    with tempfile.TemporaryDirectory(prefix="boxlite-lab-") as folder:
        home = Path(folder)
        ring, signed, plain = home / "key.gpg", home / "signed", home / "plain"
        # gpgv takes no armoured key.
        ring.write_bytes(dearmoured(key))
        signed.write_bytes(text)
        command: list[str | Path] = ["gpgv", "--homedir", home, "--keyring", ring, "--status-fd", "1"]
        if signature is None:
            # Text around the signed part is anybody's: only what gpgv writes counts.
            command += ["--output", plain, signed]
        else:
            (home / "signature").write_bytes(signature)
            command += [home / "signature", signed]
            plain = signed
        _judge(command, key, name)
        return plain.read_bytes().decode(errors="replace")


def _judge(command: process.Command, key: Path, name: str) -> None:
    try:
        printed = process.run(command, timeout=SECONDS)
        failure = None
    except process.CommandFailed as error:
        printed, failure = error.output, error
    lines = [line.removeprefix(STATUS) for line in printed.splitlines() if line.startswith(STATUS)]
    codes = {line.split()[0] for line in lines if line}
    if failure is not None and not codes:
        raise LabError(f"gpgv could not be run: {failure}", hint="./setup.sh installs it") from failure
    reason = next((why for code, why in REFUSED.items() if code in codes), None)
    if reason is None and failure is None and {"GOODSIG", "VALIDSIG"} <= codes:
        return
    raise ImageNotAvailable(
        f"{name} is not signed as it should be: {reason or 'gpgv refuses it'}",
        hint=f"the key that counts is {key}; gpgv says:\n{printed.rstrip()}",
    ) from failure


def dearmoured(key: Path) -> bytes:
    """The binary form of an ASCII-armoured key: https://www.rfc-editor.org/rfc/rfc9580#section-6.2.

    Raises LabError for a file that is none.
    """
    try:
        # Headers end at the first empty line; the line that begins with "=" is a checksum.
        body = key.read_text().partition("\n\n")[2].partition("\n=")[0].partition("\n-----END")[0]
        data = base64.b64decode(body.replace("\n", ""), validate=True)
    except (OSError, ValueError, binascii.Error) as error:
        raise LabError(f"{key} cannot be read: {error}") from error
    if not data:
        raise LabError(f"{key} is not an ASCII-armoured key")
    return data
