"""The table of what guests of Debian's packages have of a fresh Debian, and what they lack."""

import re
from collections import Counter

from lab import catalog
from lab.catalog import DebianImage
from lab.catalog.debian_packages import find_packages_file, list_image_omissions, load_debian_packages

TABLE = load_debian_packages()
IMAGES = {
    name: guest.image
    for name, guest in catalog.load_catalog().guests.items()
    if isinstance(guest.image, DebianImage)
}
SUITES = ["bullseye", "bookworm", "trixie", "forky", "sid"]


def test_each_package_is_installed_or_omitted_once_and_exceptions_are_about_packages_of_the_table() -> None:
    groups = [*TABLE.installed, *TABLE.omitted]
    counts = Counter(name for group in groups for name in group.packages)
    assert [name for name, count in counts.items() if count > 1] == []
    assert [name for name in TABLE.suites if name not in counts] == []
    assert [name for name, suites in TABLE.suites.items() if [s for s in SUITES if s in suites] != suites] == []
    assert {image.suite for image in IMAGES.values()} <= set(SUITES)
    assert all(group.reason for group in groups) and all(group.reason for group in TABLE.masked)


def test_what_decides_in_a_suite_is_installed_in_its_guests() -> None:
    for suite in SUITES:
        assert {"cron", "libnss-systemd", "libpam-systemd", "systemd-timesyncd"} <= set(
            TABLE.list_installed(suite)
        )
    assert "rsyslog" in TABLE.list_installed("bullseye") and "polkitd" not in TABLE.list_installed("bullseye")
    assert "linux-sysctl-defaults" not in TABLE.list_installed("bookworm")
    assert {"dbus-user-session", "linux-sysctl-defaults", "polkitd"} <= set(TABLE.list_installed("trixie"))
    assert "systemd-userdbd" in TABLE.list_installed("forky")


def test_a_guest_says_what_it_lacks_of_its_own_suite_and_with_its_own_packages() -> None:
    def lacking(image: DebianImage) -> set[str]:
        return {name for omission in list_image_omissions(image) for name in omission.packages}

    bookworm, trixie = IMAGES["debian-12"], IMAGES["debian-13"]
    assert {"isc-dhcp-client", "man-db"} <= lacking(bookworm)
    assert "isc-dhcp-client" not in lacking(trixie) and "dhcpcd-base" in lacking(trixie)
    assert not lacking(trixie) & set(TABLE.list_installed("trixie"))
    assert lacking(trixie) - lacking(trixie.model_copy(update={"packages": ["wget"]})) == {"wget"}
    units = [unit for omission in list_image_omissions(trixie) for unit in omission.units]
    generators = [name for group in TABLE.generators for name in group.units]
    assert units == [*TABLE.list_masked(), *generators]
    # The units that the recipe masks come from the table; it names the generators itself.
    recipe = find_packages_file().with_name("debian.sh").read_text()
    assert re.findall(r"ln -s /dev/null .*/system-generators/([\w-]+)", recipe) == generators
