"""Certificates of a coordinator and of host workers: made, read, refused."""

import os
import re
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from lab.base.errors import UsageError
from lab.base.paths import Paths
from lab.fleet import certificates, issuing, overview, places
from lab.fleet.certificates import BLOCK, Bundle

NOW = datetime.now(UTC).replace(microsecond=0)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture
def made(paths: Paths) -> Paths:
    """A coordinator and the hosts a and b."""
    issuing.initialize(paths, ["a", "b"], now=NOW)
    return paths


def worker(paths: Paths, name: str = "a") -> Bundle:
    return certificates.load_worker(paths, places.worker_file(paths, name))


def told(call: Callable[[], object]) -> str:
    """What an error says, with its next step."""
    with pytest.raises(UsageError) as raised:
        call()
    assert raised.value.exit_status == 2
    return str(raised.value)


@pytest.fixture
def generous_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_each_file_is_for_its_owner_alone_whatever_the_umask_is(generous_umask: None, made: Paths) -> None:
    issuing.renew(made, ["a"])
    files = list(made.hosts.rglob("*.pem"))
    assert sorted(file.name for file in files) == ["a.pem", "b.pem", "ca.pem", "coordinator.pem"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    folders = [made.hosts, made.hosts / "workers"]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}


def test_a_certificate_says_whose_it_is_and_is_good_for_its_own_side_of_a_connection_alone(made: Paths) -> None:
    bundle = worker(made)
    assert (bundle.name, bundle.role) == ("a", "worker")
    coordinator = certificates.load_coordinator(made)
    assert (coordinator.name, coordinator.role) == ("coordinator", "coordinator")
    extensions = bundle.certificate.extensions
    for each, purpose in (
        (bundle, ExtendedKeyUsageOID.CLIENT_AUTH),
        (coordinator, ExtendedKeyUsageOID.SERVER_AUTH),
    ):
        usage = each.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        assert (usage.critical, list(usage.value)) == (True, [purpose])
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a"]
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca) == (True, False)
    authority = bundle.authority.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (authority.critical, authority.value.ca, authority.value.path_length) == (True, True, 0)


def test_the_lab_s_ca_never_leaves_its_file(made: Paths) -> None:
    [key] = [each[0] for each in BLOCK.finditer(places.authority_file(made).read_text()) if "KEY" in each[0]]
    for file in (places.coordinator_file(made), places.worker_file(made, "a")):
        assert key not in file.read_text()


def test_a_year_and_five_are_the_ends_and_none_outlives_its_ca(paths: Paths) -> None:
    issuing.initialize(paths, ["a"], now=NOW)
    assert worker(paths).expires == NOW + 365 * DAY
    assert worker(paths).authority.not_valid_after_utc == NOW + 5 * 365 * DAY
    [renewed] = issuing.renew(paths, ["a"], days=36_500, now=NOW)
    assert renewed.expires == NOW + 5 * 365 * DAY


def test_dask_gets_the_one_certificate_for_each_role_and_nothing_unencrypted(made: Paths) -> None:
    options = worker(made).security()
    assert options["require_encryption"] is True
    assert options["tls_min_version"].name == "TLSv1_3"
    for role in ("scheduler", "worker", "client"):
        assert options[f"tls_{role}_key"].startswith("-----BEGIN PRIVATE KEY-----")
        assert options[f"tls_{role}_cert"] != options["tls_ca_file"]
    assert options["tls_ca_file"].count("BEGIN") == 1


def test_a_ca_that_is_there_is_not_overwritten(made: Paths) -> None:
    before = {file: file.read_text() for file in made.hosts.rglob("*.pem")}
    said = told(lambda: issuing.initialize(made, ["c"]))
    assert "there is a CA already" in said
    assert "lab hosts add NAME..." in said
    assert {file: file.read_text() for file in made.hosts.rglob("*.pem")} == before


