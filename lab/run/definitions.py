"""What decides the result of a cell, as digests: a run is resumed only while none of it has changed."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lab.base import paths
from lab.catalog import Variant, load, remedies
from lab.guest import programs
from lab.images import store
from lab.lane import prepare_image
from lab.plan import Cell
from lab.record import ExperimentPolicy, RunOptions

# What makes a result of what a guest shows, and what puts a build into a guest and runs its suite there.
RULES = ("causes/*.py", "catalog/knob*.py", "trials/*.py", "verdict/status.py", "verdict/protection.py")
DEPLOYMENT = (
    "builds/**/*.py",
    "guest/deploy.py",
    "guest/suite.py",
    "guest/variant.py",
)
# The definitions that every cell has.
OF_EVERY_CELL = ("programs", "seed", "rule set", "deployment")


def digests(cells: Iterable[Cell], options: RunOptions) -> dict[str, str]:
    """SHA-256 of each definition and program that decides what these cells do, by a readable name."""
    made: dict[str, str] = {}
    for cell in cells:
        guest, variant = cell.guest, cell.variant
        made[f"guest {guest.name}"] = _digest(guest.model_dump_json(), store.inputs_digest(guest))
        made[f"variant {variant.name}"] = _variant_digest(variant)
        made[f"suite {cell.suite.name}"] = _digest(*cell.suite.texts())
    if options.experiments is not ExperimentPolicy.NEVER:
        # An experiment may try any variant as a change, and takes the cause from it.
        made |= {f"variant {name}": _variant_digest(variant) for name, variant in load().variants.items()}
    seed = paths.definitions() / "cloud-init"
    made["programs"] = _digest(*prepare_image.RECIPE, programs.loader(), *programs.sources().values())
    made["rule set"] = _digest_of_code(RULES)
    made["deployment"] = _digest_of_code(DEPLOYMENT)
    if options.remedies:
        made |= {f"remedy {name}": remedy.digest for name, remedy in remedies.load().items()}
    if options.rootfs:
        # The index names all other files by digest. A layout that was deleted counts as changed.
        index = Path(options.rootfs) / "index.json"
        made["rootfs"] = _digest(index.read_text() if index.exists() else "")
    files = sorted(file for file in seed.iterdir() if file.is_file())
    made["seed"] = _digest(*(file.read_text() for file in files))
    return made


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the names of the definitions that were added, removed or changed."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def _digest_of_code(patterns: Sequence[str]) -> str:
    """A digest of the lab's own modules that match these patterns."""
    files = [file for pattern in patterns for file in sorted(paths.PACKAGE.glob(pattern))]
    return _digest(*(text for file in files for text in (file.name, file.read_text())))


def _variant_digest(variant: Variant) -> str:
    return _digest(variant.model_dump_json(exclude_none=True))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
