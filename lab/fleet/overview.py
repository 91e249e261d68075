"""Which certificates there are, until when they are valid, and what is wrong with them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from lab.base.errors import UsageError
from lab.base.paths import Paths
from lab.fleet import certificates, issuing, places
from lab.fleet.certificates import SOON, Bundle, Role


class State(StrEnum):
    """Whether a certificate can be used now."""

    VALID = "valid"
    ENDS_SOON = "ends soon"
    EXPIRED = "expired"
    NOT_YET = "not valid yet"
    UNUSABLE = "unusable"


@dataclass(frozen=True)
class Entry:
    """One certificate. `fault` says why it is unusable; then nothing else is known of it but its file."""

    name: str
    role: str
    file: Path
    state: State
    expires: datetime | None = None
    fingerprint: str | None = None
    fault: str | None = None


def entries(paths: Paths, now: datetime | None = None) -> list[Entry]:
    """The CA, the coordinator, the workers by name, and the certificate that this host has as a worker."""
    return list(_entries(paths, now or datetime.now(UTC)))


def _entries(paths: Paths, now: datetime) -> Iterator[Entry]:
    authority = None
    if (file := places.authority_file(paths)).exists():
        try:
            authority = certificates.read_authority(file)
        except UsageError as error:
            yield _unusable("ca", "ca", file, error)
        else:
            begins, expires = authority.not_valid_before_utc, authority.not_valid_after_utc
            yield Entry(
                certificates.name_of(authority),
                "ca",
                file,
                _state(begins, expires, now),
                expires,
                certificates.fingerprint(authority),
            )
    named = [(issuing.COORDINATOR, Role.COORDINATOR, places.coordinator_file(paths))]
    named += [(name, Role.WORKER, places.worker_file(paths, name)) for name in issuing.workers(paths)]
    for name, role, file in named:
        if file.exists():
            try:
                bundle = certificates.read(file, missing="")
                if authority is not None:
                    certificates.check_authority(bundle, authority, f"lab hosts renew {name}")
            except UsageError as error:
                yield _unusable(name, role, file, error)
            else:
                yield _entry(bundle, role, now)
    if (file := places.installed_file(paths)).exists():
        try:
            bundle = certificates.read(file, missing="")
        except UsageError as error:
            yield _unusable("?", INSTALLED, file, error)
        else:
            yield _entry(bundle, INSTALLED, now)


# The role of a certificate that this host has as a worker; its CA may be another host's.
INSTALLED = "this host"


def _entry(bundle: Bundle, role: str, now: datetime) -> Entry:
    state = _state(bundle.begins, bundle.expires, now)
    return Entry(bundle.name, role, bundle.file, state, bundle.expires, bundle.fingerprint)


def _state(begins: datetime, expires: datetime, now: datetime) -> State:
    if now < begins:
        return State.NOT_YET
    if now >= expires:
        return State.EXPIRED
    return State.ENDS_SOON if expires - now < SOON else State.VALID


def _unusable(name: str, role: str, file: Path, error: UsageError) -> Entry:
    return Entry(name, role, file, State.UNUSABLE, fault=str(error.args[0]))
