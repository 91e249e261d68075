from typing import Any

import pytest

from lab import catalog
from lab.guest.ready import NotAsDefined, check_as_defined
from tests.unit.examples import facts

KNOWN = catalog.load()
SELINUX = KNOWN.guest("debian-13-selinux")


def test_a_guest_that_promises_nothing_is_as_defined() -> None:
    check_as_defined(KNOWN.guest("debian-13"), facts(selinux=None))


def test_a_guest_under_the_selinux_policy_it_promises_is_as_defined() -> None:
    check_as_defined(SELINUX, facts(selinux={"mode": "enforcing", "policy": "default"}))


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (None, "SELinux is not in use"),
        ({"mode": "permissive", "policy": "default"}, "SELinux is permissive with policy default"),
        ({"mode": "enforcing", "policy": "mls"}, "SELinux is enforcing with policy mls"),
    ],
)
def test_a_guest_that_does_not_enforce_its_policy_is_not_as_defined(
    found: dict[str, Any] | None, shown: str
) -> None:
    with pytest.raises(NotAsDefined, match=f"should enforce the SELinux policy default, but {shown}"):
        check_as_defined(SELINUX, facts(selinux=found))
