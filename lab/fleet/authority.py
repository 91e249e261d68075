"""The lab's own CA: it makes the certificates of the coordinator and of the host workers."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lab.base.errors import UsageError
from lab.fleet import certificates
from lab.fleet.certificates import BROKEN_AUTHORITY, SKEW, Role

_SECRET = "This file holds a private key; keep it as an SSH key. Whoever has it can "
_CODE = f"{_SECRET}run code as the user of each host that trusts this CA.\n"
_WARNINGS = {
    Role.COORDINATOR: _CODE,
    Role.WORKER: f"{_SECRET}join runs as this host, and send results.\n",
}

# TLS itself refuses a certificate on the wrong side: hosts connect to their coordinator, and nobody to a host.
# So no host's certificate can play the coordinator to another host.
_PURPOSES = {
    Role.COORDINATOR: ExtendedKeyUsageOID.SERVER_AUTH,
    Role.WORKER: ExtendedKeyUsageOID.CLIENT_AUTH,
}


@dataclass(frozen=True)
class Authority:
    """A CA with its key."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def create(cls, days: int, now: datetime) -> "Authority":
        key = _new_key()
        # Each CA has a name of its own, so that errors tell two of them apart.
        digest = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:8]
        name = _name(f"boxlite-lab CA {digest}", None)
        certificate = (
            _builder(name, key, now, now + timedelta(days=days))
            .issuer_name(name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    @classmethod
    def load(cls, file: Path) -> "Authority":
        """The CA in a file that `text` made. Raises UsageError."""
        certificate = certificates.read_authority(file)
        try:
            key = load_pem_private_key(file.read_bytes(), password=None)
        except ValueError as error:
            raise UsageError(f"{file}: its private key cannot be read", hint=BROKEN_AUTHORITY) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise UsageError(f"{file}: the key does not belong to the certificate", hint=BROKEN_AUTHORITY)
        return cls(key, certificate)

    @property
    def expires(self) -> datetime:
        return self.certificate.not_valid_after_utc

    def text(self) -> str:
        """The CA as the text of a file."""
        return f"boxlite-lab: {self}\n{_CODE}{_pem(self.key)}{_pem(self.certificate)}"

    def __str__(self) -> str:
        return certificates.name_of(self.certificate)

    def bundle(self, name: str, role: Role, days: int, now: datetime) -> str:
        """A new key and its certificate, as the text of a bundle. It ends no later than the CA."""
        key = _new_key()
        ends = min(now + timedelta(days=days), self.expires)
        built = (
            _builder(_name(name, role), key, now, ends)
            .issuer_name(self.certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([_PURPOSES[role]]), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )
        title = f"boxlite-lab: {role} {name}, until {ends:%Y-%m-%d}, by {self}\n"
        return title + _WARNINGS[role] + _pem(key) + _pem(built) + _pem(self.certificate)


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(name: str, role: Role | None) -> x509.Name:
    parts = [(NameOID.ORGANIZATION_NAME, "boxlite-lab"), (NameOID.COMMON_NAME, name)]
    if role is not None:
        parts.insert(1, (NameOID.ORGANIZATIONAL_UNIT_NAME, role))
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in parts])


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _pem(what: ec.EllipticCurvePrivateKey | x509.Certificate) -> str:
    if isinstance(what, x509.Certificate):
        return what.public_bytes(Encoding.PEM).decode()
    return what.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
