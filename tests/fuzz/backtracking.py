"""How many steps a regular expression takes on a text, and texts on which it takes many.

`re` tries one way through a pattern after another, and does not tell how many it tried. This module walks the
same parse tree in the same order and counts, so that growth is seen without a clock.

Two libraries that look for such patterns were tried. regexploit 1.0.0 found neither of the two exponential
patterns that the lab had, and cannot read possessive loops. redoctor 0.1.5 found neither, and needed minutes
for one pattern.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

# Whether the rest of a pattern matches from a place on.
type Then = Callable[[int], bool]
# An item of a parse tree: an operator and its argument.
type Item = tuple[Any, Any]

ONE_CHARACTER = (sre.LITERAL, sre.NOT_LITERAL, sre.IN, sre.ANY)
LOOPS = (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT)
# Loops with limits are counted with at most these, so that short texts show that there is one.
MOST_ROUNDS = 6
MOST_STEPS = 100_000
# As numbers: `re.RegexFlag` computes slowly.
IGNORECASE, MULTILINE, DOTALL = int(re.IGNORECASE), int(re.MULTILINE), int(re.DOTALL)


class TooManySteps(Exception):
    """A pattern took more than `MOST_STEPS` steps."""


class Backtracking:
    """A pattern that counts its steps, as `re` would take them if no loop had more than `most_rounds`."""

    def __init__(self, pattern: re.Pattern[Any], most_rounds: int = MOST_ROUNDS) -> None:
        self._most_rounds = most_rounds
        self.tree = _parser.parse(pattern.pattern, pattern.flags)
        self.flags = int(self.tree.state.flags)
        self.steps = 0
        self._text, self._end, self._is_whole = "", 0, False
        self._groups: dict[int, str | None] = {}
        self._matches = self._sequence(self.tree.data, self.flags, self._ends)

    def run(self, method: str, text: str) -> tuple[int, int] | None:
        """Return the span of what `search`, `match` or `fullmatch` finds first. Raises TooManySteps."""
        self._text, self.steps, self._is_whole = text, 0, method == "fullmatch"
        for start in range(len(text) + 1 if method == "search" else 1):
            self._step()
            if self._matches(start):
                return start, self._end
        return None

    def _step(self, count: int = 1) -> None:
        self.steps += count
        if self.steps > MOST_STEPS:
            raise TooManySteps

    def _ends(self, place: int) -> bool:
        self._end = place
        return not self._is_whole or place == len(self._text)

    def _sequence(self, items: Sequence[Item], flags: int, then: Then) -> Then:
        for item in reversed(items):
            then = self._item(item, flags, then)
        return then

    def _item(self, item: Item, flags: int, then: Then) -> Then:
        operator, argument = item
        if operator in ONE_CHARACTER:
            return self._character(item, flags, then)
        match operator:
            case sre.SUBPATTERN:
                return self._group(item, flags, then)
            case sre.BRANCH:
                ways = [self._sequence(branch.data, flags, then) for branch in argument[1]]
                return self._branch(ways)
            case sre.MAX_REPEAT | sre.MIN_REPEAT:
                return self._loop(item, flags, then)
            case sre.POSSESSIVE_REPEAT:
                return self._atomic([(sre.MAX_REPEAT, argument)], flags, then)
            case sre.ATOMIC_GROUP:
                return self._atomic(argument.data, flags, then)
            case sre.ASSERT | sre.ASSERT_NOT:
                return self._look_around(item, flags, then)
            case sre.AT:
                return lambda place: self._is_at(argument, place, flags) and then(place)
            case sre.GROUPREF:
                return self._reference(argument, then)
            case sre.FAILURE:
                return lambda place: False
        raise NotImplementedError(operator)

    def _branch(self, ways: Sequence[Then]) -> Then:
        def matches(place: int) -> bool:
            for way in ways:  # noqa: SIM110 -- `any` takes twice as long
                if way(place):
                    return True
            return False

        return matches

    def _character(self, item: Item, flags: int, then: Then) -> Then:
        is_taken = cache(lambda character: takes(item, character, flags))

        def matches(place: int) -> bool:
            self._step()
            return place < len(self._text) and is_taken(self._text[place]) and then(place + 1)

        return matches

    def _group(self, item: Item, flags: int, then: Then) -> Then:
        number, _, _, body = item[1]
        starts: list[int] = []

        def close(place: int) -> bool:
            start, before = starts.pop(), self._groups.get(number)
            self._groups[number] = self._text[start:place]
            if then(place):
                return True
            self._groups[number] = before
            starts.append(start)
            return False

        def matches(place: int) -> bool:
            starts.append(place)
            if inner(place):
                return True
            starts.pop()
            return False

        inner = self._sequence(body.data, inner_flags(item, flags), then if number is None else close)
        return inner if number is None else matches

    def _loop(self, item: Item, flags: int, then: Then) -> Then:
        operator, (least, most, body) = item
        is_greedy = operator is sre.MAX_REPEAT
        least = min(least, self._most_rounds)
        most = most if most is sre.MAXREPEAT else min(most, self._most_rounds)
        if len(body) == 1 and body[0][0] in ONE_CHARACTER:
            return self._loop_of_characters(body[0], flags, then, least, most, is_greedy=is_greedy)
        rounds, last = 0, -1

        def goes_on(place: int) -> bool:
            nonlocal rounds, last
            if rounds >= most or (rounds >= least and place == last):
                return False
            before = rounds, last
            rounds, last = rounds + 1, place
            if inner(place):
                return True
            rounds, last = before
            return False

        def leaves(place: int) -> bool:
            nonlocal rounds, last
            before = rounds, last
            if rounds >= least and then(place):
                return True
            rounds, last = before
            return False

        def after_a_round(place: int) -> bool:
            self._step()
            return goes_on(place) or leaves(place) if is_greedy else leaves(place) or goes_on(place)

        def enter(place: int) -> bool:
            nonlocal rounds, last
            before = rounds, last
            rounds, last = 0, -1
            if after_a_round(place):
                return True
            rounds, last = before
            return False

        inner = self._sequence(body.data, flags, after_a_round)
        return enter

    def _loop_of_characters(
        self, item: Item, flags: int, then: Then, least: int, most: int, *, is_greedy: bool
    ) -> Then:
        is_taken = cache(lambda character: takes(item, character, flags))

        def matches(place: int) -> bool:
            text, rounds, limit = self._text, 0, min(most, len(self._text) - place)
            if is_greedy:
                while rounds < limit and is_taken(text[place + rounds]):
                    rounds += 1
                self._step(rounds)
                while rounds >= least:
                    self._step()
                    if then(place + rounds):
                        return True
                    rounds -= 1
                return False
            while rounds < least or not then(place + rounds):
                self._step()
                if rounds >= limit or not is_taken(text[place + rounds]):
                    return False
                rounds += 1
            return True

        return matches

    def _atomic(self, items: Sequence[Item], flags: int, then: Then) -> Then:
        ends: list[int] = []

        def keep(place: int) -> bool:
            ends.append(place)
            return True

        inner = self._sequence(items, flags, keep)
        return lambda place: inner(place) and then(ends.pop())

    def _look_around(self, item: Item, flags: int, then: Then) -> Then:
        operator, (direction, body) = item
        width = body.getwidth()[0] if direction < 0 else 0
        inner = self._sequence(body.data, flags, lambda place: True)

        def matches(place: int) -> bool:
            self._step()
            found = place >= width and inner(place - width)
            return found is (operator is sre.ASSERT) and then(place)

        return matches

    def _reference(self, number: int, then: Then) -> Then:
        def matches(place: int) -> bool:
            self._step()
            words = self._groups.get(number)
            return words is not None and self._text.startswith(words, place) and then(place + len(words))

        return matches

    def _is_at(self, where: Any, place: int, flags: int) -> bool:
        self._step()
        text, is_by_line = self._text, bool(flags & MULTILINE)
        match where:
            case sre.AT_BEGINNING:
                return place == 0 or (is_by_line and text[place - 1] == "\n")
            case sre.AT_BEGINNING_STRING:
                return place == 0
            case sre.AT_END:
                return text[place:] in ("", "\n") or (is_by_line and text[place] == "\n")
            case sre.AT_END_STRING:
                return place == len(text)
        is_word = [0 <= index < len(text) and _is_of_word(text[index]) for index in (place - 1, place)]
        return (is_word[0] is not is_word[1]) is (where is sre.AT_BOUNDARY)


def takes(item: Item, character: str, flags: int) -> bool:
    """Whether an item that stands for one character takes this one."""
    operator, argument = item
    if operator is sre.ANY:
        return bool(flags & DOTALL) or character != "\n"
    cases = {character, character.lower(), character.upper()} if flags & IGNORECASE else {character}
    codes = {ord(one) for one in cases if len(one) == 1}
    if operator is not sre.IN:
        return (argument in codes) is (operator is sre.LITERAL)
    is_taken = any(
        (kind is sre.LITERAL and value in codes)
        or (kind is sre.RANGE and any(value[0] <= code <= value[1] for code in codes))
        or (kind is sre.CATEGORY and _is_of(str(value), character))
        for kind, value in argument
    )
    return is_taken is not (argument[0][0] is sre.NEGATE)


def _is_of(category: str, character: str) -> bool:
    tests = {"DIGIT": str.isdigit, "SPACE": str.isspace, "WORD": _is_of_word}
    return tests[category.rpartition("_")[2]](character) is not ("_NOT_" in category)


def _is_of_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def inner_flags(item: Item, flags: int) -> int:
    """The flags that hold inside an item."""
    operator, argument = item
    return (flags | argument[1]) & ~argument[2] if operator is sre.SUBPATTERN else flags


# -- attacks

# Least limit of a loop that is attacked.
LONG = 10
# Most characters and alternatives that a loop's text is made with.
MOST_CHARACTERS, MOST_BRANCHES = 3, 6
CHARACTERS = [*"a0. /-:=_A(\"'@\t", *map(chr, range(33, 127)), "\n"]
# What follows the rounds of a loop: nothing, or what few patterns take.
ENDS = ("", "\n\0")


@dataclass(frozen=True)
class Attack:
    """A text that makes a pattern try many ways: rounds of a loop, between what leads to it and what fails."""

    head: str
    round: str
    end: str

    def text(self, rounds: int) -> str:
        """The text with so many rounds."""
        return self.head + self.round * rounds + self.end


@dataclass(frozen=True)
class Loop:
    """A loop of a pattern: the flags that hold in it, its items, and those before it with their flags."""

    flags: int
    items: Sequence[Item]
    before: Sequence[tuple[Sequence[Item], int]]


def attacks(pattern: Backtracking) -> Iterator[Attack]:
    """Yield the attacks on a pattern's loops, each with characters that most of its parts take."""
    everything = list(_characters(pattern.tree.data, pattern.flags))
    written = [chr(item[1]) for item, _ in everything if item[0] is sre.LITERAL]
    made: dict[Attack, None] = {}
    for loop in _loops(pattern.tree.data, pattern.flags, ()):
        own = list(_characters(loop.items, loop.flags))
        # Characters of words, or of none, that the same items of the loop take are one.
        kinds: dict[tuple[bool, ...], str] = {}
        for character in (*written, *CHARACTERS):
            taken = [takes(item, character, flags) for item, flags in own]
            if any(taken):
                kinds.setdefault((*taken, _is_of_word(character)), character)

        def rank(character: str, own: Sequence[tuple[Item, int]] = own) -> tuple[int, int]:
            inside, all_in_all = (
                sum(takes(item, character, flags) for item, flags in some) for some in (own, everything)
            )
            return -inside, -all_in_all

        for character in sorted(kinds.values(), key=rank)[:MOST_CHARACTERS]:
            head = "".join(_text(items, flags, character, 0, 1) for items, flags in loop.before)
            for branch in range(min(MOST_BRANCHES, _most_branches(loop.items))):
                for rounds in (0, 1, 2):
                    one = _text(loop.items, loop.flags, character, branch, rounds)
                    for end in ENDS:
                        made |= {Attack(head, one, end): None, Attack("", head + one, end): None}
    yield from (attack for attack in made if attack.round)


