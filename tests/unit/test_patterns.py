"""No pattern that reads text from outside makes its reader work for long.

Each is attacked by texts that are made of its own loops, and steps are counted: `tests/fuzz/backtracking.py`.
"""

import ast
import importlib
import math
import pkgutil
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import lab
from lab.repro import instead, judging, reading, systems
from tests.fuzz.backtracking import Attack, Backtracking, TooManySteps, attacks

LAB = Path(lab.__file__).parent
# One of these that takes too long is ended, as whatever takes too long in a guest.
IN_GUESTS = re.compile(r"lab\.(suites|guest\.(remote|loader)|builds\.remote|probes\.programs)\b")
METHODS = ("search", "match", "fullmatch")
SEARCHES = {"finditer": "search", "findall": "search", "sub": "search", "subn": "search", "split": "search"}
# Patterns that read what the lab's maintainers and the user wrote themselves.
OWN = ("lab.cli.reference.PART", "lab.gate.expectations.ENTRY")
# Rounds of an attack. If the cost grows with the length, the next rounds cost no more; if it grows with the
# square, they cost at least ROUNDS * ROUNDS steps more.
ROUNDS = 8
MOST_BEND = ROUNDS * ROUNDS // 2


@cache
def modules() -> list[str]:
    names = [module.name for module in pkgutil.walk_packages(lab.__path__, "lab.")]
    return [name for name in names if not IN_GUESTS.match(name)]


