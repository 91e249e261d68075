from pathlib import Path

import pytest
from pydantic import create_model

from lab import catalog, causes
from lab.base.errors import LabError, UsageError, make_unknown_name_error
from lab.catalog import Suite, Variant, loading, remedies, toml
from lab.catalog.knob import TableKnob
from lab.catalog.knobs import Sysctl
from lab.probes import Facts, SuiteUser
from lab.record import Needs
from tests.builders.facts import facts, who

GUEST = """
title = "Debian 13"
[image]
kind = "debian"
suite = "trixie"
"""
VARIANT = 'title = "As installed"\n'
SET = 'title = "Quick"\nguests = ["debian-13"]\nvariants = ["stock"]\n'

GUEST_FILE = "images/debian-13.toml"
VARIANT_FILE = "cloud-init/variants/stock.toml"
SET_FILE = "images/sets/quick.toml"


class Weather(TableKnob):
    outside: str

    def differences(self, facts: Facts, who: SuiteUser) -> list[str]:
        return [] if facts.kernel == self.outside else ["the sun shines"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Minimal definitions: one guest, one variant, one set."""
    for file, text in ((GUEST_FILE, GUEST), (VARIANT_FILE, VARIANT), (SET_FILE, SET)):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    return tmp_path


def error_of(root: Path, file: str, text: str) -> str:
    (root / file).write_text(text)
    loading.load_catalog.cache_clear()
    with pytest.raises(UsageError) as error:
        catalog.load_catalog(root)
    return str(error.value)


# One is a guest's own, one needs a box that makes certain system calls, one is a fault of a package or of its
# files, one no longer blocks boxlite 0.10.8, and one does not block it yet.
NOT_EXPECTED = {
    "bwrap-too-old",
    "cgroup-unavailable",
    "mount-symlink",
    "runtime-library",
    "shim-seccomp",
    "volumes-exhaust-irqs",  # The suite `volumes` expects the other cause of its failures, which comes first.
}


def test_the_shipped_definitions_load_and_are_of_use() -> None:
    definitions = catalog.load_catalog()
    assert {"debian-12", "debian-13", "debian-13-backports"} <= set(definitions.guests)
    assert definitions.set("quick").guests
    # Where titles are shown, the architecture is added to them.
    assert [guest.name for guest in definitions.guests.values() if "arm64" in guest.title] == []
    assert [name for name, variant in definitions.variants.items() if not variant.knobs] == ["stock"]
    assert definitions.variant("stock").expect.cause is None
    expected = {variant.expect.cause for variant in definitions.variants.values()} - {None}
    expected |= {suite.expect.cause for suite in catalog.load_suites()}
    assert causes.list_causes().keys() - expected == NOT_EXPECTED
    # The control is a test that needs a box and no sandbox.
    assert definitions.suite.tests[definitions.suite.control] is Needs.BOX
    # The second option of issue 468 is run on a guest that has containers.
    assert "debian-13-podman" in definitions.sets["issue-468"].guests


def test_variants_combine_under_one_name() -> None:
    both = catalog.load_catalog().variant("max-userns-zero+userns-clone-off")
    assert both.name == "max-userns-zero+userns-clone-off"
    assert both.knobs == {
        "sysctl": Sysctl({"user.max_user_namespaces": 0, "kernel.unprivileged_userns_clone": 0})
    }
    # The cause that boxlite meets first, whatever the order in the name.
    assert both.expect.cause == "userns-sysctl"
    both = catalog.load_catalog().variant("userns-clone-off+apparmor-userns-deny+stock")
    assert both.knobs.keys() == {"sysctl", "apparmor"}
    assert both.expect.cause == "userns-sysctl"


def test_variants_that_exclude_each_other_are_refused(root: Path) -> None:
    (root / "cloud-init/variants/on.toml").write_text(VARIANT + 'sysctl = { "a.b" = 1, "c.d" = 1 }')
    (root / "cloud-init/variants/off.toml").write_text(VARIANT + 'sysctl = { "a.b" = 0 }')
    with pytest.raises(UsageError, match=r"variants of on\+off cannot .* one guest: sysctl: a\.b is 1 and 0"):
        catalog.load_catalog(root).variant("on+off")
    with pytest.raises(UsageError, match="no variant is called 'stok'"):
        catalog.load_catalog(root).variant("stock+stok")


def test_a_new_kind_of_setting_is_a_class_with_a_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = create_model("VariantFile", __base__=Variant, weather=(Weather | None, None))
    monkeypatch.setattr(loading, "VariantFile", file)
    (root / VARIANT_FILE).write_text(VARIANT + 'weather = { outside = "rain" }')
    variant = catalog.load_catalog(root).variant("stock")
    assert variant.knobs["weather"].settings() == {"outside": "rain"}
    assert variant.knobs["weather"].differences(facts(kernel="sun"), who()) == ["the sun shines"]
    assert "found 1" in error_of(root, VARIANT_FILE, VARIANT + "weather = { outside = 1 }")


SUITE = """
title = "A suite"
subject = "start"
control = "starts"
witness = "isolates"
test_seconds = 10
suite_seconds = 60
tests = { starts = "box", isolates = "sandbox" }
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            SUITE.replace('{ starts = "box", isolates = "sandbox" }', "{}"),
            "tests: Dictionary should have at least 1",
        ),
        (SUITE.replace('"starts"', '"begins"'), "control: expected one of the suite's tests, found 'begins'"),
        (SUITE.replace('"isolates"', '"hides"'), "witness: expected one of the suite's tests, found 'hides'"),
        (SUITE.replace('subject = "start"', ""), "subject: Field required"),
        (SUITE.replace('"start"', '"begin"'), "subject: expected one of start, confinement, "),
        (f'{SUITE}subjects = {{ isolates = "stops" }}', "isolates: expected one of start, confinement, "),
        (f'{SUITE}subjects = {{ hides = "stop" }}', "subjects: expected the suite's tests, found 'hides'"),
    ],
    ids=["no test", "no control", "no witness", "no subject", "unknown", "unknown for a test", "no such test"],
)
def test_a_suite_has_its_control_its_witness_and_what_its_tests_are_about(
    tmp_path: Path, text: str, expected: str
) -> None:
    file = tmp_path / "suite.toml"
    file.write_text(SUITE)
    assert toml.load_file(file, Suite, name="small").tests
    file.write_text(text)
    with pytest.raises(UsageError) as wrong:
        toml.load_file(file, Suite, name="small")
    assert expected in str(wrong.value)


