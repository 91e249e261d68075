# ruff: noqa: E501
"""Hosts in bug reports: distributions, containers, kernels, and versions of programs and of boxlite."""

import pytest

from lab.repro import planning
from lab.repro.reading import read
from lab.repro.report import Kernel, Place, Program, System
from tests.builders.report_texts import of, systems


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
        (
            "Host: Windows 11 with WSL2\n\nIt fails in a container rather than only the Ubuntu 24.04 host",
            [("windows", "11")],
        ),
        (" - host os: `Linux 5.10.1, NixOS, 20.09.1234.abcdef0`", [("nixos", "20.09")]),
        (
            "Silverblue derived image\n\n    State: idle\n    Version: 41.20250101.0 (2025-01-01T10:00:00Z)",
            [("fedora", "41")],
        ),
        ("Ubuntu 22.04LTS", [("ubuntu", "22.04")]),
        ("Noble Numbat", [("ubuntu", "24.04")]),
        ('OS name: "Ubuntu" version 22.04', [("ubuntu", "22.04")]),
        ('NAME="Ubuntu"\nVERSION_ID="22.04"', [("ubuntu", "22.04")]),
        ("DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=20.04", [("ubuntu", "20.04")]),
        # One's own system outweighs what else a text names.
        ("Debian and Ubuntu have this patch. My system is Arch Linux.", [("arch", None)]),
        ("The package is built for Debian 12; my host is openSUSE Leap 15.6", [("opensuse-leap", "15.6")]),
        ("Since Ubuntu 23.10 AppArmor restricts this. I run Pop!_OS 22.04.", [("pop", "22.04")]),
        (
            "I use Debian 12 and Fedora 43. Ubuntu 24.04 is said to fail.",
            [("debian", "12"), ("fedora", "43")],
        ),
        ("I run the AppImage built on Ubuntu 18.04 under Fedora 41.", [("fedora", "41")]),
        ("It worked on Debian 11, fails since Debian 12.", [("debian", "12")]),
        ("Ubuntu 22.04 VM in Proxmox", [("ubuntu", "22.04")]),
        ("Fedora 43 fails; Windows is not affected", [("fedora", "43")]),
        ("Ubuntu 22.04.x", [("ubuntu", "22.04")]),
        ("Pop 22.04", [("pop", "22.04")]),
        ("PVE 8.2 host", [("pve", "8.2")]),
        ("It fails on AL2023", [("amzn", "2023")]),
        ("SLES 15 SP4", [("sles", "15.4")]),
        ("macOS Ventura", [("macos", "13")]),
        ("fedora coreos 39.20240101.3.0", [("fedora", "39")]),
        ("Tumbleweed snapshot 20240101", [("opensuse-tumbleweed", "20240101")]),
        ("Distro: Linux Mint 21.2 Victoria base: Ubuntu 22.04 jammy", [("linuxmint", "21.2")]),
        ('    distribution: fedora\n    variant: server\n    version: "38"', [("fedora", "38")]),
        # Not the host, or no system.
        ("Install bubblewrap (Linux), use sandbox-exec (macOS) or the ACL runner (Windows).", []),
        ("It supports Linux, macOS and Windows.", []),
        ("unlike the Ubuntu 24.04 case described in the manual", []),
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
        (
            "Fedora 43\n\n    root@0123456789ab:/# apt list buildah\n    buildah/focal,now 1.19.6-2~ubuntu20.04~ppa1 amd64 [installed]",
            "fedora",
            "ubuntu",
        ),
        ('Fedora 43\n\n    ARG BASE="debian:12"', "fedora", "debian"),
        ("Docker image: node:18-bullseye on Ubuntu 22.04", "ubuntu", "debian"),
        ("I run a Docker container with Ubuntu 24.04 in it on my Debian 12 server", "debian", "ubuntu"),
        ("LXC container with Debian 12 on Proxmox VE 8.1", "pve", "debian"),
        ("FROM docker.io/library/alpine:3.19 on Fedora 43", "fedora", "alpine"),
        ("macOS with Docker Desktop, container: debian:12", "macos", "debian"),
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
        ("boxlite 0.10.8", "boxlite", "0.10.8"),
        ("boxlite==0.9.5", "boxlite", "0.9.5"),
        ("- boxlite version: `0.10.2`", "boxlite", "0.10.2"),
        ("### BoxLite version\n\n0.10.7", "boxlite", "0.10.7"),
        ("```\n$ pip show boxlite\nName: boxlite\nVersion: 0.10.3\n```", "boxlite", "0.10.3"),
        ("npm install @boxlite-ai/boxlite@0.10.0", "boxlite", "0.10.0"),
        ('$ python3 -c "import boxlite; print(boxlite.__version__)"\n0.10.8', "boxlite", "0.10.8"),
        ("boxlite: 0.10.7 (pip)", "boxlite", "0.10.7"),
        ("boxlite-0.10.8-cp312-abi3-manylinux_2_28_x86_64.whl", "boxlite", "0.10.8"),
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
    ("text", "host"),
    [
        ("OS: Ubuntu\nVersion: 22.04", ("ubuntu", "22.04")),
        ("Ubuntu version: 20.04", ("ubuntu", "20.04")),
        ("Environment: Ubuntu 22.04 chroot", ("ubuntu", "22.04")),
        ("Ubuntu 20.04 inside WSL2 on Windows 11", ("ubuntu", "20.04")),
        ("runner image: ubuntu-22.04", ("ubuntu", "22.04")),
        ("Raspberry Pi OS (bookworm)", ("raspbian", "12")),
        ("Red Hat Enterprise Linux Server release 7.9 (Maipo)", ("rhel", "7.9")),
        ("openSUSE 15.5", ("opensuse-leap", "15.5")),
        ("Amazon Linux AMI 2018.03", ("amzn", "2018.03")),
        ("Debian testing", ("debian", "testing")),
        ("Upgraded from Ubuntu 22.04 to 24.04, now it fails", ("ubuntu", "24.04")),
        ("I upgraded from Debian 11 to Debian 12", ("debian", "12")),
        ("Docker version 20.10 on Ubuntu 20.04", ("ubuntu", "20.04")),
        ("It works on Fedora 40 but fails on Arch Linux", ("arch", None)),
        ("fails on Arch Linux, works on Fedora 40", ("arch", None)),
        ("Kernel: 6.10.3-200.fc40.x86_64", ("fedora", "40")),
        ("Linux pve 6.8.12-1-pve #1 SMP", ("pve", None)),
        ("Fedora\nkernel 6.10.3-200.fc40.x86_64", ("fedora", "40")),
        ("Ubuntu LTS 22.04", ("ubuntu", "22.04")),
        ("ubuntu2204", ("ubuntu", "22.04")),
        ("see RHEL-12345 and Fedora bug 12", None),
        ("Windows Terminal, Debian 12", ("debian", "12")),
        ("System: Gentoo Base System release 2.15", ("gentoo", None)),
        ("OS: Nobara Linux 39", ("nobara", "39")),
        ("OS: Vanilla OS 2", ("vanilla", "2")),
        ("- OS: [e.g. iOS] Ubuntu 22.04", ("ubuntu", "22.04")),
        ("I use jammy", ("ubuntu", "22.04")),
        ("I run the 24.04 LTS on this machine", ("ubuntu", "24.04")),
        ("Node 20.4 LTS", None),
        ("The change affects Ubuntu 23.10 and later. I run Debian 12.", ("debian", "12")),
        ("The change affects Ubuntu 23.10 and later.", None),
        (
            "Distributor ID:\tDebian\nDescription:\tDebian GNU/Linux 11 (bullseye)\nRelease:\t11\nCodename:\tbullseye",
            ("debian", "11"),
        ),
        (
            "Operating System: Ubuntu 22.04.3 LTS\n          Kernel: Linux 5.15.0-91-generic",
            ("ubuntu", "22.04"),
        ),
        ("### Docker version\n\n24.0\n\n### Operating system\n\nDebian 12", ("debian", "12")),
        ("Using Docker Desktop on macOS 14", ("macos", "14")),
        ("Host OS: Windows 10 with VirtualBox; guest Ubuntu 20.04", ("ubuntu", "20.04")),
        ("Linux Mint 22 | Cinnamon", ("linuxmint", "22")),
        ("Manjaro KDE 23.1", ("manjaro", "23.1")),
        ("EndeavourOS, kernel 6.9", ("endeavouros", None)),
        ("Running on AWS EC2 (Amazon Linux 2)", ("amzn", "2")),
        ("in my Alpine 3.18 container on Ubuntu 22.04", ("ubuntu", "22.04")),
        ("base image: node:18-bullseye, host Ubuntu 22.04.2", ("ubuntu", "22.04")),
        ("No problem on my Ubuntu 22.04 laptop, only the Debian 12 server shows it", ("debian", "12")),
        ("Tested on Ubuntu 22.04 and Fedora 39", ("ubuntu", "22.04")),
        ("Void Linux musl", ("void", None)),
        ("Parrot OS 6.0", ("parrot", "6.0")),
        ("Linux 6.1.0-13-amd64", ("debian", "12")),
        # Forms, with the version in a field of its own, and boxes that are not ticked.
        (
            "### What Linux distribution are you using?\n\nUbuntu\n\n### Linux distribution version\n\n22.04.2",
            ("ubuntu", "22.04"),
        ),
        (
            "### What operating system(s) are you using?\n\nDebian\n\n### Operating System Version\n\n12",
            ("debian", "12"),
        ),
        ("### Ubuntu version\n\n22.04", ("ubuntu", "22.04")),
        ("- [ ] Ubuntu 22.04\n- [x] Fedora 41", ("fedora", "41")),
        ("OS (e.g. Ubuntu 22.04): Debian 12", ("debian", "12")),
        ("| | Ubuntu 24.04 (broken) | Kali (works) |\n|-|-|-|\n| kernel | 1 | 2 |", ("ubuntu", "24.04")),
        # What programs print.
        (
            '```\n"distribution": {\n  "distribution": "fedora",\n  "variant": "workstation",\n  "version": "40"\n},\n```',
            ("fedora", "40"),
        ),
        (
            "Distributor ID:\tManjaroLinux\nDescription:\tManjaro Linux\nRelease:\t23.1.0",
            ("manjaro", "23.1.0"),
        ),
        ("I use Debian 12.\n\nCentOS Linux release 7.9.2009 (Core)", ("centos", "7")),
        ("I use Debian 12.\n\n    Ubuntu 22.04.3 LTS \\n \\l", ("ubuntu", "22.04")),
        ("* Ubuntu-22.04    Running         2", ("ubuntu", "22.04")),
        ("OS: Fedora Linux 39 (Workstation Edition) x86_64", ("fedora", "39")),
        ("OS: Arch Linux x86_64\nKernel: 6.6.7-arch1-1", ("arch", None)),
        ("Platform: darwin\nOS Version: Darwin 23.1.0", ("macos", None)),
        ("QEMU emulator version 6.2.0 (Debian 1:6.2+dfsg-2ubuntu6.16)", None),
        ("gcc (Debian 12.2.0-14) 12.2.0", None),
        # Words between a name and its version.
        ("Linux (Debian 9.x, x86_64)", ("debian", "9")),
        ('My OS is Ubuntu "18.04.2 LTS (Bionic Beaver)"', ("ubuntu", "18.04")),
        ("Distribution: Manjaro Xfce 20.2 x64", ("manjaro", "20.2")),
        ("OS: Fedora Linux KDE Plasma 42", ("fedora", "42")),
        ("Kali GNU/Linux Rolling 2023.4", ("kali", "2023.4")),
        ("Raspberry Pi OS 64-bit (bookworm)", ("raspbian", "12")),
        ("Ubuntu Server, version: 24.04", ("ubuntu", "24.04")),
        ("RHEL 8.8, SteamOS is not affected", ("rhel", "8.8")),
        ("Ubuntu, 24 cores", ("ubuntu", None)),
        ("OS x86_64", None),
        ("OS: Amazon Linux 2023.6.20241121", ("amzn", "2023.6.20241121")),
        ("Running Steam on arch rolling 64-bit", ("arch", None)),
        ("It is built on arch x86_64", None),
        # What tells the version elsewhere.
        ("OS: Ubuntu\n\nSince I am on 24.04.1 it fails.", ("ubuntu", "24.04")),
        ("OS: Ubuntu\n\nIt works on 22.04, not on 24.04.", ("ubuntu", None)),
        ("OS: Ubuntu\n\n    docker run ubuntu:20.04 true", ("ubuntu", None)),
        ("OS: Debian\n\nbubblewrap 0.8.0-2+deb12u1", ("debian", "12")),
        ("OS: Fedora\n\nbubblewrap-0.10.0-1.fc41.x86_64", ("fedora", "41")),
        ("OS: Rocky Linux\n\nbubblewrap-0.4.0-2.el8_10.x86_64", ("rocky", "8")),
        # What fails outweighs what is only named.
        ("Debian and Kubuntu have this patch. It fails on a fresh Fedora 41.", ("fedora", "41")),
        # Kernels that tell their distribution.
        ("OS: Debian\n\nkernel: 6.12.57+deb13-amd64", ("debian", "13")),
        ("OS: Arch Linux\n\nI run alpine:3.19 in docker", ("arch", None)),
        ("Linux pop-os 6.6.10-76060610-generic #202401051437~1704728131~22.04~24d69e2 SMP", ("pop", "22.04")),
        ("uname -r: 5.15.0-200.131.27.el9uek.x86_64", ("ol", "9")),
        ("uname -r: 5.10.0-136.12.0.86.oe2203sp1.x86_64", ("openEuler", "22.03")),
        ("uname -r: 6.5.0-kali3-amd64", ("kali", None)),
        ("uname -r: 6.1.52-valve9-1-neptune-61", ("steamos", None)),
        ("uname -r: 5.14.21-150500.55.39-default", ("opensuse-leap", "15.5")),
        ("uname -r: 6.6.9-1-default", ("opensuse-tumbleweed", None)),
        ("Linux box 6.6.14-0-lts #1-Alpine SMP", ("alpine", None)),
        ("Linux box 6.1.69 #1-NixOS SMP", ("nixos", None)),
    ],
)
def test_one_of_the_systems_is_the_host(text: str, host: tuple[str, str | None] | None) -> None:
    system = planning.host_of(read(text.encode()))
    assert (None if system is None else (system.id, system.version)) == host


