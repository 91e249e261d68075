"""What a build's files need is read from them, and checked against what a guest has."""

import os
import random
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from lab.base.architecture import get_host_architecture
from lab.base.errors import NotApplicable
from lab.builds import elf
from lab.builds.elf import ElfNeeds
from lab.builds.kinds.wheel import choose
from tests.builders import packages
from tests.builders.facts import facts
from tests.builders.packages import AARCH64, make_wheel

LIBRARY = "boxlite/boxlite.cpython-313-x86_64-linux-gnu.so"
NEW_GLIBC = {"libc.so.6": ["GLIBC_2.2.5", "GLIBC_2.42", "GLIBC_2.9"]}


def file(folder: Path, content: bytes) -> Path:
    path = folder / "program"
    path.write_bytes(content)
    return path


def wheel(folder: Path, content: bytes, tags: str = "cp313-cp313-manylinux_2_28_x86_64") -> Path:
    return make_wheel(folder, "boxlite", "0.11.0", tags=tags, more={LIBRARY: content})


@pytest.mark.parametrize(
    ("parts", "needs"),
    [
        ({}, ElfNeeds("program")),
        ({"versions": NEW_GLIBC}, ElfNeeds("program", glibc=Version("2.42"))),
        (
            # As in boxlite's own library.
            {
                "versions": {
                    "libgcc_s.so.1": ["GCC_3.0"],
                    "libc.so.6": ["GLIBC_2.28"],
                    "libm.so.6": ["GLIBC_2.2.5"],
                }
            },
            ElfNeeds("program", glibc=Version("2.28")),
        ),
        (
            {"versions": {"libc.so.6": ["GLIBC_2.17", "GLIBC_ABI_DT_RELR"]}},
            ElfNeeds("program", glibc=Version("2.36")),
        ),
        ({"versions": {"libc.so.6": ["GLIBC_PRIVATE"]}}, ElfNeeds("program")),
        ({"versions": NEW_GLIBC, "weak": ["GLIBC_2.42"]}, ElfNeeds("program", glibc=Version("2.9"))),
        ({"machine": AARCH64}, ElfNeeds("program", processor="EM_AARCH64")),
    ],
)
def test_a_file_says_what_it_needs(tmp_path: Path, parts: dict[str, Any], needs: ElfNeeds) -> None:
    assert elf.read_needs(file(tmp_path, packages.elf(**parts))) == [needs]


def test_the_processor_of_a_program_is_in_its_header(tmp_path: Path) -> None:
    arm = packages.elf(machine=AARCH64)
    assert elf.read_processor(file(tmp_path, arm)) == "EM_AARCH64"
    # What the kernel does not read may be damaged.
    damaged = file(tmp_path, arm[:64])
    assert (elf.read_needs(damaged), elf.read_processor(damaged)) == ([], "EM_AARCH64")
    assert elf.read_processor(file(tmp_path, packages.elf(machine=0xFFF0))) == "65520"
    object_file = arm[:16] + b"\1\0" + arm[18:]
    for content in (object_file, arm[:19], b"#!/bin/sh\n" + arm, b""):
        assert elf.read_processor(file(tmp_path, content)) is None
    assert elf.read_processor(Path("/bin/ls")) == get_host_architecture().elf


def test_a_real_program_needs_no_more_than_the_host_that_runs_it_has() -> None:
    [needs] = elf.read_needs(Path("/bin/ls"))
    assert needs.processor == get_host_architecture().elf
    assert needs.glibc is not None
    has = Version((os.confstr("CS_GNU_LIBC_VERSION") or "").split()[-1])
    assert Version("2.2.5") <= needs.glibc <= has


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"versions": NEW_GLIBC}, "program needs glibc 2.42, and the guest has 2.41"),
        ({"versions": {"libc.so.6": ["GLIBC_2.41", "GLIBC_2.9"]}}, None),
        ({"machine": AARCH64}, "program is for the processor EM_AARCH64, and the guest's is EM_X86_64"),
    ],
)
def test_an_unmet_need_is_not_applicable(tmp_path: Path, parts: dict[str, Any], reason: str | None) -> None:
    path = file(tmp_path, packages.elf(**parts))
    with nullcontext() if reason is None else pytest.raises(NotApplicable, match=f"^{re.escape(reason)}$"):
        elf.check_files({"build/program": path}, facts(glibc="2.41"))


def test_a_guest_of_arm64_runs_what_is_for_arm64(tmp_path: Path) -> None:
    arm = facts(arch="aarch64")
    assert elf.find_unmet_need(elf.read_needs(file(tmp_path, packages.elf(machine=AARCH64))), arm) is None
    assert elf.find_unmet_need(elf.read_needs(file(tmp_path, packages.elf())), arm) == (
        "program is for the processor EM_X86_64, and the guest's is EM_AARCH64"
    )


def test_the_files_of_a_wheel_decide_and_not_its_tag(tmp_path: Path) -> None:
    path = wheel(tmp_path, packages.elf(versions=NEW_GLIBC))
    assert elf.find_unmet_need(elf.read_needs(path), facts(glibc="2.36")) == (
        f"{Path(LIBRARY).name} in {path.name} needs glibc 2.42, and the guest has 2.36"
    )
    assert elf.find_unmet_need(elf.read_needs(path), facts(glibc="2.42")) is None


def test_what_is_no_elf_file_needs_nothing(tmp_path: Path) -> None:
    assert elf.read_needs(make_wheel(tmp_path, "pytest")) == []
    assert elf.read_needs(file(tmp_path, b"#!/bin/sh\n")) == []
    assert elf.read_needs(tmp_path) == ()
    elf.check_files({"suite": tmp_path}, facts())


def test_damaged_files_say_nothing_and_raise_nothing(tmp_path: Path) -> None:
    whole = packages.elf(versions=NEW_GLIBC)
    numbers = random.Random(468)
    for _ in range(500):
        damaged = bytearray(whole[: numbers.randrange(4, len(whole) + 1)])
        for _ in range(numbers.choice((0, 1, 8))):
            damaged[numbers.randrange(len(damaged))] = numbers.randrange(256)
        program = file(tmp_path, bytes(damaged))
        elf.find_unmet_need(elf.read_needs(program), facts())
    path = wheel(tmp_path, whole)
    content = path.read_bytes()
    for _ in range(200):
        damaged = bytearray(content)
        damaged[numbers.randrange(len(content))] ^= 0xFF
        path.write_bytes(damaged)
        elf.find_unmet_need(elf.read_needs(path), facts())


def test_of_several_wheels_for_a_python_the_preferred_one_that_can_run_is_taken(tmp_path: Path) -> None:
    new = wheel(tmp_path, packages.elf(versions=NEW_GLIBC), "cp313-cp313-manylinux_2_39_x86_64")
    old = wheel(tmp_path, packages.elf(), "cp313-cp313-manylinux_2_28_x86_64")
    assert choose(tmp_path, facts(python="3.13", glibc="2.42")) == new
    assert choose(tmp_path, facts(python="3.13", glibc="2.36")) == old
    old.unlink()
    assert choose(tmp_path, facts(python="3.13", glibc="2.36")) == new