def test_each_test_is_about_a_word_of_the_table_and_each_suite_may_have_more_than_its_own() -> None:
    jailer, detach = catalog.load_suite("jailer"), catalog.load_suite("detach")
    assert jailer.get_subject(jailer.control) == "start"
    assert jailer.get_subject(jailer.witness) == "confinement"
    assert {jailer.get_subject(test) for test in jailer.tests} == {"start", "confinement"}
    # nextest lists tests that the suite does not name.
    assert detach.get_subject("detached_box_force_remove_reaps_whole_tree") == "stop"


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ('flavour = "x"\n' + GUEST, "flavour", "unknown key"),
        (GUEST + 'colour = "x"', "image.colour", "unknown key"),
        ('arch = "aarch64"\n' + GUEST, "(whole file)", "have `arm64` in their name"),
        ("memory_mib = 128\n" + GUEST, "memory_mib", "greater than or equal to 512, found 128"),
        (GUEST.replace('"Debian 13"', "2026-11-24"), "title", "valid string, found {'date or time'"),
        (GUEST.replace('title = "Debian 13"', ""), "title", "required"),
        (GUEST.replace('"debian"', '"ubuntu"'), "image.kind", "one of debian, cloud, found 'ubuntu'"),
        (GUEST.replace('kind = "debian"', ""), "image.kind", "one of debian, cloud, found None"),
        ('title = "x"\nimage = "debian"', "image", "found 'debian'"),
        (GUEST.replace("trixie", "trixie main"), "image.suite", "match pattern"),
        (GUEST + 'selinux = "../mls"', "image.selinux", "match pattern"),
        ('name = "debian-13"\n' + GUEST, "name", "the file's name is the name"),
        (GUEST + "[image", "", "not valid TOML"),
        (GUEST + f"packages = {'[' * 2000}{']' * 2000}", "", "not valid TOML: it is nested too deeply"),
        (GUEST + f"packages = {'[' * 300}{']' * 300}", "", "recursion limit exceeded"),
        (GUEST + f"disk_gib = {'9' * 5000}", "", "not valid TOML: Exceeds the limit"),
    ],
)
def test_a_wrong_guest_names_file_key_and_expectation(root: Path, text: str, key: str, expected: str) -> None:
    error = error_of(root, GUEST_FILE, text)
    assert error.startswith(f"{root / GUEST_FILE}: {key}")
    assert expected in error


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ('expect = { status = "xfail" }', "expect.cause", "must be given"),
        ('expect = { cause = "userns-limit" }', "expect.cause", "only with it"),
        ('expect = { status = "xfail", cause = "unknown" }', "expect.cause", "found 'unknown'"),
        ('expect = { status = "xfail", cause = "ghosts" }', "expect.cause", "found 'ghosts'"),
        ('expect = { status = "error" }', "expect.status", "'pass' or 'xfail', found 'error'"),
        ('sysctl = { "kernel.printk" = true }', "sysctl.kernel.printk", "expected a number, a text"),
        ('sysctl = { "kernel.printk" = " " }', "sysctl.kernel.printk", "expected a number, a text"),
        ('sysctl = { "kernel.core_pattern" = "a\\u001b[0m" }', "sysctl.kernel.core_pattern", "in one line"),
        ('sysctl = { "printk" = 1 }', "sysctl.printk", "expected a name like kernel.printk"),
        # A slash stands for a dot: this would be kernel/../../etc/passwd.
        ('sysctl = { "kernel.//.//.etc.passwd" = 1 }', "sysctl.kernel", "expected a name like"),
        ('files = { "etc/a" = "/b" }', "files.etc/a", "expected an absolute path without . and .."),
        ('files = { "/etc/../a" = "/b" }', "files./etc/../a", "expected an absolute path without . and .."),
        ('files = { "/" = "/b" }', "files./", "expected an absolute path"),
        ('files = { "/a" = "" }', "files./a", "expected a path: absolute, or relative"),
        ("moonlight = true", "moonlight", "unknown key"),
        ("limits = {}", "limits", "sets nothing; name a setting"),
        (
            'container = { engine = "podman", kind = "default", rootless = true }',
            "container",
            "podman has none",
        ),
        ('container = { engine = "docker", kind = "default", rootless = 1 }', "container.rootless", "boolean"),
        ("apparmor = { moonlight = true }", "apparmor.moonlight", "unknown key"),
        ('apparmor.profiles = [{ name = "p" }]', "apparmor.profiles.0", "exactly one of `text` and `shipped`"),
        ('apparmor.profiles = [{ name = "p", text = "t", shipped = "s" }]', "profiles.0", "exactly one"),
    ],
)
def test_a_wrong_variant_names_file_key_and_expectation(root: Path, text: str, key: str, expected: str) -> None:
    error = error_of(root, VARIANT_FILE, VARIANT + text)
    assert error.startswith(f"{root / VARIANT_FILE}: ")
    assert key in error
    assert expected in error


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        (SET.replace("debian-13", "debain-13"), "guests", "'debain-13'\n  next: did you mean debian-13?"),
        (SET.replace("stock", "stork"), "variants", "'stork'\n  next: did you mean stock?"),
        (SET.replace('"debian-13"', ""), "(whole file)", "at least one guest and one variant; guests is empty"),
        (SET.replace('"stock"', ""), "(whole file)", "at least one guest and one variant; variants is empty"),
    ],
)
def test_a_wrong_set_names_file_key_and_expectation(root: Path, text: str, key: str, expected: str) -> None:
    error = error_of(root, SET_FILE, text)
    assert f"{root / SET_FILE}: {key}: " in error
    assert expected in error