def test_one_that_was_killed_before_it_had_its_ca_is_repeated(made: Paths) -> None:
    places.authority_file(made).unlink()
    issuing.initialize(made, ["a"])
    assert certificates.load_coordinator(made).role == "coordinator"


def test_hosts_are_added_to_the_same_ca_but_never_twice(made: Paths) -> None:
    issuing.add(made, ["c"], days=10, now=NOW)
    assert worker(made, "c").authority == worker(made, "a").authority
    assert worker(made, "c").expires == NOW + 10 * DAY
    assert "lab hosts renew c" in told(lambda: issuing.add(made, ["d", "c"]))
    assert not places.worker_file(made, "d").exists()


def test_renewed_ones_have_new_keys_and_the_same_ca(made: Paths) -> None:
    before = {name: worker(made, name) for name in "ab"}
    assert [each.name for each in issuing.renew(made, ["b", "b"])] == ["b"]
    assert worker(made, "a") == before["a"]
    assert worker(made, "b").key != before["b"].key
    assert [each.name for each in issuing.renew(made, [])] == ["coordinator", "a", "b"]
    assert worker(made, "a").key != before["a"].key
    assert worker(made, "a").authority == before["a"].authority
    assert "did you mean" in told(lambda: issuing.renew(made, ["coordinato"]))


@pytest.mark.parametrize("name", ["", "A", "../a", "a/b", "-a", "a b", "a\n", "coordinator", "a" * 64])
def test_a_name_that_is_no_host_s_makes_nothing(paths: Paths, name: str) -> None:
    assert "cannot be a host's name" in told(lambda: issuing.initialize(paths, ["a", name]))
    assert not paths.state.exists()


def test_a_host_that_is_named_twice_makes_nothing(paths: Paths) -> None:
    assert "named twice" in told(lambda: issuing.initialize(paths, ["a", "a"]))
    assert not paths.state.exists()


def test_nothing_is_added_without_a_ca(paths: Paths) -> None:
    assert "lab hosts init NAME..." in told(lambda: issuing.add(paths, ["a"]))
    assert "lab hosts init NAME..." in told(lambda: issuing.renew(paths, []))
    assert not paths.state.exists()


def test_a_ca_that_ended_makes_no_more(made: Paths) -> None:
    said = told(lambda: issuing.add(made, ["c"], now=NOW + 6 * 365 * DAY))
    assert re.search(r"boxlite-lab CA [0-9a-f]{8} ended on 20\d\d-", said)
    assert "mv " in said


def test_a_missing_one_is_told_with_the_command_that_makes_it(paths: Paths) -> None:
    said = told(lambda: certificates.load_coordinator(paths))
    assert f"there is no certificate {paths.hosts}/coordinator.pem" in said
    assert "lab hosts init" in said
    said = told(lambda: certificates.load_worker(paths))
    assert f"there is no certificate {paths.hosts}/worker.pem" in said
    assert "lab hosts add NAME; then: ssh HOST lab hosts install < NAME.pem" in said


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_one_that_others_can_read_is_refused(made: Paths, mode: int) -> None:
    places.coordinator_file(made).chmod(mode)
    said = told(lambda: certificates.load_coordinator(made))
    assert f"others can use the private key in it (mode {mode:04o}, expected 0600)" in said
    assert f"chmod 600 {places.coordinator_file(made)}" in said


def test_an_expired_one_is_told_with_its_renewal_and_this_host_s_clock(made: Paths) -> None:
    file = places.worker_file(made, "a")
    said = told(lambda: certificates.load_worker(made, file, now=NOW + 375 * DAY))
    assert f"the certificate of a expired on {NOW + 365 * DAY:%Y-%m-%d %H:%M} UTC" in said
    assert f"this host's clock says {NOW + 375 * DAY:%Y-%m-%d %H:%M} UTC, 10 days later" in said
    assert "lab hosts renew a" in said
    said = told(lambda: certificates.load_coordinator(made, now=NOW + 375 * DAY))
    assert "next: lab hosts renew coordinator" in said


