"""Whether a setting holds or was tried, and whether the reporter says that it helped."""

import re
from dataclasses import dataclass

from lab.repro.reading.rules._base import Text
from lab.repro.reading.structure import Kind
from lab.repro.report import Mood

# Words before a setting that say it was tried.
TRIED = re.compile(
    r"\b(?:tried|try(?:ing)?|attempted|workaround|worked around|chang(?:ed|ing)|(?:dis|en)abling|"
    r"(?:i|we) (?:have |also )?(?:set|(?:dis|en)abled)|after setting)\b|^\W*setting\b",
    re.IGNORECASE,
)
# Words that say so only if the sentence also says what came of it.
PERHAPS = re.compile(
    r"\b(?:with(?:out)?|after|when|if|once|set|setting|using|running|by|even)\b",
    re.IGNORECASE,
)
IN_VAIN = re.compile(
    # A page's text may lack the space before `does`.
    r"(?:does|\b(?:do|did|has|had))(?:n't| not|n’t) (?:\w+ )?"
    r"(?:help|unblock|work|fix|cure|solve|change|make|resolve|suffice|matter)|"
    r"\bnot? working\b|\bno (?:effect|change|difference|luck|avail)\b|"
    r"\bstill (?:\w+ )?(?:fail|broken|the same|block|denied|not|get|see|happen|an? error|die|crash)|"
    r"\bwithout (?:success|effect|luck)\b|\bin vain\b|\bnot enough\b|\b(?:change[sd]?|did|does) nothing\b|"
    r"\bsame (?:error|result|failure|message)\b|\bnone of (?:these|them|this|which|that)\b|\bneither\b|"
    r"\bfails? (?:the same|anyway|too|as well)\b",
    re.IGNORECASE,
)
CURED = re.compile(
    r"\b(?:works?|worked|starts?|started|opens?|runs?|pass(?:es|ed)?|succeed(?:s|ed)?|fix(?:es|ed)|helps?|helped|"
    r"cure[sd]?|solve[sd]?|resolve[sd]?|unblock(?:s|ed)?|goes away|is gone|disappear(?:s|ed)?)\b",
    re.IGNORECASE,
)
# Before a setting that did not do what one would expect of it.
ALTHOUGH = re.compile(r"\b(?:(?:al|even )?though|despite|in spite of)\b[^,;]*$", re.IGNORECASE)
# What is only expected, asked or negated.
NOT_SAID = re.compile(
    r"(?:\b(?:should|would|could|may|might|must|to|can|cannot|will|not|how|is|are)|n't|n’t)\s+(?:\w+\s+)?$"
)
# Most characters in which that is looked for.
LONGEST_NOT = 40


@dataclass(frozen=True)
class Said:
    """What the words around a setting say of it."""

    mood: Mood
    helped: bool | None


def said(text: Text, index: int, start: int, end: int, *, changes: bool) -> Said:
    """Judge the words around columns `start` to `end` of a line. `changes`: the line itself is a change."""
    lead, tail = text.lead(index, start), text.tail(index, end)
    helped = _helped(tail)
    if helped is None:
        helped = _helped(lead)
    if ALTHOUGH.search(lead):
        helped = False
    tried = changes or TRIED.search(lead) is not None
    if tried and helped is None and (changes or text.lines[index].kind is Kind.CODE):
        helped = _helped(text.next_sentence(index))
    tried = tried or IN_VAIN.search(lead) is not None
    if not tried and helped is not None:
        tried = (
            PERHAPS.search(lead) is not None
            or CURED.match(tail.strip()) is not None
            or IN_VAIN.match(tail.strip()) is not None
        )
    return Said(Mood.TRIED, helped) if tried else Said(Mood.HOLDS, None)


def _helped(words: str) -> bool | None:
    """Whether words say that something cured (True) or did not (False); None: they do not say."""
    if IN_VAIN.search(words):
        return False
    begins = (found.start() for found in CURED.finditer(words))
    cured = (begin for begin in begins if not NOT_SAID.search(words[max(0, begin - LONGEST_NOT) : begin]))
    return None if next(cured, None) is None else True
