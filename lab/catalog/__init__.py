"""The definitions: guests (`images/*.toml`), variants (`cloud-init/variants/*.toml`), sets and the suite."""

from lab.catalog.guest import (
    CloudImage,
    DebianImage,
    Firmware,
    Guest,
    PackageManager,
    SignatureForm,
    SignedChecksums,
)
from lab.catalog.loading import Catalog, key_file, load, load_suite
from lab.catalog.sets import Set
from lab.catalog.suite import Suite
from lab.catalog.toml import IMAGE_KINDS, NAME, Definition, load_file, load_folder
from lab.catalog.variant import AND, Variant

__all__ = [
    "AND",
    "IMAGE_KINDS",
    "NAME",
    "Catalog",
    "CloudImage",
    "DebianImage",
    "Definition",
    "Firmware",
    "Guest",
    "PackageManager",
    "Set",
    "SignatureForm",
    "SignedChecksums",
    "Suite",
    "Variant",
    "key_file",
    "load",
    "load_file",
    "load_folder",
    "load_suite",
]