def test_one_whose_ca_ended_is_not_told_to_be_renewed(made: Paths) -> None:
    issuing.renew(made, [], days=36_500, now=NOW)
    said = told(lambda: certificates.load_coordinator(made, now=NOW + 6 * 365 * DAY))
    assert "its CA ends too: make a new one" in said


def test_a_clock_an_hour_off_is_named(made: Paths) -> None:
    said = told(lambda: certificates.load_worker(made, places.worker_file(made, "a"), now=NOW - HOUR))
    assert "is not valid before" in said
    assert "55 min earlier: this host's clock is slow, or the one of the host that made it is fast" in said
    assert "date -u" in said


def test_clocks_that_differ_by_minutes_do_no_harm(made: Paths) -> None:
    certificates.load_worker(made, places.worker_file(made, "a"), now=NOW - timedelta(minutes=4))


def test_one_of_another_role_is_refused(made: Paths) -> None:
    file = places.coordinator_file(made)
    assert "is one of a coordinator, not of a worker" in told(lambda: certificates.load_worker(made, file))


def with_blocks(paths: Paths, *blocks: str) -> Callable[[], object]:
    """Read a file that holds these blocks."""
    file = places.worker_file(paths, "mixed")
    file.touch(mode=0o600)
    file.write_text("".join(blocks))
    return lambda: certificates.load_worker(paths, file)


def blocks(paths: Paths, name: str = "a") -> list[str]:
    """The key, the certificate and the CA's certificate in a worker's file."""
    return [each[0] for each in BLOCK.finditer(places.worker_file(paths, name).read_text())]


@pytest.fixture
def foreign(tmp_path: Path) -> Paths:
    """Another lab, with a CA of its own and a host of the same name."""
    other = Paths(cache=tmp_path / "other", state=tmp_path / "other")
    issuing.initialize(other, ["a"], now=NOW)
    return other


def test_a_key_of_another_certificate_is_refused(made: Paths) -> None:
    key, certificate, authority = blocks(made)
    said = told(with_blocks(made, blocks(made, "b")[0], certificate, authority))
    assert "the key does not belong to the certificate of a" in said
    assert "lab hosts renew NAME" in said
    with_blocks(made, key, certificate, authority)()


def test_one_of_another_ca_is_refused(made: Paths, foreign: Paths) -> None:
    key, certificate, _ = blocks(made)
    said = told(with_blocks(made, key, certificate, blocks(foreign)[2]))
    assert "is from another CA than the one beside it (boxlite-lab CA " in said


def test_a_coordinator_of_another_ca_is_refused(made: Paths, foreign: Paths) -> None:
    places.coordinator_file(made).write_text(places.coordinator_file(foreign).read_text())
    said = told(lambda: certificates.load_coordinator(made))
    assert re.search(
        r"from another CA: from boxlite-lab CA (\w+), but this lab's is boxlite-lab CA (?!\1)", said
    )
    assert "lab hosts renew coordinator" in said


def test_a_file_that_is_cut_off_or_no_certificate_at_all_is_refused(made: Paths, foreign: Paths) -> None:
    key, certificate, authority = blocks(made)
    assert "found 1 keys and 1 certificates" in told(with_blocks(made, key, certificate, authority[:200]))
    assert "found 0 keys and 0 certificates" in told(with_blocks(made, "hello"))
    assert "found 2 keys and 2 certificates" in told(with_blocks(made, key, key, certificate, authority))
    broken = certificate.replace(certificate[60:100], "A" * 40)
    assert "a certificate cannot be read" in told(with_blocks(made, key, broken, authority))
    broken = key.replace(key[60:100], "A" * 40)
    assert "the private key cannot be read" in told(with_blocks(made, broken, certificate, authority))
    assert "longer than 65536 bytes" in told(with_blocks(made, "x" * 70_000))


