"""Files and folders in other places: `[files]`, symlinks where something was before."""

import posixpath
from typing import Annotated

from pydantic import AfterValidator

from lab.knobs._base import MapKnob
from lab.probes import Facts, SuiteUser


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
