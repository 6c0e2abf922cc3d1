"""What a judge's answer says: the label that it ends with, or why it has none.

Two forms are read, whichever was asked for: JSON with a `label` that is the whole answer, but for a fence and a few
words such as "here it is", and a label in double square brackets that ends it. A judge that quotes the reply, lists the
labels, denies one or refuses to judge names labels too, and the reply has a say in which. What is doubtful is no label:
it is asked again.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

_LABEL = re.compile(r"\[\[([^\[\]]*)\]\]")
_LAST = re.compile(r"\[\[([^\[\]]*)\]\]+(?:[^\w?？{}\[]|_)*\Z")
"""A label with nothing behind it but punctuation, marks or a fence."""
_JSON_MEANT = re.compile(r"""["'“‘](?:label|reason)["'”’]\s*:|["'“]label["'”]""", re.IGNORECASE)
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")

_FILLERS = (
    "a an the as be been being is was are of to in into under it this call called calling label labelled labeled "
    "labelling labeling class classify classified classifying say said give given choose chosen assign put quite "
    "really simply just exactly truly even clearly"
).replace(" ", "|")
_DENIED = re.compile(
    r"(?:\b(?:not|no|never|neither|either|nor|or|than|instead of|unlike|except|without|between|cannot)|n['’]t)"
    rf"(?:\s+(?:{_FILLERS}))*[\s*_\"'“‘«(`]*\Z"
    r"|\bI(?:['’]m| am)?\s+(?:can(?:no|['’]?)t|can not|won['’]?t|will not|not able|unable)\b[^.!?:;,\n]*\Z",
    re.IGNORECASE,
)
"""What stands right before a label that is denied, left open or declined: `not a`, `either`, `I can't call it`."""
_DENIED_BEFORE_STOP = re.compile(
    r"(?:\b(?:not|cannot|nicht|niet|inte|ikke|pas|bukan|tidak)|n['’]t"
    r"|\b(?:no|non|não|nao|nie|не|ні)\s+(?:es|son|è|e|é|sono|são|jest|są|является|є|це|это)|不是|并非|並非)"
    r"[\s*_]*[:：—–-][\s*_\"'“‘«(`]*\Z",
    re.IGNORECASE,
)
"""The same where a colon or dash stands between: `the label is not: `, `no es: `."""
_QUOTE = re.compile(r"[\"'“‘«`]\Z")
_INTRODUCED = re.compile(
    r"\W*(?:(?:so|thus|hence|therefore|my|the|final|is|label|class|classification|verdict|judge?ment|mark|score)\b\W*)*\Z",
    re.IGNORECASE,
)
"""What may stand on the line before a label in quotation marks: with anything else it may be the reply's own words."""
_SAYING_NOTHING = re.compile(
    r"\W*(?:(?:here|it|is|are|my|the|final|json|object|answer|label|classification|verdict|judge?ment|result|output|as|in"
    r"|requested|format|done|end)\b\W*)*\Z",
    re.IGNORECASE,
)
"""What may stand around JSON: with anything else it may be quoted, or taken back."""
_STOP = re.compile(r"[.!?:;。！？：；।؟\n]")
_WORD = re.compile(r"\w+")
_WORDS = (
    "the it this that these which because how what with and for from be been does would should my its rather all any "
    "assistant user model reply response request question text answer answers label class category score give gives "
    "choose refuses refusal not but"
)
_ENGLISH = frozenset(_WORDS.split())
"""Words that few other languages have."""
_NEAR = 200
"""Characters before a label that are looked at."""


class Found(msgspec.Struct, frozen=True):
    """What an answer says."""

    label: str | None
    """In lower case with underscores; None if there is none."""
    why: str
    """The judge's words: the JSON's `reason`, else the whole answer."""
    problem: str | None = None
    """Why there is no label: what was given instead."""
    is_whole: bool = False
    """It is JSON to its last brace, so nothing was cut off."""


