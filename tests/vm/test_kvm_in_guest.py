"""A guest is asked whether a machine of KVM runs in it. It is emulated, so that any host can do this."""

import pytest

from lab.base.activity import UNWATCHED
from lab.base.paths import Paths
from lab.images.store import BaseImage
from lab.machine import acceleration, leftovers
from lab.machine.acceleration import KvmFails
from lab.machine.connection import get_default_uri, hold_connection


def test_a_machine_runs_in_a_guest_whose_processor_can(paths: Paths, image: BaseImage) -> None:
    with hold_connection(get_default_uri()) as connection:
        seconds = acceleration.boot_under_kvm(connection, paths, image, UNWATCHED, kvm=False)
    assert seconds and seconds > 0
    assert not [name for name in leftovers.list_lanes(paths) if "throwaway" in name]


@pytest.mark.host_guest
def test_a_guest_whose_processor_cannot_says_so(paths: Paths, image: BaseImage) -> None:
    masked = "clearcpuid=svm,vmx"
    with (
        hold_connection(get_default_uri()) as connection,
        pytest.raises(KvmFails, match=r"no KVM that runs a machine for boxlite: .*'/dev/kvm'"),
    ):
        acceleration.boot_under_kvm(connection, paths, image, UNWATCHED, kvm=False, arguments=masked)
