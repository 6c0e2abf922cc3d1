"""Prompts to clean prompts: each is kept, or dropped for exactly one reason.

In: texts. Out: one `Cleaned` for each, in the same order, so that the reasons and what is kept add up to what came in.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

import msgspec

from orbench.errors import UsageError
from orbench.generation.language import foreign_language
from orbench.generation.personal_data import PersonalData, find_personal_data, scrub
from orbench.statistics.duplicates import near_duplicates

LIKENESS = 0.8
"""Shared words over all words of both texts from which the later one is a near duplicate.

At 0.8 two prompts of twenty words differ in two of them at most. The threshold is the usual one (Lee et al., ACL 2022,
arXiv 2107.06499, section 4.2, for texts long enough to be compared by runs of five words; a prompt is too short for
that: one changed word in twenty breaks five of its sixteen runs). By it 7 of the 1,319 released prompts of Hard-1K and
8 of the 655 of Toxic repeat another (benchmarks/duplicates.py prints it).
"""


class Dropped(StrEnum):
    """Why a prompt was dropped; a prompt to which several apply has the first of them."""

    TOO_SHORT = "too short"
    TOO_LONG = "too long"
    OTHER_LANGUAGE = "other language"
    PERSONAL_DATA = "personal data"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near duplicate"


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a clean prompt is."""

    min_characters: int = 10
    """Fewest characters; the shortest released prompt has 28, but a character says more in some scripts."""
    max_characters: int = 1000
    """Most characters; the longest released prompt has 269, so what is beyond is no single question."""
    language: str | None = None
    """Language that prompts should be in, `en` or `English`; None leaves it unchecked."""
    personal_data: Literal["flag", "scrub", "drop", "keep"] = "flag"
    """What becomes of a prompt with personal data: kept and flagged, kept with marks in its place, dropped, or kept
    unseen."""
    likeness: float = LIKENESS
    """Share of words from which a prompt is a near duplicate, above 0 to 1; 1 drops those of the same words alone."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UsageError: A bound below 0, bounds that leave nothing, or a likeness out of range.
        """
        if not 0 <= self.min_characters <= self.max_characters:
            raise UsageError(
                f"min_characters {self.min_characters} and max_characters {self.max_characters}: "
                "0 <= min_characters <= max_characters"
            )
        if not 0 < self.likeness <= 1:
            raise UsageError(f"likeness is {self.likeness}: above 0, at most 1")


class Cleaned(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one prompt."""

    text: str
    """The prompt without blanks around it, its personal data scrubbed if the rules say so."""
    dropped: Dropped | None = None
    """Why it is dropped; None if it is kept."""
    of: int | None = None
    """For a duplicate the place, from 0, of the kept prompt that it repeats or is near to."""
    personal_data: tuple[PersonalData, ...] = ()
    """The kinds of personal data in the prompt as it came."""
    detail: str = ""
    """What the reason rests on: the number of characters, the language found, the kinds of personal data."""


def clean(texts: Sequence[str], rules: Rules = Rules()) -> list[Cleaned]:  # noqa: B008 - frozen
    """Clean prompts.

    Length, language and personal data are looked at prompt by prompt. Among those that pass, the first of several
    that are the same (see `normalised`) is kept, and then the first of each group of near duplicates: prompts linked
    by a chain of near duplicates are one group, as is usual. So put what you would rather keep first.

    Args:
        texts: The prompts, in the order of preference.
        rules: What a clean prompt is.

    Returns:
        One for each text, in order. 80,000 prompts take seconds; the language check adds about as much again.

    Raises:
        UsageError: The rules name a language that the check does not know.
    """
    cleaned = [_alone(text.strip(), rules) for text in texts]
    if len(cleaned) < 2:
        return cleaned
    first: dict[str, int] = {}
    for place, each in enumerate(cleaned):
        if each.dropped is None:
            of = first.setdefault(normalised(each.text), place)
            if of != place:
                cleaned[place] = msgspec.structs.replace(each, dropped=Dropped.DUPLICATE, of=of)
    leader: dict[int, int] = {}
    for place, group in zip(first.values(), near_duplicates(list(map(comparable, first)), rules.likeness), strict=True):
        of = leader.setdefault(group, place)
        if of != place:
            cleaned[place] = msgspec.structs.replace(cleaned[place], dropped=Dropped.NEAR_DUPLICATE, of=of)
    # What repeats a prompt that fell to a near duplicate repeats the one that was kept.
    return [
        msgspec.structs.replace(each, of=cleaned[each.of].of)
        if each.of is not None and cleaned[each.of].of is not None
        else each
        for each in cleaned
    ]


def _alone(text: str, rules: Rules) -> Cleaned:
    length = len(text)
    if length < max(1, rules.min_characters):
        return Cleaned(text=text, dropped=Dropped.TOO_SHORT, detail=f"{length} characters")
    if length > rules.max_characters:
        return Cleaned(text=text, dropped=Dropped.TOO_LONG, detail=f"{length} characters")
    other = foreign_language(text, rules.language) if rules.language else None
    if other:
        return Cleaned(text=text, dropped=Dropped.OTHER_LANGUAGE, detail=other)
    if rules.personal_data == "keep":
        return Cleaned(text=text)
    kinds = tuple(dict.fromkeys(found.kind for found in find_personal_data(text)))
    if kinds and rules.personal_data == "drop":
        return Cleaned(text=text, dropped=Dropped.PERSONAL_DATA, personal_data=kinds, detail=", ".join(kinds))
    return Cleaned(text=scrub(text) if kinds and rules.personal_data == "scrub" else text, personal_data=kinds)


def counts(cleaned: Sequence[Cleaned]) -> dict[str, int]:
    """How many were kept and how many dropped for each reason: `kept`, then every reason, also those of none."""
    reasons = Counter(each.dropped for each in cleaned)
    return {"kept": reasons[None], **{reason.value: reasons[reason] for reason in Dropped}}


def normalised(text: str) -> str:
    """A text as exact duplicates are found by: compatible Unicode forms, letter case, blanks and punctuation apart.

    A text without a letter or digit is compared as it stands.
    """
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold())) or text


def words(text: str) -> list[str]:
    """The words of a text, without case and punctuation; where no blanks part words, each character is one."""
    if text.isascii():
        return _WORD.findall(text.lower())
    return [
        word
        for run in _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
        for word in _SCRIPT_WITHOUT_BLANKS.findall(run)
    ]


def comparable(text: str) -> str:
    """A text as near duplicates are found by: its `words`, and where no blanks part words, pairs of characters.

    Single characters of such a script are too few to tell sentences apart.
    """
    found = words(text)
    if text.isascii() or not any(_WITHOUT_BLANKS.match(word) for word in found):
        return " ".join(found)
    pairs = [
        one + other if _WITHOUT_BLANKS.match(one) and _WITHOUT_BLANKS.match(other) else one
        for one, other in zip(found, [*found[1:], ""], strict=True)
    ]
    return " ".join(pairs)


_WORD = re.compile(r"\w+(?:['’]\w+)*")
_CHARACTERS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
"""Thai, Lao, Burmese, Khmer, the Japanese syllabaries, Han."""
_WITHOUT_BLANKS = re.compile(f"[{_CHARACTERS}]")
_SCRIPT_WITHOUT_BLANKS = re.compile(f"[{_CHARACTERS}]|[^{_CHARACTERS}]+")
