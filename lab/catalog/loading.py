"""Loads and checks all definitions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, reduce
from pathlib import Path

from lab.base.errors import UsageError, format_error, make_unknown_name_error
from lab.base.notices import announce
from lab.base.paths import PACKAGE, find_definitions
from lab.catalog import kernels
from lab.catalog.definitions import AND, CloudImage, Guest, Pin, Set, Suite, Variant, VariantFile
from lab.catalog.knob import Conflict
from lab.catalog.toml import load_file, load_folder, read_table, validate_table
from lab.record import AT


@dataclass(frozen=True)
class Catalog:
    """All definitions, validated."""

    guests: Mapping[str, Guest]
    variants: Mapping[str, Variant]
    sets: Mapping[str, Set]
    suite: Suite

    def guest(self, name: str, kernel: str = "") -> Guest:
        """A guest, also with another kernel than its own: `debian-13@linux-image-rt-amd64`. Raises UsageError.

        The name of a recorded guest has only the last part of a path; `kernel` is all of it.
        """
        base_name, has_kernel, kernel_name = name.partition(AT)
        guest = _lookup("guest", base_name, self.guests)
        if not has_kernel:
            return guest
        guest = guest.with_kernel(kernels.parse_kernel(kernel or kernel_name))
        if kernel and guest.name != name:
            raise UsageError(
                f"the kernel of {name} came from {kernel}, where there is another kernel now ({guest.name})",
                hint="bring the file or folder back, or start a new run",
            )
        return guest

    def variant(self, name: str) -> Variant:
        """One variant, or several at once: `userns-clone-off+bwrap-absent`. Raises UsageError."""
        first, *parts = [_lookup("variant", part, self.variants) for part in name.split(AND)]
        try:
            return reduce(Variant.combined, parts, first)
        except Conflict as error:
            apart = " ".join(f"-v {part}" for part in name.split(AND))
            raise UsageError(
                f"the variants of {name} cannot be combined on one guest: {error}",
                hint=f"run each in its own cell: {apart}",
            ) from error

    def sysctls(self, variants: Iterable[Variant] = ()) -> list[str]:
        """The sysctls that must be read in a guest for any variant of the catalog or any of these."""
        return sorted({name for variant in [*self.variants.values(), *variants] for name in variant.sysctls})

    def set(self, name: str) -> Set:
        """A set of the lab, or that in a file, whose path has a slash or ends with .toml. Raises UsageError."""
        if "/" not in name and not name.endswith(".toml"):
            return _lookup("set", name, self.sets)
        file = Path(name)
        definition = load_file(file, Set, name=file.stem)
        self.check_set(file, definition)
        return definition

    def check_set(self, file: Path, definition: Set) -> None:
        """Raise UsageError if a set names a guest or a variant that the catalog does not have."""
        for key, names, find in (
            ("guests", definition.guests, self.guest),
            ("variants", definition.variants, self.variant),
        ):
            for name in names:
                try:
                    find(name)
                except UsageError as error:
                    raise UsageError(f"{file}: {key}: {error.args[0]}", hint=error.hint) from None

    def with_variants(self, folder: Path) -> "Catalog":
        """The catalog and the variants in this folder, if there is one: those that were made for one run.

        Whoever waits is told their names, because the run may be somebody else's. Raises UsageError for a wrong
        file, and for one with the name of a variant of the catalog and other settings.
        """
        if not any(folder.glob("*.toml")):
            return self
        variants = load_folder(folder, VariantFile)
        for name in sorted(variants.keys() & self.variants.keys()):
            settings, run_settings = (each[name].model_dump() for each in (self.variants, variants))
            if differing := [key for key in settings if settings[key] != run_settings.get(key)]:
                raise UsageError(
                    f"{folder / name}.toml: differs from the lab's own variant {name}: {', '.join(differing)}",
                    hint="a run cannot replace a variant of the lab: delete that file to use the lab's own, or "
                    "give the lab's own another name",
                )
        if new_names := sorted(variants.keys() - self.variants.keys()):
            announce(f"variants that came with the run, in {folder}: {', '.join(new_names)}")
        return replace(self, variants={**variants, **self.variants})


@cache
def load_catalog(root: Path | None = None) -> Catalog:
    """Every definition below `root`; the default is the lab's own definitions.

    Each root is read once in the life of a process: a run goes by the definitions whose digests it recorded,
    whatever happens to the files meanwhile. Raises UsageError for the first wrong file, with all errors in it.
    """
    root = root or find_definitions()
    catalog = Catalog(
        guests=_pinned(root, load_folder(root / "images", Guest)),
        variants=load_folder(root / "cloud-init" / "variants", VariantFile),
        sets=load_folder(root / "images" / "sets", Set),
        suite=load_suite("jailer"),
    )
    _check_keys(root, catalog)
    for definition in catalog.sets.values():
        catalog.check_set(root / "images" / "sets" / f"{definition.name}.toml", definition)
    return catalog


def load_suite(name: str) -> Suite:
    """The definition of one of the lab's own suites. Raises UsageError if it is wrong."""
    return load_file(PACKAGE / "suites" / name / "suite.toml", Suite, name=name)


def load_suites() -> list[Suite]:
    """The definitions of all of the lab's suites; the one that wheels have comes first."""
    names = sorted(file.parent.name for file in (PACKAGE / "suites").glob("*/suite.toml"))
    return sorted(map(load_suite, names), key=lambda suite: suite.name != "jailer")


def find_key_file(name: str, root: Path | None = None) -> Path:
    """Return the file of a key that signs checksums, below `root` or in the lab's own definitions."""
    return (root or find_definitions()) / "images" / "keys" / name


def find_pins_file(root: Path | None = None) -> Path:
    """Return the file of pinned builds, below `root` or in the lab's own definitions."""
    return (root or find_definitions()) / "images" / "pins" / "pins.toml"


def load_pins(file: Path) -> dict[str, Pin]:
    """Return the pinned builds by guest; none if there is no such file. Raises UsageError."""
    return (
        {name: validate_table(file, table, Pin) for name, table in read_table(file).items()}
        if file.exists()
        else {}
    )


def _pinned(root: Path, guests: Mapping[str, Guest]) -> dict[str, Guest]:
    """The guests, each with its pinned build unless its definition has one itself."""
    file, pinned = find_pins_file(root), dict(guests)
    for name, pin in load_pins(file).items():
        guest = _lookup("guest", name, guests)
        if isinstance(guest.image, CloudImage) and guest.image.build is not None:
            continue
        try:
            pinned[name] = guest.pinned(pin)
        except ValueError as error:
            raise UsageError(f"{file}: {name}: {format_error(error)}") from error
    return pinned


def _check_keys(root: Path, catalog: Catalog) -> None:
    for guest in catalog.guests.values():
        signed = guest.image.checksums if isinstance(guest.image, CloudImage) else None
        if signed and not find_key_file(signed.key, root).is_file():
            file = root / "images" / f"{guest.name}.toml"
            raise UsageError(f"{file}: image.checksums.key: there is no file {find_key_file(signed.key, root)}")


def _lookup[T](kind: str, name: str, by_name: Mapping[str, T]) -> T:
    try:
        return by_name[name]
    except KeyError:
        raise make_unknown_name_error(kind, name, by_name) from None
