import pytest

from lab.base.errors import LabError, UsageError, unknown_name

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
    error = unknown_name("guest", name, GUESTS)
    assert isinstance(error, UsageError)
    assert str(error) == f"no guest is called '{name}'\n  next: {hint}"


def test_an_error_has_its_status_and_without_a_hint_no_next_step() -> None:
    assert (LabError("x").exit_status, UsageError("x").exit_status) == (3, 2)
    assert str(LabError("it broke")) == "it broke"
