import pytest

from lab.probes.facts import read_label


@pytest.mark.parametrize(
    ("text", "profiles", "mode", "confines"),
    [
        ("a (enforce)", ("a",), "enforce", True),
        ("a//&unconfined (enforce)", ("a",), "enforce", True),
        ("unconfined//&a (complain)", ("a",), "complain", True),
        ("a//&b (mixed)", ("a", "b"), "mixed", True),
        ("a//child//&unconfined (enforce)", ("a//child",), "enforce", True),
        ("a (unconfined)", ("a",), "unconfined", False),
        ("unconfined", (), None, False),
        ("", (), None, False),
        (None, (), None, False),
    ],
)
def test_a_label_is_read_as_its_profiles_without_the_unconfined_one(
    text: str | None, profiles: tuple[str, ...], mode: str | None, confines: bool
) -> None:
    label = read_label(text)
    assert (label.profiles, label.mode, label.confines) == (profiles, mode, confines)