@cache
def code() -> list[ast.AST]:
    """The lab's code that runs on the host."""
    files = [
        Path(found.origin) for name in modules() if (found := importlib.util.find_spec(name)) and found.origin
    ]
    return [node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8")))]


@cache
def uses() -> dict[str, set[str]]:
    """How the lab uses each pattern, by the code that names it: `SEEN`, `SAYS['host']`."""
    found: dict[str, set[str]] = defaultdict(set)
    for node in code():
        if isinstance(node, ast.Attribute) and (method := SEARCHES.get(node.attr, node.attr)) in METHODS:
            found[ast.unparse(node.value)].add(method)
        elif isinstance(node, ast.Call):  # What is passed on may be searched.
            names = (one for one in node.args if isinstance(one, ast.Name | ast.Subscript))
            for one in names:
                found[ast.unparse(one)].add("search")
    return found


@dataclass(frozen=True)
class Use:
    """A pattern, the method by which it is used, and where it is."""

    pattern: re.Pattern[Any]
    method: str
    place: str


def patterns_in(value: object, name: str, seen: set[int]) -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Yield the patterns that a module holds under a name, in tables of any form, with the code for each."""
    if isinstance(value, re.Pattern):
        yield name, value
    elif id(value) not in seen:
        seen.add(id(value))
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from patterns_in(inner, f"{name}[{key!r}]", seen)
        elif isinstance(value, list | tuple | set | frozenset):
            for inner in value:
                yield from patterns_in(inner, name, seen)
        elif is_dataclass(value) and not isinstance(value, type):
            # Not what is made of its fields when that is asked for first, which depends on the tests before.
            yield from patterns_in(
                {field.name: getattr(value, field.name) for field in fields(value)}, name, seen
            )


def of_modules() -> Iterator[Use]:
    """The patterns that modules hold."""
    for module in modules():
        seen: set[int] = set()
        for name, value in list(vars(importlib.import_module(module)).items()):
            if not name.startswith("__"):
                for place, pattern in patterns_in(value, name, seen):
                    yield from (
                        Use(pattern, method, f"{module}.{place}") for method in uses().get(place) or {"search"}
                    )


def of_calls() -> Iterator[Use]:
    """The patterns that are written where they are used."""
    for node in code():
        match node:
            case ast.Call(ast.Attribute(ast.Name("re"), called), [ast.Constant(str() as written), *_]):
                if (method := SEARCHES.get(called, called)) in METHODS:
                    yield Use(re.compile(written), method, written)


def of_tables() -> Iterator[Use]:
    """The patterns of the tables of reports that are compiled when a report needs them."""
    knowledge, table = judging.TABLE, systems.TABLE
    words = [*knowledge["topic"], *(row for row in instead.ROWS if "pattern" in row)]
    rows = [
        *(("search", row["pattern"]) for row in [*words, *table["kernel"], *table["trace"]]),
        *(("search", row["audit"]) for row in instead.ROWS if "audit" in row),
        *(("search", row["line"]) for row in table["kernel"] if "line" in row),
        *(("search", pattern) for pattern in knowledge["other-programs"].values()),
        *(("search", told) for row in table["distribution"] for told in row.get("told", ())),
        *(("search", row["text"]) for row in knowledge["chance"] if "text" in row),
        *(("fullmatch", row["name"]) for row in knowledge["setting"]),
        *(("fullmatch", row["value"]) for row in knowledge["setting"] if "value" in row),
        *(("fullmatch", names) for names in reading.PROGRAMS.values()),
    ]
    for method, written in rows:
        yield Use(re.compile(written, re.IGNORECASE | re.MULTILINE | re.DOTALL), method, written)
    for name, distribution in systems.DISTRIBUTIONS.items():
        yield Use(distribution.written, "match", f"{name}: written")
    for alone in (True, False):
        yield Use(systems.compile_names(alone=alone), "search", "systems.compile_names")
    for row in systems.DISTRIBUTIONS.values():
        yield Use(row.written, "match", f"systems.DISTRIBUTIONS[{row.id!r}].written")


def bend(counted: Backtracking, method: str, attack: Attack) -> float:
    """How many steps more the third `ROUNDS` rounds of an attack cost than the second."""
    steps = []
    for rounds in (ROUNDS, 2 * ROUNDS, 3 * ROUNDS):
        try:
            counted.run(method, attack.text(rounds))
        except TooManySteps:
            return math.inf
        steps.append(counted.steps)
    return steps[2] - 2 * steps[1] + steps[0]


def expensive_attack(pattern: re.Pattern[Any], method: str) -> Attack | None:
    """The first attack whose cost grows faster than its length."""
    counted = Backtracking(pattern)
    return next((one for one in attacks(counted) if bend(counted, method, one) > MOST_BEND), None)


@pytest.fixture
def deep() -> Iterator[None]:
    """Steps call each other, for as many characters as a text has."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(50_000)
    yield
    sys.setrecursionlimit(limit)


@cache
def every_use() -> list[Use]:
    found = (*of_modules(), *of_calls(), *of_tables())
    return list({(use.pattern, use.method): use for use in found if use.place not in OWN}.values())


@pytest.mark.usefixtures("deep")
def test_the_cost_of_every_pattern_grows_with_the_length_of_the_text() -> None:
    expensive = {
        (use.place, use.method, use.pattern.pattern, attack)
        for use in every_use()
        if (attack := expensive_attack(use.pattern, use.method))
    }
    assert not expensive
    # Nothing was overlooked: tables of each kind are among them.
    places = {use.place.partition("[")[0] for use in every_use()}
    assert places >= {
        "lab.repro.messages.MESSAGES",
        "lab.repro.settings.FORMS",
        "lab.repro.reading.FACTS",
        "lab.repro.systems.SAYS",
        "lab.causes.evidence.KILLED",
        "lab.verdict.words.ENTRY",
        "lab.probes.report.BEGIN",
        "lab.base.files.HIDDEN",
        "lab.images.cloud.HREF",
        "systems.DISTRIBUTIONS",
    }


EXPONENTIAL = (
    r"""(?:^|[\s:"`])(?:\.|/[\w.@-]+)*/(?:s?bin|libexec)/[\w.@/+-]{1,200}""",
    r"^\W*(?:sudo )?cat\s+(?P<names>(?:(?:/proc/sys/[a-z0-9_]+(?:/[\w.-]+)+)\s*)+)$",
    r"(?:a{1,100}b?){1,100}c",
)
SQUARE = (r"\b\d[\w.+~-]*ubuntu\d", r"\S+ -> /", r"x\d+\d* y", r"avc:\s+denied\s+\{([^}]*)\}")
LINEAR = (r"\b\d[\w.+~-]{0,60}ubuntu\d", r"\S -> /", r"x\d++\d* y", r"(?>x\d+)\d y", r"a{50} b", r"(\w+)=\1")


@pytest.mark.usefixtures("deep")
def test_attacks_are_found_where_a_pattern_has_a_weakness_and_only_there() -> None:
    for written in (*EXPONENTIAL, *SQUARE):
        assert expensive_attack(re.compile(written), "search"), written
    for written in LINEAR[:-1]:
        assert not expensive_attack(re.compile(written), "search"), written


@pytest.mark.usefixtures("deep")
def test_steps_are_counted_on_the_way_that_re_takes() -> None:
    compared = 0
    for use in (*every_use(), *(Use(re.compile(written), "search", written) for written in (*SQUARE, *LINEAR))):
        counted = Backtracking(use.pattern, most_rounds=sys.maxsize)
        for attack in islice(attacks(counted), 8):
            text = attack.text(2)
            match = getattr(use.pattern, use.method)(
                text.encode() if isinstance(use.pattern.pattern, bytes) else text
            )
            with suppress(TooManySteps):
                assert counted.run(use.method, text) == (match.span() if match else None), (use, text)
                compared += 1
    assert compared > 1_000