@pytest.mark.parametrize(
    ("text", "system"),
    [
        ("Pop!_OS 22.04", ("pop", "22.04", "Pop!_OS 22.04", "host", "ubuntu")),
        ("I use jammy", ("ubuntu", "22.04", "Ubuntu jammy", "host", None)),
        ("```\n$ cat /etc/alpine-release\n3.23.4\n```", ("alpine", "3.23", "Alpine 3.23.4", "host", None)),
        (
            'ID=pop\nNAME="Pop!_OS"\nPRETTY_NAME="Pop!_OS 22.04 LTS"\nVERSION_ID="22.04"',
            ("pop", "22.04", "Pop!_OS 22.04 LTS", "host", "ubuntu"),
        ),
        (
            "docker run python:3.12-slim-bookworm",
            ("debian", "12", "debian (python:3.12-slim-bookworm)", "container", None),
        ),
        ("FROM alpine:3.19", ("alpine", "3.19", "alpine:3.19", "container", None)),
        ("docker image ubuntu:22.04", ("ubuntu", "22.04", "ubuntu:22.04", "container", None)),
        ("kernel 6.10.3-200.fc40.x86_64", ("fedora", "40", "Fedora", "host", None)),
        ("OS: Quill OS 2", ("quill", "2", "Quill OS", "host", None)),
        ("Ubuntu 24.04 family", ("ubuntu", "24.04", "Ubuntu 24.04 family", "host", None)),
        ("image: ubuntu:22.04", ("ubuntu", "22.04", "ubuntu:22.04", "container", None)),
        ('ID=arch\nNAME="Arch Linux"\nVERSION_ID=""', ("arch", None, "Arch Linux", "host", None)),
    ],
)
def test_a_system_as_a_whole(text: str, system: tuple[str | None, ...]) -> None:
    [first, *others] = of(System, text)
    assert (first.id, first.version, first.name, str(first.place), first.like) == system
    assert {other.id for other in others} <= {first.id}


def test_a_system_that_was_upgraded_is_not_called_by_its_old_version() -> None:
    [system] = of(System, "Since the upgrade from Ubuntu 23.10 to 24.04 it fails.")
    assert (system.version, system.name) == ("24.04", "Ubuntu")


def test_what_a_program_printed_outweighs_a_form_and_a_form_outweighs_a_sentence() -> None:
    sentence, form = "It fails, and on Debian 12 too.", "OS: Fedora 43"
    printed = '```\nNAME="Arch Linux"\nID=arch\n```'
    assert systems(f"{sentence}\n\n{form}") == [("fedora", "43")]
    assert systems(f"{sentence}\n\n{form}\n\n{printed}") == [("arch", None)]


def test_pythons_platform_tells_the_kernel() -> None:
    [kernel] = of(Kernel, "Platform: Linux-6.8.0-45-generic-x86_64-with-glibc2.39")
    assert kernel.release == "6.8.0-45-generic"
