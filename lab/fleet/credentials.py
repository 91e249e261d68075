"""The credentials of one run: a key and a certificate that its scheduler, its client and its workers share.

Whoever has them can run code as the user of each host of the run, so a file with them is kept as an SSH key is.
"""

import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from distributed import Security

# The clocks of hosts differ: dask's own temporary certificates are refused where one is a second slow.
SKEW = timedelta(days=2)
VALID = timedelta(days=30)


def make() -> str:
    """Return a new key with its certificate, as one PEM text."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a run of boxlite-lab")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return (secret + certificate.public_bytes(Encoding.PEM)).decode()


def security(pem: str) -> Security:
    """Return dask's settings for these credentials: TLS 1.3, and each side shows the certificate."""
    roles = ("scheduler", "client", "worker")
    return Security(
        require_encryption=True,
        tls_min_version=ssl.TLSVersion.TLSv1_3,
        tls_ca_file=pem,
        **{f"tls_{role}_{part}": pem for role in roles for part in ("cert", "key")},
    )


def write(pem: str, file: Path) -> None:
    """Write credentials into a new file that only its owner can read."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(pem)
