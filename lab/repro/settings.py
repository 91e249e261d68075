"""Settings that a report states or that its reporter tried, as settings that a variant can have."""

import re
from collections.abc import Iterable
from functools import reduce

import tomlkit
from pydantic import ValidationError

from lab.catalog import Variant
from lab.catalog.knobs import Knob
from lab.catalog.knobs.kernel import Sysctl
from lab.catalog.knobs.security_modules import FOLDER, AppArmor, Selinux
from lab.repro.report import Setting

# A sysctl's name as the kernel has it. It becomes a part of a path in the guest.
SYSCTL = re.compile(r"[a-z0-9_]+(\.[A-Za-z0-9_-]+)+")
NUMBERS = re.compile(r"-?[0-9]{1,18}(?:[ \t]+-?[0-9]{1,18}){0,7}")
# Longest name that is set, in characters.
LONGEST = 100
UNLOAD = re.compile(rf"(?:sudo )?apparmor_parser (?:-R|--remove) {FOLDER}/([A-Za-z0-9_.-]+)")
PERMISSIVE = re.compile(r"(?:sudo )?setenforce (?:0|[Pp]ermissive)")


def knob(setting: Setting) -> tuple[str, Knob] | None:
    """Return the setting as a knob, with the name of its kind; None if no knob does the same."""
    if setting.value is not None:
        made = _sysctl(setting.name, setting.value)
        return ("sysctl", made) if made else None
    if unloaded := UNLOAD.fullmatch(setting.name.strip()):
        return "apparmor", AppArmor(removed=[unloaded[1]])
    if PERMISSIVE.fullmatch(setting.name.strip()):
        return "selinux", Selinux.model_validate_json('{"mode": "permissive"}')
    return None


def said(setting: Setting) -> str:
    """Return the setting as its reporter would write it."""
    return setting.name if setting.value is None else f"{setting.name}={setting.value}"


def made(name: str, title: str, knobs: Iterable[tuple[str, Knob]], like: Variant) -> Variant:
    """Return a variant of these settings that has no file. `like` is any variant of the catalog.

    Raises Conflict if two of them exclude each other.
    """
    found: dict[str, Knob] = {}
    for kind, each in knobs:
        found[kind] = reduce(type(each).combined, [found[kind], each]) if kind in found else each
    nothing = dict.fromkeys(like.knobs)
    expect = type(like).model_fields["expect"].default
    return like.model_copy(update={**nothing, "name": name, "title": title, "expect": expect, **found})


def to_toml(variant: Variant) -> str:
    """Return a variant's file, as `cloud-init/variants/` has them."""
    table = variant.model_dump(mode="json", exclude_none=True, exclude_defaults=True, exclude={"name"})
    return tomlkit.dumps(table)


def _sysctl(name: str, value: str) -> Sysctl | None:
    """A sysctl with a number or a list of numbers; a text such as `off` is no value that a kernel takes."""
    if not SYSCTL.fullmatch(name) or len(name) > LONGEST or not NUMBERS.fullmatch(value):
        return None
    try:
        return Sysctl.model_validate({name: int(value) if value.lstrip("-").isdecimal() else value})
    except ValidationError:
        return None
