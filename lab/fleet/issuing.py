"""Makes, renews and installs the certificates of the coordinator and of the host workers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from lab.base.errors import UsageError, unknown_name
from lab.base.files import write_atomically
from lab.base.locks import locked
from lab.base.log import progress
from lab.base.paths import Paths
from lab.catalog.toml import NAME
from lab.fleet import certificates, places
from lab.fleet.authority import Authority
from lab.fleet.certificates import INSTALL, Bundle, Role

# How long certificates are valid if nothing else is asked for, in days.
AUTHORITY_DAYS = 5 * 365
DAYS = 365
# The name of the coordinator's certificate; no host is called so.
COORDINATOR = "coordinator"
# A subject and a DNS name hold no longer one.
LONGEST_NAME = 63
# Longer than it takes to make the certificates of a thousand hosts.
LOCK_SECONDS = 60.0


def initialize(
    paths: Paths,
    names: Sequence[str],
    *,
    days: int = DAYS,
    authority_days: int = AUTHORITY_DAYS,
    now: datetime | None = None,
) -> list[Bundle]:
    """Make a CA, the coordinator's certificate, and one for each of these hosts. Raises UsageError."""
    _check_names(names)
    now = now or datetime.now(UTC)
    with _folder(paths):
        file = places.authority_file(paths)
        if file.exists():
            raise UsageError(
                f"there is a CA already: {file}",
                hint="for more hosts: lab hosts add NAME...; for new certificates: lab hosts renew; for a "
                f"new CA, which ends the trust in all of the old one: mv {paths.hosts} {paths.hosts}.old",
            )
        authority = Authority.create(authority_days, now)
        made = _write(paths, authority, [COORDINATOR, *names], days, now)
        # The CA is written last, so that this can be repeated if it was killed before.
        write_atomically(file, authority.text(), mode=0o600)
    return made


def add(paths: Paths, names: Sequence[str], *, days: int = DAYS, now: datetime | None = None) -> list[Bundle]:
    """Make certificates for more hosts. Raises UsageError, also for a host that has one."""
    _check_names(names)
    authority = Authority.load(places.authority_file(paths))
    with _folder(paths):
        if there := [name for name in names if places.worker_file(paths, name).exists()]:
            raise UsageError(
                f"there is a certificate already for {', '.join(there)}",
                hint=f"lab hosts renew {' '.join(there)} makes a new one",
            )
        return _write(paths, authority, names, days, now or datetime.now(UTC))


def renew(paths: Paths, names: Sequence[str], *, days: int = DAYS, now: datetime | None = None) -> list[Bundle]:
    """Make new keys and certificates, of the same CA, for these names or for all. Raises UsageError."""
    authority = Authority.load(places.authority_file(paths))
    with _folder(paths):
        known = [COORDINATOR, *workers(paths)]
        for name in names:
            if name not in known:
                raise unknown_name("host with a certificate", name, known)
        return _write(paths, authority, list(dict.fromkeys(names)) or known, days, now or datetime.now(UTC))


def install(paths: Paths, text: str, source: str, *, now: datetime | None = None) -> Bundle:
    """Put a worker's bundle into its place on this host, once it was checked. Raises UsageError."""
    bundle = certificates.parse(Path(source), text)
    certificates.check(bundle, Role.WORKER, now)
    with _folder(paths):
        file = places.installed_file(paths)
        write_atomically(file, text, mode=0o600)
    return certificates.read(file, missing=INSTALL)


def workers(paths: Paths) -> list[str]:
    """The names of the hosts that have a certificate here."""
    return sorted(file.stem for file in places.worker_file(paths, "*").parent.glob("*.pem"))


def _write(paths: Paths, authority: Authority, names: Sequence[str], days: int, now: datetime) -> list[Bundle]:
    if now >= authority.expires:
        raise UsageError(
            f"{authority} ended on {authority.expires:%Y-%m-%d}, so it makes no certificate",
            hint=f"make a new CA: mv {paths.hosts} {paths.hosts}.old, then: lab hosts init NAME...",
        )
    places.worker_file(paths, "").parent.mkdir(mode=0o700, exist_ok=True)
    made = []
    for name in names:
        is_coordinator = name == COORDINATOR
        role = Role.COORDINATOR if is_coordinator else Role.WORKER
        file = places.coordinator_file(paths) if is_coordinator else places.worker_file(paths, name)
        write_atomically(file, authority.bundle(name, role, days, now), mode=0o600)
        made.append(certificates.read(file, missing=""))
    return made


@contextmanager
def _folder(paths: Paths) -> Iterator[None]:
    """The folder of certificates, made if it is missing, and locked."""
    paths.make(paths.state)
    paths.hosts.mkdir(mode=0o700, exist_ok=True)
    paths.hosts.chmod(0o700)
    with locked(paths.hosts / ".lock", LOCK_SECONDS, "certificates to be made", progress):
        yield


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if not NAME.fullmatch(name) or len(name) > LONGEST_NAME or name == COORDINATOR:
            raise UsageError(
                f"{name!r} cannot be a host's name here",
                hint=f"lower-case letters, digits, '.' and '-', at most {LONGEST_NAME}; not {COORDINATOR!r}",
            )
    if len(set(names)) != len(names):
        raise UsageError(f"a host is named twice: {' '.join(names)}", hint="name each host once")
