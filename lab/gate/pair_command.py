"""The command that runs two builds on the same guest, so that a changed guest cannot be blamed on a build."""

import shlex
from collections.abc import Iterable

from lab.gate.results import BuildResults, Identity


def both_builds(cells: Iterable[Identity], old: BuildResults, new: BuildResults) -> str:
    """Return the command line that runs these cells with both builds; empty without cells or a second build."""
    known = list(cells)
    if not known or old.build == new.build:
        return ""
    words = ["lab", "matrix"]
    words += [word for guest in dict.fromkeys(guest for guest, _ in known) for word in ("-g", guest)]
    words += [word for variant in dict.fromkeys(variant for _, variant in known) for word in ("-v", variant)]
    for side in (old, new):
        # A baseline holds no paths, so a local wheel has to be named by the reader.
        words += ["--build", side.argument or f"WHEEL-OF-{side.build}"]
    return shlex.join(words)
