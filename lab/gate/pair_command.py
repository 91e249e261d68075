"""The command that runs two builds on the same guest, so that a changed guest cannot be blamed on a build."""

import shlex

from lab.gate.results import BuildResults


def both_builds(guest: str, variant: str, old: BuildResults, new: BuildResults) -> str:
    """Return the command line for one cell; empty if there is only one build."""
    if old.build == new.build:
        return ""
    words = ["lab", "matrix", "-g", guest, "-v", variant]
    for side in (old, new):
        # A baseline holds no paths, so a local wheel has to be named by the reader.
        words += ["--build", side.argument or f"WHEEL-OF-{side.build}"]
    return shlex.join(words)
