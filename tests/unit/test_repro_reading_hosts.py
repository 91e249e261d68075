"""Hosts in bug reports: distributions, containers, kernels, and versions of programs and of boxlite."""

import pytest

from lab.repro.reading import read
from lab.repro.report import Boxlite, Kernel, Place, Program, System
from tests.unit.reading_examples import of, systems


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("OS: Ubuntu 24.04.2 LTS", [("ubuntu", "24.04")]),
        ("I run Ubuntu Noble here", [("ubuntu", "24.04")]),
        ("Debian GNU/Linux 12 (bookworm)", [("debian", "12")]),
        ("Debian 12.5", [("debian", "12")]),
        ("fails on debian trixie", [("debian", "13")]),
        ("Fedora Linux 43 (Workstation Edition)", [("fedora", "43")]),
        ("Operating System: Rocky Linux 9.4 (Blue Onyx)", [("rocky", "9.4")]),
        ("Linux Mint 22.1", [("linuxmint", "22.1")]),
        ("Arch Linux, rolling", [("arch", None)]),
        ("NixOS 24.11", [("nixos", "24.11")]),
        ("### Operating system\n\nUbuntu 22.04\n\n### What happened\n\nnothing", [("ubuntu", "22.04")]),
        ("| OS | Version |\n|---|---|\n| host | openSUSE Tumbleweed |", [("opensuse-tumbleweed", None)]),
        ("WSL2, Ubuntu 24.04.1 LTS on Windows 11", [("ubuntu", "24.04")]),
        ("Linux Mint 22 (Wilma), based on Ubuntu 24.04 noble", [("linuxmint", "22")]),
        # Not the host, or no system.
        ("Fedora 43 fails. On my other machine (Ubuntu 24.04) it works.", [("fedora", "43")]),
        ('box = SimpleBox(image="alpine:latest")', []),
        ("works on Debian 12", []),
        ("see https://packages.ubuntu.com/noble/bubblewrap", []),
        ("Arch: x86_64", []),
        ("bwrap: x. On e.g. debian this can be enabled with 'sysctl kernel.y=1'.", []),
        ("ships in apparmor 4 (Ubuntu 24+ default)", []),
        ("<!-- for example: Ubuntu 24.04 -->\nsomething", []),
    ],
)
def test_distributions(text: str, found: list[tuple[str, str | None]]) -> None:
    assert systems(text) == found


def test_a_pasted_os_release_names_a_distribution_that_the_table_lacks() -> None:
    text = '```\nPRETTY_NAME="Nemo 7"\nNAME="Nemo"\nVERSION_ID="7"\nID=nemo\nID_LIKE="ubuntu debian"\n```'
    [system] = of(System, text)
    assert (system.id, system.version, system.name, system.like) == ("nemo", "7", "Nemo 7", "ubuntu")
    assert read(text.encode()).unread == ()


@pytest.mark.parametrize(
    ("text", "host", "container"),
    [
        ("Debian 12 container on an Ubuntu 24.04 host", "ubuntu", "debian"),
        ("Host: Fedora 43\n\nContainer: Debian 13", "fedora", "debian"),
        ("Ubuntu 22.04, inside docker (debian:bookworm-slim image)", "ubuntu", "debian"),
        ("Ubuntu 22.04\n\n    docker run --rm -it python:3.12-slim-bookworm bash", "ubuntu", "debian"),
    ],
)
def test_a_container_is_told_from_its_host(text: str, host: str, container: str) -> None:
    found = {each.place: each.id for each in of(System, text)}
    assert found == {Place.HOST: host, Place.CONTAINER: container}


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("Kernel: 6.8.0-45-generic", "6.8.0-45-generic"),
        ("Linux box 6.12.57+deb13-amd64 #1 SMP PREEMPT_DYNAMIC Debian", "6.12.57+deb13-amd64"),
        ("running kernel 6.17 here", "6.17"),
        ("kernel version 6.11.4-301.fc41.x86_64", "6.11.4-301.fc41.x86_64"),
        ("### Kernel\n\n6.6.87.2-microsoft-standard-WSL2", "6.6.87.2-microsoft-standard-WSL2"),
    ],
)
def test_kernels(text: str, release: str) -> None:
    assert [each.release for each in of(Kernel, text)] == [release]


@pytest.mark.parametrize(
    ("text", "name", "version"),
    [
        ("bubblewrap version is 0.9.0-1ubuntu0.1", "bubblewrap", "0.9.0-1ubuntu0.1"),
        ("`bwrap --version`: bubblewrap 0.11.0", "bubblewrap", "0.11.0"),
        ("AppArmor 4.0.1", "apparmor", "4.0.1"),
        ("Docker version 28.0.1, build x", "docker", "28.0.1"),
    ],
)
def test_versions_of_programs(text: str, name: str, version: str) -> None:
    assert [(each.name, each.version) for each in of(Program, text)] == [(name, version)]


def test_an_images_tag_and_a_least_version_are_no_program() -> None:
    assert of(Program, "docker run python:3.12 bash; apparmor ≥ 4.0") == []


@pytest.mark.parametrize("text", ["kernel 6.7+ has it", "needs kernel 5.19", "kernel >= 6.1"])
def test_a_kernel_that_something_needs_is_not_the_one_that_runs(text: str) -> None:
    assert of(Kernel, text) == []


@pytest.mark.parametrize(
    ("text", "version", "how"),
    [
        ("boxlite 0.10.8", "0.10.8", None),
        ("boxlite==0.9.5", "0.9.5", None),
        ("- boxlite version: `0.10.2`", "0.10.2", None),
        ("### BoxLite version\n\n0.10.7", "0.10.7", None),
        ("```\n$ pip show boxlite\nName: boxlite\nVersion: 0.10.3\n```", "0.10.3", "pip"),
        ("$ pip install boxlite", None, "pip"),
        ("npm install @boxlite-ai/boxlite@0.10.0", "0.10.0", None),
        ("$ cargo install boxlite-cli", None, "cli"),
        ('$ python3 -c "import boxlite; print(boxlite.__version__)"\n0.10.8', "0.10.8", None),
        ("boxlite: 0.10.7 (pip)", "0.10.7", "pip"),
        ("boxlite 0.10.7 installed from source", "0.10.7", "source"),
        ("boxlite-0.10.8-cp312-abi3-manylinux_2_28_x86_64.whl", "0.10.8", None),
    ],
)
def test_versions_of_boxlite(text: str, version: str | None, how: str | None) -> None:
    found = of(Boxlite, text)
    assert version in [each.version for each in found]
    assert how is None or how in [each.installed_by for each in found]