def test_a_set_may_be_a_file_of_the_user_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    definitions = catalog.load_catalog()
    (tmp_path / "mine.toml").write_text(SET)
    assert definitions.set(str(tmp_path / "mine.toml")).guests == ["debian-13"]
    monkeypatch.chdir(tmp_path)
    assert definitions.set("mine.toml") == definitions.set("./mine.toml")
    # A name is that of the lab's own, whatever is in the folder.
    (tmp_path / "quick").mkdir()
    assert definitions.set("quick").guests == ["debian-12", "debian-13"]
    (tmp_path / "mine.toml").write_text(SET.replace("debian-13", "debain-13"))
    for name, words in [
        ("mine.toml", "mine.toml: guests: no guest is called 'debain-13'"),
        ("none.toml", "none.toml: No such file or directory"),
        ("./quick", "quick: this is not a regular file"),
        ("Mine.toml", "Mine.toml: the file's name may only have lower-case letters"),
    ]:
        with pytest.raises(UsageError) as caught:
            definitions.set(name)
        assert words in str(caught.value)


def test_everything_wrong_in_a_file_is_said_at_once(root: Path) -> None:
    error = error_of(root, GUEST_FILE, "memory_mib = 1\nflavour = 2\n" + GUEST)
    assert len(error.splitlines()) == 2
    assert "memory_mib" in error
    assert "flavour" in error
    # A file that is no text is named.
    (root / GUEST_FILE).write_bytes(b"title = '\xff'")
    with pytest.raises(UsageError, match=r"debian-13\.toml: not valid TOML"):
        catalog.load_catalog(root)


