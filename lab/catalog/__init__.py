"""The definitions: guests (`images/*.toml`), variants (`cloud-init/variants/*.toml`), sets and the suites."""

from lab.catalog.guest import (
    CloudImage,
    DebianImage,
    Firmware,
    Guest,
    PackageManager,
    Pin,
    SignatureForm,
    SignedChecksums,
    UnsignedChecksums,
)
from lab.catalog.loading import Catalog, key_file, load, load_pins, load_suite, load_suites, pins_file
from lab.catalog.sets import Set
from lab.catalog.suite import Suite
from lab.catalog.toml import IMAGE_KINDS, NAME, Definition, load_file, load_folder
from lab.catalog.variant import AND, PASS, Variant, first_expected

__all__ = [
    "AND",
    "IMAGE_KINDS",
    "NAME",
    "PASS",
    "Catalog",
    "CloudImage",
    "DebianImage",
    "Definition",
    "Firmware",
    "Guest",
    "PackageManager",
    "Pin",
    "Set",
    "SignatureForm",
    "SignedChecksums",
    "Suite",
    "UnsignedChecksums",
    "Variant",
    "first_expected",
    "key_file",
    "load",
    "load_file",
    "load_folder",
    "load_pins",
    "load_suite",
    "load_suites",
    "pins_file",
]
