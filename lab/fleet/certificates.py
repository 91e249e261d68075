"""The certificate of a coordinator or of a host worker: read and checked before it is used.

A coordinator's certificate is the right to run code as the user of each host worker: nothing else is asked for.
"""

import re
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from lab.base.errors import UsageError
from lab.base.files import plain
from lab.base.paths import Paths
from lab.fleet import places

# A certificate that ends within this time is told as one that ends soon.
SOON = timedelta(days=30)
# Clocks differ a little: a new certificate is valid from this long before it was made.
SKEW = timedelta(minutes=5)

BLOCK = re.compile(r"-----BEGIN (?P<label>[A-Z ]+)-----\n.*?\n-----END (?P=label)-----\n?", re.DOTALL)


class Role(StrEnum):
    """What a certificate is for; it is in the subject, so that it can be shown."""

    COORDINATOR = "coordinator"
    WORKER = "worker"


@dataclass(frozen=True)
class Bundle:
    """A private key, its certificate and the certificate of the CA that issued it, from one file."""

    file: Path
    key: str = field(repr=False)
    certificate: x509.Certificate
    authority: x509.Certificate

    @property
    def name(self) -> str:
        return _subject(self.certificate, NameOID.COMMON_NAME)

    @property
    def role(self) -> str:
        return _subject(self.certificate, NameOID.ORGANIZATIONAL_UNIT_NAME)

    @property
    def begins(self) -> datetime:
        return max(self.certificate.not_valid_before_utc, self.authority.not_valid_before_utc)

    @property
    def expires(self) -> datetime:
        """The first end of the two: a certificate is worth nothing without its CA."""
        return min(self.certificate.not_valid_after_utc, self.authority.not_valid_after_utc)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the certificate, in hexadecimal."""
        return fingerprint(self.certificate)

    def security(self) -> dict[str, Any]:
        """The arguments of dask's `Security`: this one certificate in each role, and nothing unencrypted."""
        own = self.certificate.public_bytes(Encoding.PEM).decode()
        authority = self.authority.public_bytes(Encoding.PEM).decode()
        roles = ("scheduler", "worker", "client")
        return {
            "require_encryption": True,
            "tls_min_version": ssl.TLSVersion.TLSv1_3,
            "tls_ca_file": authority,
            **{f"tls_{role}_cert": own for role in roles},
            **{f"tls_{role}_key": self.key for role in roles},
        }

    def check_time(self, now: datetime) -> None:
        """Raise UsageError if the certificate has expired, or is not valid yet: then a clock is wrong."""
        what, clock = f"{self.file}: the certificate of {self.name}", f"this host's clock says {_told(now)}"
        cure = "(timedatectl set-ntp true)"
        if now < self.begins:
            raise UsageError(
                f"{what} is not valid before {_told(self.begins)}, but {clock}, "
                f"{_apart(self.begins - now)} earlier: this host's clock is slow, or the one of the host that "
                "made it is fast",
                hint=f"compare `date -u` on both hosts, and set the clock that is wrong {cure}",
            )
        if now >= self.expires:
            raise UsageError(
                f"{what} expired on {_told(self.expires)}; {clock}, {_apart(now - self.expires)} later",
                hint=f"{self._renewal()}; if the clock is wrong, set it {cure}",
            )

    def ends_soon(self, now: datetime) -> str | None:
        """What to do about its end, if that is near."""
        if self.expires - now >= SOON:
            return None
        return f"the certificate of {self.name} ends on {self.expires:%Y-%m-%d}: {self._renewal()}"

    def _renewal(self) -> str:
        if self.authority.not_valid_after_utc <= self.certificate.not_valid_after_utc:
            return "its CA ends too: make a new one, see docs/guides/several-hosts.md"
        if self.role == Role.COORDINATOR:
            return "lab hosts renew coordinator"
        return f"on the coordinator's host: lab hosts renew {self.name}; then bring the new one here: {INSTALL}"


# How a worker's certificate gets to its host.
INSTALL = "ssh HOST lab hosts install < NAME.pem"


def load_coordinator(paths: Paths, *, now: datetime | None = None) -> Bundle:
    """Return this lab's certificate as a coordinator, checked. Raises UsageError with the next step."""
    bundle = read(
        places.coordinator_file(paths), missing="lab hosts init NAME... makes it, and one for each host"
    )
    check(bundle, Role.COORDINATOR, now)
    if (own := places.authority_file(paths)).exists():
        check_authority(bundle, read_authority(own), "lab hosts renew coordinator")
    return bundle