def test_what_is_no_file_is_refused(made: Paths) -> None:
    assert "Is a directory" in told(lambda: certificates.load_worker(made, made.hosts))


def test_a_ca_whose_key_is_another_s_makes_nothing(made: Paths, foreign: Paths) -> None:
    file = places.authority_file(made)
    own = [each[0] for each in BLOCK.finditer(file.read_text())]
    theirs = [each[0] for each in BLOCK.finditer(places.authority_file(foreign).read_text())]
    file.write_text(theirs[0] + own[1])
    assert "the key does not belong to the certificate" in told(lambda: issuing.add(made, ["c"]))
    file.write_text(own[1])
    assert "its private key cannot be read" in told(lambda: issuing.add(made, ["c"]))
    file.write_text(own[0])
    assert "expected one certificate, found 0" in told(lambda: issuing.add(made, ["c"]))


def test_a_bundle_is_installed_on_its_host_once_it_was_checked(made: Paths, foreign: Paths) -> None:
    text = places.worker_file(made, "a").read_text()
    issuing.install(foreign, text, "<stdin>")
    assert certificates.load_worker(foreign).name == "a"
    assert stat.S_IMODE(places.installed_file(foreign).stat().st_mode) == 0o600
    for wrong in ("hello", places.coordinator_file(made).read_text()):
        told(partial(issuing.install, foreign, wrong, "<stdin>"))
    told(lambda: issuing.install(foreign, text, "<stdin>", now=NOW + 400 * DAY))
    assert places.installed_file(foreign).read_text() == text


def test_a_windows_editor_does_no_harm(made: Paths) -> None:
    file = places.worker_file(made, "a")
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert worker(made).name == "a"


def test_what_ends_soon_is_told_with_its_renewal(made: Paths) -> None:
    bundle = worker(made)
    assert bundle.ends_soon(NOW + 330 * DAY) is None
    said = str(bundle.ends_soon(NOW + 340 * DAY))
    assert said.startswith(f"the certificate of a ends on {NOW + 365 * DAY:%Y-%m-%d}: ")
    assert "lab hosts renew a" in said


def states(paths: Paths, now: datetime) -> dict[str, str]:
    return {each.name: each.state for each in overview.entries(paths, now)}


def test_the_list_says_what_is_near_its_end_and_what_is_wrong(made: Paths, foreign: Paths) -> None:
    issuing.add(made, ["c"], days=20, now=NOW)
    places.worker_file(made, "b").chmod(0o644)
    found = states(made, NOW)
    [authority] = [name for name in found if name.startswith("boxlite-lab CA")]
    assert found == {
        authority: "valid",
        "coordinator": "valid",
        "a": "valid",
        "b": "unusable",
        "c": "ends soon",
    }
    assert states(made, NOW + 21 * DAY)["c"] == "expired"
    assert states(made, NOW - HOUR)["a"] == "not valid yet"
    [fault] = [each.fault for each in overview.entries(made, NOW) if each.name == "b"]
    assert "others can use the private key" in str(fault)
    places.coordinator_file(made).write_text(places.coordinator_file(foreign).read_text())
    assert states(made, NOW)["coordinator"] == "unusable"
    places.authority_file(made).write_text("hello")
    assert states(made, NOW)["ca"] == "unusable"


def test_the_list_of_a_worker_s_host_has_what_was_installed(made: Paths, paths: Paths, tmp_path: Path) -> None:
    other = Paths(cache=tmp_path / "host", state=tmp_path / "host")
    assert overview.entries(other) == []
    bundle = issuing.install(other, places.worker_file(made, "a").read_text(), "<stdin>")
    [entry] = overview.entries(other)
    assert (entry.name, entry.role, entry.fingerprint) == ("a", "this host", bundle.fingerprint)
    places.installed_file(other).write_text("hello")
    [entry] = overview.entries(other)
    assert (entry.name, entry.state) == ("?", "unusable")