@pytest.mark.parametrize("name", ["Debian-13", "debian_13", "-debian", "débian"])
def test_a_name_that_is_none_is_refused(root: Path, name: str) -> None:
    assert f"{name}.toml: the file's name" in error_of(root, f"images/{name}.toml", GUEST)
    with pytest.raises(UsageError, match=f"no definitions in {root / 'none' / 'images'}"):
        catalog.load_catalog(root / "none")


def test_what_a_variant_cannot_tell_about_is_a_remedy_for_its_cause_with_a_reason() -> None:
    variants = [variant for variant in catalog.load_catalog().variants.values() if variant.not_judged]
    assert "apparmor-userns-nocaps" in [variant.name for variant in variants]
    expected = [suite.expect.cause for suite in catalog.load_suites()]
    for variant in variants:
        for name, reason in variant.not_judged.items():
            assert {variant.expect.cause, *expected} & set(remedies.find_remedy(name).cures)
            assert reason and "\n" not in reason
            assert len(reason) <= 300, "reports and pages cut it, and with it the source"

    definitions = catalog.load_catalog()
    both = definitions.variant("apparmor-userns-nocaps+userns-clone-off")
    assert both.not_judged == definitions.variant("apparmor-userns-nocaps").not_judged != {}


# -- names that are none

GUESTS = ["debian-12", "debian-13", "fedora-44"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("debain-13", "did you mean debian-13 or debian-12?"),
        ("fedora", "did you mean fedora-44?"),
        ("windows", "known names: debian-12, debian-13, fedora-44"),
    ],
)
def test_unknown_name_says_the_nearest_or_all(name: str, hint: str) -> None:
    error = make_unknown_name_error("guest", name, GUESTS)
    assert isinstance(error, UsageError)
    assert str(error) == f"no guest is called '{name}'\n  next: {hint}"


def test_an_error_has_its_status_and_without_a_hint_no_next_step() -> None:
    assert (LabError("x").exit_status, UsageError("x").exit_status) == (3, 2)
    assert str(LabError("it broke")) == "it broke"