def load_worker(paths: Paths, file: Path | None = None, *, now: datetime | None = None) -> Bundle:
    """Return this host's certificate as a worker, checked: the one in `file`, or the installed one.

    Raises UsageError with the next step.
    """
    bundle = read(
        file or places.installed_file(paths),
        missing=f"on the coordinator's host: lab hosts add NAME; then: {INSTALL}",
    )
    check(bundle, Role.WORKER, now)
    return bundle


def check(bundle: Bundle, role: Role, now: datetime | None = None) -> None:
    """Raise UsageError if a bundle is of another role, expired, or not valid yet."""
    if bundle.role != role:
        raise UsageError(
            f"{bundle.file}: the certificate of {bundle.name} is one of a {bundle.role}, not of a {role}",
            hint="lab hosts list shows which is which",
        )
    bundle.check_time(now or datetime.now(UTC))


def check_authority(bundle: Bundle, authority: x509.Certificate, cure: str) -> None:
    """Raise UsageError if a bundle is from another CA than this one; `cure` is the next step."""
    if fingerprint(bundle.authority) != fingerprint(authority):
        raise UsageError(
            f"{bundle.file}: the certificate of {bundle.name} is from another CA: from "
            f"{name_of(bundle.authority)}, but this lab's is {name_of(authority)}",
            hint=cure,
        )


def read(file: Path, *, missing: str) -> Bundle:
    """A bundle whose parts belong together; its dates and its role are not looked at.

    Raises UsageError; `missing` is the next step where there is no such file.
    """
    return parse(file, places.read_secret(file, missing))


def parse(file: Path, text: str) -> Bundle:
    """A bundle from its text; `file` is where it is from. Raises UsageError."""
    keys, certificates = _blocks(file, text)
    if len(keys) != 1 or len(certificates) != 2:
        raise UsageError(
            f"{file}: expected a private key, its certificate and the CA's, found {len(keys)} keys and "
            f"{len(certificates)} certificates",
            hint="use the file of `lab hosts init` as it is",
        )
    bundle = Bundle(file, keys[0], *certificates)
    try:
        key = load_pem_private_key(keys[0].encode(), password=None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{file}: the private key cannot be read: {plain(str(error))}", hint=_AGAIN) from error
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_bytes(*form) != bundle.certificate.public_key().public_bytes(*form):
        raise UsageError(f"{file}: the key does not belong to the certificate of {bundle.name}", hint=_AGAIN)
    try:
        bundle.certificate.verify_directly_issued_by(bundle.authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise UsageError(
            f"{file}: the certificate of {bundle.name} is from another CA than the one beside it "
            f"({name_of(bundle.authority)})",
            hint=_AGAIN,
        ) from error
    return bundle


_AGAIN = "make it again on the coordinator's host: lab hosts renew NAME"


def read_authority(file: Path) -> x509.Certificate:
    """The CA's certificate from the file that also holds its key. Raises UsageError."""
    _, certificates = _blocks(file, places.read_secret(file, "lab hosts init NAME..."))
    if len(certificates) != 1:
        raise UsageError(f"{file}: expected one certificate, found {len(certificates)}", hint=BROKEN_AUTHORITY)
    return certificates[0]


BROKEN_AUTHORITY = "restore the file, or make a new CA, see docs/guides/several-hosts.md"


def name_of(authority: x509.Certificate) -> str:
    """The name of a CA; each has its own."""
    return _subject(authority, NameOID.COMMON_NAME)


def _blocks(file: Path, text: str) -> tuple[list[str], list[x509.Certificate]]:
    """The private keys and the certificates in a PEM text. Raises UsageError."""
    found = [(block["label"], block[0]) for block in BLOCK.finditer(text.replace("\r\n", "\n"))]
    try:
        certificates = [
            x509.load_pem_x509_certificate(block.encode()) for label, block in found if label == "CERTIFICATE"
        ]
    except ValueError as error:
        raise UsageError(f"{file}: a certificate cannot be read: {plain(str(error))}", hint=_AGAIN) from error
    return [block for label, block in found if label.endswith("PRIVATE KEY")], certificates


def _subject(certificate: x509.Certificate, kind: x509.ObjectIdentifier) -> str:
    found = certificate.subject.get_attributes_for_oid(kind)
    return plain(str(found[0].value)) if found else "?"


def fingerprint(certificate: x509.Certificate) -> str:
    """The SHA-256 of a certificate, in hexadecimal."""
    return certificate.fingerprint(SHA256()).hex()


def _told(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _apart(time: timedelta) -> str:
    minutes = max(1, round(time.total_seconds() / 60))
    return f"{minutes} min" if minutes < 48 * 60 else f"{minutes // (24 * 60)} days"
