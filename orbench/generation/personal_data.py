"""Personal data in a text: found, and put out of sight.

In: a text. Out: which kinds it holds and where, or the text with a mark such as `[email]` in their place. What can be
told by its form is found: addresses and numbers with check digits or a fixed shape. Names, street addresses and dates
of birth are not, and a number of the right form may belong to nobody.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from enum import StrEnum

import msgspec


class PersonalData(StrEnum):
    """A kind of personal data that can be told by its form."""

    EMAIL = "email"
    IBAN = "iban"
    CARD = "card"
    SOCIAL_SECURITY = "social-security"
    IP_ADDRESS = "ip-address"
    PHONE = "phone"


class Found(msgspec.Struct, frozen=True):
    """One piece of personal data in a text."""

    kind: PersonalData
    start: int
    """Its first character, counted from 0."""
    end: int
    """The character behind its last."""


def find_personal_data(text: str) -> list[Found]:
    """Find personal data that can be told by its form.

    E-mail addresses; IBANs with a right check number (ISO 13616); payment cards of 13 to 19 digits with a right check
    digit (Luhn, ISO/IEC 7812-1); numbers of the form of a United States social security number, without those that
    are never given out; public IP addresses; telephone numbers that begin with `+` or `00` and a country, or have the
    North American form with area code.

    Args:
        text: Anything.

    Returns:
        What was found, in the order of the text, without overlaps: where two kinds claim the same characters, the one
        with a check number goes before the one with a form alone.
    """
    if not _MARKS.search(text):  # most prompts
        return []
    taken: list[Found] = []
    for kind, pattern, is_meant in _KINDS:
        for match in pattern.finditer(text):
            start, end = match.span()
            if is_meant(match.group()) and all(end <= other.start or other.end <= start for other in taken):
                taken.append(Found(kind, start, end))
    return sorted(taken, key=lambda found: found.start)


def scrub(text: str) -> str:
    """The text with each piece of personal data replaced by its kind in square brackets, such as `[email]`."""
    return "".join(_pieces(text))


def _pieces(text: str) -> Iterator[str]:
    at = 0
    for found in find_personal_data(text):
        yield text[at : found.start]
        yield f"[{found.kind}]"
        at = found.end
    yield text[at:]


def _digits(text: str) -> str:
    return "".join(character for character in text if character.isdigit())


def _is_iban(text: str) -> bool:
    letters = text.replace(" ", "").upper()
    if not 15 <= len(letters) <= 34:
        return False
    return int("".join(str(int(character, 36)) for character in letters[4:] + letters[:4])) % 97 == 1


def _is_card(text: str) -> bool:
    digits = [int(digit) for digit in reversed(_digits(text))]
    if not 13 <= len(digits) <= 19 or not any(digits):
        return False
    return sum(sum(divmod(digit * (1 + place % 2), 10)) for place, digit in enumerate(digits)) % 10 == 0


def _is_public_address(text: str) -> bool:
    if ":" in text and sum(map(bool, text.split(":"))) < 3:
        return False  # times and code have colons too
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _is_phone(text: str) -> bool:
    return 8 <= len(_digits(text)) <= 17  # E.164 allows 15 behind the plus; `00` stands for it


def _always(text: str) -> bool:
    return True


_MARKS = re.compile(r"[@:\d]")
"""Every kind holds one of them."""

# No pattern can go back and forth over a long text: every repetition is bounded, or parted by what it cannot match.
_KINDS: tuple[tuple[PersonalData, re.Pattern[str], Callable[[str], bool]], ...] = (
    (
        PersonalData.EMAIL,
        re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w-])"),
        _always,
    ),
    (
        PersonalData.IBAN,
        re.compile(r"\b[A-Za-z]{2}[0-9]{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,3})?\b", re.ASCII),
        _is_iban,
    ),
    (PersonalData.CARD, re.compile(r"(?<![\w.+-])[0-9](?:[ -]?[0-9]){12,18}(?![\w-])", re.ASCII), _is_card),
    (
        PersonalData.SOCIAL_SECURITY,
        re.compile(r"(?<![\w-])(?!000|666|9)[0-9]{3}([- ])(?!00)[0-9]{2}\1(?!0000)[0-9]{4}(?![\w-])", re.ASCII),
        _always,
    ),
    (
        PersonalData.IP_ADDRESS,
        re.compile(
            r"(?<![\w.:])(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![\w:]|\.[0-9])|[0-9A-Fa-f:]{2,39}(?![\w:]))", re.ASCII
        ),
        _is_public_address,
    ),
    (
        PersonalData.PHONE,
        re.compile(
            r"(?<![\w.+-])(?<![0-9] )(?:(?:\+|00)[1-9](?:[ ./-]?\(?[0-9]\)?){6,14}"
            r"|(?:1[ .-]?)?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4})(?![\w-])",
            re.ASCII,
        ),
        _is_phone,
    ),
)
"""Kind, form, and whether what has the form is meant; the surest first."""
