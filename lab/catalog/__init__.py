"""The definitions: guests (`images/*.toml`), variants (`cloud-init/variants/*.toml`), sets and the suites."""

from lab.catalog.definitions import (
    AND,
    PASS,
    TWIN,
    Change,
    CloudImage,
    DebianImage,
    Firmware,
    Guest,
    PackageManager,
    Pin,
    Set,
    SignatureForm,
    SignedChecksums,
    Suite,
    UnsignedChecksums,
    Variant,
    choose_expectation,
    describe_subjects,
    load_subjects,
)
from lab.catalog.loading import (
    Catalog,
    find_key_file,
    find_pins_file,
    load_catalog,
    load_pins,
    load_suite,
    load_suites,
)