def _bodies(item: Item) -> list[Sequence[Item]]:
    """The sequences inside an item of a parse tree."""
    operator, argument = item
    match operator:
        case sre.SUBPATTERN:
            return [argument[3].data]
        case sre.BRANCH:
            return [branch.data for branch in argument[1]]
        case sre.ATOMIC_GROUP:
            return [argument.data]
        case sre.ASSERT | sre.ASSERT_NOT:
            return [argument[1].data]
    return [argument[2].data] if operator in LOOPS else []


def _characters(items: Sequence[Item], flags: int) -> Iterator[tuple[Item, int]]:
    for item in items:
        if item[0] in ONE_CHARACTER:
            yield item, flags
        for body in _bodies(item):
            yield from _characters(body, inner_flags(item, flags))


def _loops(items: Sequence[Item], flags: int, before: Sequence[tuple[Sequence[Item], int]]) -> Iterator[Loop]:
    for index, item in enumerate(items):
        earlier = (*before, (items[:index], flags))
        if item[0] in LOOPS and item[1][1] >= LONG:
            yield Loop(flags, item[1][2].data, earlier)
        for body in _bodies(item):
            yield from _loops(body, inner_flags(item, flags), earlier)


def _most_branches(items: Sequence[Item]) -> int:
    inner = [_most_branches(body) for item in items for body in _bodies(item)]
    return max([1, *inner, *(len(item[1][1]) for item in items if item[0] is sre.BRANCH)])


def _text(items: Sequence[Item], flags: int, character: str, branch: int, rounds: int) -> str:
    """A text that items take: with the character where it is taken, and so many rounds of loops inside."""
    text = ""
    for item in items:
        operator, argument = item
        within = inner_flags(item, flags)
        bodies = [] if operator is sre.ASSERT_NOT else _bodies(item)
        if operator in ONE_CHARACTER:
            own = [chr(argument)] if operator is sre.LITERAL else []
            text += next((one for one in (character, *own, *CHARACTERS) if takes(item, one, flags)), "")
        elif bodies and not (operator is sre.ASSERT and argument[0] > 0):
            one = _text(bodies[branch % len(bodies)], within, character, branch, rounds)
            text += one * (max(argument[0], min(rounds, argument[1])) if operator in LOOPS else 1)
    return text