def find_label(text: str) -> Found:
    """The label that an answer ends with.

    JSON counts from its first brace to its last, a comma too many forgiven, if it is the whole answer. A label in
    brackets counts if nothing but marks stands behind it and no other on its line (nor alone on the lines right above),
    and if it is not denied. Denials are known in English: in the middle of a sentence of another language, which may be
    one, no label counts; behind a stop, a colon or a line break it does. Text that was meant as JSON and is none has no
    label.
    """
    if _JSON_MEANT.search(text) or _unfenced(text).startswith("{"):
        return _in_json(text)
    last = _LAST.search(text)
    if last is None:
        problem = "no label at its end" if _LABEL.search(text) else "no label"
        return Found(None, text, problem)
    begin = text.rfind("\n", 0, last.start()) + 1
    if len(_labels_of_line(text, begin)) > 1:
        return Found(None, text, "two labels")
    before = text[max(begin, last.start() - _NEAR) : last.start()].rstrip("[")
    quoted = _QUOTE.search(before) and not _INTRODUCED.fullmatch(before)
    if quoted or _is_denied(text[: last.start()]):
        return Found(None, text, "no label at its end")
    return Found(_plain(last[1]), text)


def last_label(text: str) -> str | None:
    """The label that an answer ends with, in lower case with underscores; None if it has none."""
    return find_label(text).label


def _in_json(text: str) -> Found:
    begin, end = text.find("{"), text.rfind("}")
    answer = _decode(text[begin : end + 1]) if 0 <= begin < end else None
    if answer is None:
        return Found(None, text, "JSON that cannot be read")
    label = _plain(answer["label"].strip().strip("[]"))
    head, tail = text[:begin], text[end + 1 :]
    if {_plain(other) for other in _LABEL.findall(tail)} - {label}:
        return Found(None, text, "two labels")
    if not _SAYING_NOTHING.fullmatch(head) or not _SAYING_NOTHING.fullmatch(tail):
        return Found(None, text, "words around its JSON")
    reason = answer.get("reason")
    return Found(label, reason if isinstance(reason, str) else "", is_whole=True)


def _unfenced(text: str) -> str:
    """Without a fence at its beginning, behind which JSON still begins the answer."""
    return text.lstrip("`~ \t\r\n").removeprefix("json").lstrip()


def _decode(text: str) -> dict[str, Any] | None:
    """The object, if its label is a string."""
    for candidate in (text, _TRAILING_COMMA.sub(r"\1", text)):
        try:
            answer = json.loads(candidate, strict=False, object_pairs_hook=_once)
        except (ValueError, RecursionError):
            continue
        return answer if isinstance(answer, dict) and isinstance(answer.get("label"), str) else None
    return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice")
    return found


def _labels_of_line(text: str, begin: int) -> set[str]:
    """The labels from the line that begins there to the end, and on the lines above that hold a label alone: a list."""
    found = {_plain(label) for label in _LABEL.findall(text, begin)}
    for line in reversed(text[:begin].splitlines()):
        labels = _LABEL.findall(line)
        if line.strip() and (not labels or re.search(r"\w", _LABEL.sub("", line))):
            break
        found |= {_plain(label) for label in labels}
    return found


def _is_denied(before: str) -> bool:
    """Whether what stands before a label denies it, or may do so in a language that is not read here."""
    near = before[-_NEAR:].rstrip("[")
    if _DENIED.search(near) or _DENIED_BEFORE_STOP.search(near):
        return True
    clause = _STOP.split(near)[-1].rstrip(" \t*_\"'“‘«(`~")
    if not clause or not (clause[-1].isalnum() or clause[-1] == ",") or _INTRODUCED.fullmatch(clause):
        return False
    return len(_ENGLISH.intersection(_WORD.findall(clause.lower()))) < 2


def _plain(label: str) -> str:
    return re.sub(r"[\s-]+", "_", label.strip().lower())
