"""Verifies checksums that a distribution signed, with gpgv and one trusted key.

gpgv's status lines: https://github.com/gpg/gnupg/blob/master/doc/DETAILS
"""

import base64
import binascii
from pathlib import Path

from lab.base import process, scratch
from lab.base.errors import ImageNotAvailable, LabError

SECONDS = 60.0
STATUS = "[GNUPG:] "
# gpgv's status codes that mean refusal. For an expired key gpgv exits with 0 and reports a valid signature.
REFUSED = {
    "NODATA": "it contains no signature",
    "BADSIG": "the signature does not match the text",
    "EXPKEYSIG": "the key has expired",
    "EXPSIG": "the signature has expired",
    "REVKEYSIG": "the key was revoked",
    "NO_PUBKEY": "it was signed by another key",
}


def verify(text: bytes, signature: bytes | None, key: Path, name: str) -> str:
    """Verify a checksum file and return the part of its text that is signed.

    `signature` is the detached signature, or None if the text contains it. `key` is the file of an
    ASCII-armoured key; `name` names the checksum file in errors. Raises ImageNotAvailable.
    """
    with scratch.temporary() as home:
        ring, signed, plain = home / "key.gpg", home / "signed", home / "plain"
        # gpgv does not read armoured keys.
        ring.write_bytes(dearmour(key))
        signed.write_bytes(text)
        command: list[str | Path] = ["gpgv", "--homedir", home, "--keyring", ring, "--status-fd", "1"]
        if signature is None:
            # Anybody can add text around the signed part, so only gpgv's output counts.
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
        raise LabError(
            f"gpgv could not be run: {failure}", hint="run ./setup.sh, which installs it"
        ) from failure
    reason = next((why for code, why in REFUSED.items() if code in codes), None)
    if reason is None and failure is None and {"GOODSIG", "VALIDSIG"} <= codes:
        return
    raise ImageNotAvailable(
        f"the signature of {name} is not valid: {reason or 'gpgv refused it'}",
        hint=f"the expected key is {key}; gpgv printed:\n{printed.rstrip()}",
    ) from failure


def dearmour(key: Path) -> bytes:
    """Decode an ASCII-armoured key: https://www.rfc-editor.org/rfc/rfc9580#section-6.2.

    Raises LabError if the file is not such a key.
    """
    try:
        # The headers end at the first empty line; the line that begins with "=" is a checksum.
        body = key.read_text().partition("\n\n")[2].partition("\n=")[0].partition("\n-----END")[0]
        data = base64.b64decode(body.replace("\n", ""), validate=True)
    except (OSError, ValueError, binascii.Error) as error:
        raise LabError(f"{key} cannot be read: {error}") from error
    if not data:
        raise LabError(f"{key} is not an ASCII-armoured key")
    return data
