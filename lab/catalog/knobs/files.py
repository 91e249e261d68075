"""Files of the guest and what they are on: `[files]`, `[filesystem]`, `[mount]` and `[bubblewrap]`."""

import posixpath
from enum import StrEnum
from typing import Annotated, Literal, Self

from packaging.version import Version
from pydantic import AfterValidator

from lab.catalog.knobs._base import MapKnob, TableKnob
from lab.probes import Facts, SuiteUser
from lab.probes.facts import numbers


def _path(text: str) -> str:
    if not (text.isprintable() and text.startswith("/") and posixpath.normpath(text) == text != "/"):
        raise ValueError("expected an absolute path without . and .. in it")
    return text


def _target(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("expected a path: absolute, or relative to the folder of the symlink")
    return text


class Files(MapKnob):
    """Symlinks by their paths. What is at a path is moved to the symlink's target."""

    root: dict[Annotated[str, AfterValidator(_path)], Annotated[str, AfterValidator(_target)]]

    def links(self) -> list[str]:
        return list(self.root)

    def differences(self, facts: Facts, who: SuiteUser) -> list[str]:
        asked = dict(who.links.items())
        wrong = []
        for path, target in self.root.items():
            link = asked.get(path)
            if link is None:
                wrong.append(f"whether {path} is a symlink is not known")
            elif link.target != target:
                now = f"a symlink to {link.target}" if link.target else "no symlink"
                wrong.append(f"{path} is {now}, not one to {target}")
            elif link.error:
                wrong.append(f"the suite's user cannot reach what {path} leads to: {link.error}")
        return wrong


class Filesystem(MapKnob):
    """File systems by folder. The folder's content moves to a new one, which is in a file of the guest's."""

    root: dict[Literal["/home"], Literal["btrfs"]]

    def why_not(self, facts: Facts) -> str | None:
        for path, kind in self.root.items():
            if facts.mounts[path].type == kind:
                return f"its {path} is on {kind} to begin with"
        return None if facts.mkfs_btrfs else "has no mkfs.btrfs"

    def differences(self, facts: Facts, who: SuiteUser) -> list[str]:
        return [
            f"{path} is on {facts.mounts[path].type}, not on {kind}"
            for path, kind in self.root.items()
            if facts.mounts[path].type != kind
        ]


# The folders whose mounts are among the facts.
Folder = Literal["/home", "/tmp"]  # noqa: S108


class Mount(MapKnob):
    """Mount options by folder. The folder becomes a mount of its own with the same content."""

    root: dict[Folder, list[Literal["noexec"]]]

    def words(self) -> str:
        return ", ".join(f"{path} {','.join(options)}" for path, options in self.root.items())

    def differences(self, facts: Facts, who: SuiteUser) -> list[str]:
        return [
            f"{path} is mounted without {option}"
            for path, options in self.root.items()
            for option in options
            if option not in facts.mounts[path].options
        ]


# Since this version bubblewrap refuses to run setuid, unless it is built with support for it (see its NEWS).
NEVER_SETUID = Version("0.11.2")


class BubblewrapState(StrEnum):
    ABSENT = "absent"
    NOT_EXECUTABLE = "not-executable"
    SETUID = "setuid"


# As in the facts: octal; None for an absent program.
BUBBLEWRAP_MODES = {
    BubblewrapState.ABSENT: None,
    BubblewrapState.NOT_EXECUTABLE: "0o644",
    BubblewrapState.SETUID: "0o4755",
}


class Bubblewrap(TableKnob):
    """The program removed, or with another mode. The copy that boxlite ships is not changed."""

    state: BubblewrapState

    def why_not(self, facts: Facts) -> str | None:
        if facts.bubblewrap is None:
            return "has no bubblewrap to begin with"
        version = numbers(facts.bubblewrap.version)
        if self.state is BubblewrapState.SETUID and version is not None and version < NEVER_SETUID:
            return f"its bubblewrap {facts.bubblewrap.version} is made for being setuid"
        return None

    def settings(self) -> dict[str, str | None]:
        return {"mode": BUBBLEWRAP_MODES[self.state]}

    def differences(self, facts: Facts, who: SuiteUser) -> list[str]:
        mode = facts.bubblewrap.mode if facts.bubblewrap else None
        wanted = BUBBLEWRAP_MODES[self.state]
        return [] if mode == wanted else [f"bubblewrap's mode is {mode}, not {wanted}"]

    @classmethod
    def leading(cls, here: Facts, there: Facts) -> list[Self]:
        """The state of the program there, if it is another one than here and not the state as installed."""
        mine, theirs = (facts.bubblewrap and facts.bubblewrap.mode for facts in (here, there))
        if mine is None or mine == theirs:
            return []
        return [cls(state=state) for state, mode in BUBBLEWRAP_MODES.items() if mode == theirs]
