"""What TLS itself says to each side when a certificate is none that it may use: real handshakes, no engine."""

import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.base.paths import Paths
from lab.fleet import certificates, issuing, places
from lab.fleet.certificates import Bundle

NOW = datetime.now(UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def context(bundle: Bundle, purpose: ssl.Purpose, tmp_path: Path) -> ssl.SSLContext:
    """As dask makes it of the arguments of its `Security`, and strict beside."""
    given = bundle.security()
    made = ssl.create_default_context(purpose, cadata=given["tls_ca_file"])
    made.minimum_version = given["tls_min_version"]
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.verify_mode = ssl.CERT_REQUIRED
    made.check_hostname = False
    file = tmp_path / f"{bundle.role}-{bundle.name}.pem"
    file.write_text(given["tls_worker_key"] + given["tls_worker_cert"])
    made.load_cert_chain(file)
    return made


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[str, str]:
    """What the server and the client say: `ok`, or the reason of their error."""
    here, there = socket.socketpair()
    said: dict[str, str] = {}

    def take_part(side: str, connection: socket.socket, own: ssl.SSLContext) -> None:
        try:
            with own.wrap_socket(connection, server_side=side == "server") as wrapped:
                wrapped.settimeout(30)
                # With TLS 1.3 the client learns of a refusal with the first byte that it reads.
                if side == "server":
                    wrapped.sendall(b"!")
                    wrapped.recv(1)
                else:
                    assert wrapped.version() == "TLSv1.3"
                    wrapped.recv(1)
                    wrapped.sendall(b"!")
                said[side] = "ok"
        except ssl.SSLCertVerificationError as error:
            said[side] = error.verify_message
        except ssl.SSLError as error:
            said[side] = str(error.reason)
        except OSError as error:
            said[side] = type(error).__name__

    other = threading.Thread(target=take_part, args=("server", here, server))
    other.start()
    take_part("client", there, client)
    other.join(30)
    return said["server"], said["client"]


@pytest.fixture
def labs(tmp_path: Path) -> Callable[[str], Paths]:
    def make(name: str) -> Paths:
        return Paths(cache=tmp_path / name, state=tmp_path / name)

    return make


def coordinator_of(paths: Paths) -> Bundle:
    return certificates.read(places.coordinator_file(paths), missing="")


def worker_of(paths: Paths, name: str = "a") -> Bundle:
    return certificates.read(places.worker_file(paths, name), missing="")


def test_a_coordinator_and_a_worker_of_one_ca_trust_each_other(
    labs: Callable[[str], Paths], tmp_path: Path
) -> None:
    issuing.initialize(labs("own"), ["a"])
    issuing.renew(labs("own"), ["coordinator"])
    server = context(coordinator_of(labs("own")), ssl.Purpose.CLIENT_AUTH, tmp_path)
    client = context(worker_of(labs("own")), ssl.Purpose.SERVER_AUTH, tmp_path)
    assert shake_hands(server, client) == ("ok", "ok")


def test_no_worker_can_play_the_coordinator_to_another_one(
    labs: Callable[[str], Paths], tmp_path: Path
) -> None:
    issuing.initialize(labs("own"), ["a", "b"])
    server = context(worker_of(labs("own")), ssl.Purpose.CLIENT_AUTH, tmp_path)
    client = context(worker_of(labs("own"), "b"), ssl.Purpose.SERVER_AUTH, tmp_path)
    assert shake_hands(server, client) == (
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "unsuitable certificate purpose",
    )


# Each side sends its CA with its certificate.
UNKNOWN = "self-signed certificate in certificate chain"


@pytest.mark.parametrize(
    ("fault", "server_says", "client_says"),
    [
        ("foreign worker", "TLSV1_ALERT_UNKNOWN_CA", UNKNOWN),
        ("expired worker", "certificate has expired", "SSLV3_ALERT_CERTIFICATE_EXPIRED"),
        ("expired coordinator", "SSLV3_ALERT_CERTIFICATE_EXPIRED", "certificate has expired"),
        ("worker from the future", "certificate is not yet valid", "SSLV3_ALERT_BAD_CERTIFICATE"),
        ("no certificate", "PEER_DID_NOT_RETURN_A_CERTIFICATE", "TLSV13_ALERT_CERTIFICATE_REQUIRED"),
        ("only the CA is foreign", UNKNOWN, "TLSV1_ALERT_UNKNOWN_CA"),
    ],
)
def test_each_side_refuses_at_once_and_both_say_why(
    fault: str, server_says: str, client_says: str, labs: Callable[[str], Paths], tmp_path: Path
) -> None:
    own, foreign = labs("own"), labs("foreign")
    issuing.initialize(own, ["a"], now=NOW - 30 * DAY)
    issuing.initialize(foreign, ["a"])
    if fault.startswith("expired"):
        name = "coordinator" if fault.endswith("coordinator") else "a"
        issuing.renew(own, [name], days=1, now=NOW - 10 * DAY)
    elif fault == "worker from the future":
        issuing.renew(own, ["a"], now=NOW + HOUR)
    worker = worker_of(foreign) if fault == "foreign worker" else worker_of(own)
    server = context(coordinator_of(own), ssl.Purpose.CLIENT_AUTH, tmp_path)
    client = context(worker, ssl.Purpose.SERVER_AUTH, tmp_path)
    if fault == "only the CA is foreign":
        # A worker with a foreign certificate that was told to trust this coordinator's CA.
        client = context(worker_of(foreign), ssl.Purpose.SERVER_AUTH, tmp_path)
        client.load_verify_locations(cadata=worker.security()["tls_ca_file"])
    if fault == "no certificate":
        client = ssl.create_default_context(cadata=worker.security()["tls_ca_file"])
        client.check_hostname = False
    assert shake_hands(server, client) == (server_says, client_says)


def test_nothing_older_than_tls_1_3_is_spoken(labs: Callable[[str], Paths], tmp_path: Path) -> None:
    issuing.initialize(labs("own"), ["a"])
    server = context(coordinator_of(labs("own")), ssl.Purpose.CLIENT_AUTH, tmp_path)
    client = context(worker_of(labs("own")), ssl.Purpose.SERVER_AUTH, tmp_path)
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert shake_hands(server, client) == ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION")
