"""Works out the column `needs` of orbench/scoring/phrases.tsv.

    python tools/rule_needs.py [FILE]

A rule is tried only on sentences that hold the words it needs: `a b | c d + e` is a or b, or else c or d with e. The
words must be such that no match lacks them. They are read off the pattern: of each of its alternatives the parts with
the rarest words, and of alternatives inside of a part the words of all. Where none can be told, or rarer
ones stand there, the cell stays as it is; if it is `?`, the rule is listed and a person fills it.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]

from orbench.scoring.phrases import _NAME, UNSPACED, words_of
from orbench.scoring.text import normalise, sentences

FILE = Path(__file__).parent.parent / "orbench" / "scoring" / "phrases.tsv"
REPLIES = Path(__file__).parent / "replies"


@cache
def shares() -> dict[str, float]:
    """Of each word the share of sentences that hold it, in the replies of our own writing."""
    counts: Counter[str] = Counter()
    total = 0
    for file in sorted(REPLIES.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            for sentence in sentences(normalise(json.loads(line)["response"])):
                counts.update(set(words_of(sentence)))
                total += 1
    return {word: count / total for word, count in counts.items()}


Needs = frozenset[str]


def _edge(items: list, first: bool) -> bool:
    """Whether what the items match surely begins (ends) with something that is no letter, or is empty."""
    for kind, value in items if first else reversed(items):
        if kind is sre.LITERAL:
            return not (chr(value).isalnum() or chr(value) == "_")
        if kind is sre.AT:
            return value is not sre.AT_NON_BOUNDARY
        if kind is sre.ASSERT_NOT or kind is sre.ASSERT:
            return False
        if kind is sre.SUBPATTERN:
            inner = list(value[3])
        elif kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            inner = list(value[2])
            if not _edge(inner, first):
                return False
            if value[0] > 0:
                return True
            continue
        elif kind is sre.BRANCH:
            return all(_edge([*option, *_rest(items, (kind, value), first)], first) for option in value[1])
        elif kind is sre.IN:
            return all(k is sre.LITERAL and not chr(v).isalnum() for k, v in value)
        else:
            return False
        return _edge([*inner, *_rest(items, (kind, value), first)], first) if inner else False
    return True


def _rest(items: list, item: tuple, first: bool) -> list:
    where = next(number for number, other in enumerate(items) if other is item or other == item)
    return items[where + 1 :] if first else []


def cost(needs: Needs) -> float:
    """About the share of sentences that hold one of the words."""
    return sum(shares().get(word, 0.0) + 1e-5 for word in needs)


def needs(items: list, left: bool, right: bool, spaced: bool) -> Needs | None:
    """Words one of which every match of the items holds; None if it cannot be told."""
    return min(all_needs(items, left, right, spaced), key=cost, default=None)


def all_needs(items: list, left: bool, right: bool, spaced: bool) -> list[Needs]:
    """Sets of words, of each of which every match of the items holds one.

    `left` and `right` say whether a word ends where the items begin and end.
    """
    found: list[Needs] = []
    number = 0
    items = whole_words(items) if spaced else items
    while number < len(items):
        kind, value = items[number]
        if kind is sre.LITERAL:
            end = number
            while end < len(items) and items[end][0] is sre.LITERAL:
                end += 1
            run = "".join(chr(v) for _, v in items[number:end])
            before = _starts_word(items[:number], left)
            after = _ends_word(items[end:], right)
            for match in re.finditer(r"\w+" if spaced else r"\S{2,}|\w", run):
                whole = (match.start() > 0 or before) and (match.end() < len(run) or after)
                if whole or not spaced:
                    found.append(frozenset({match[0]}))
            number = end
            continue
        before, after = _starts_word(items[:number], left), _ends_word(items[number + 1 :], right)
        if kind is sre.SUBPATTERN:
            found += all_needs(list(value[3]), before, after, spaced)
        elif kind in (sre.MAX_REPEAT, sre.MIN_REPEAT) and value[0] > 0:
            found += all_needs(list(value[2]), before and value[1] == 1, after and value[1] == 1, spaced)
        elif kind is sre.BRANCH:
            options = [needs(list(option), before, after, spaced) for option in value[1]]
            if all(options):
                found.append(frozenset().union(*options))
        elif kind is sre.IN and not spaced and all(k is sre.LITERAL for k, _ in value):
            found.append(frozenset(chr(v) for _, v in value))
        number += 1
    return found


def whole_words(items: Iterable) -> list:
    """The same items with letters beside alternatives, as in `s(?:ad|orry)` or `requests?`, moved into these."""
    found: list = []
    for kind, value in items:
        beside = bool(found) and (_letter(found[-1]) or found[-1][0] is sre.BRANCH)
        options = value[1] if kind is sre.BRANCH else None
        if beside and kind is sre.MAX_REPEAT and value[:2] == (0, 1):
            options = [list(value[2]), []]
        if kind is sre.IN and all(k is sre.LITERAL for k, _ in value):
            options = [[letter] for letter in value]
        if options is not None:
            before: list = []
            while found and _letter(found[-1]):
                before.insert(0, found.pop())
            found.append((sre.BRANCH, (None, [[*before, *option] for option in options])))
        elif found and found[-1][0] is sre.BRANCH and _letter((kind, value)):
            found[-1] = (sre.BRANCH, (None, [[*option, (kind, value)] for option in found[-1][1][1]]))
        else:
            found.append((kind, value))
    return found


def _letter(item: tuple) -> bool:
    return item[0] is sre.LITERAL and (chr(item[1]).isalnum() or chr(item[1]) == "_")


MOST_GROUPS = 3
"""Sets of words looked for in one sentence: more would cost what they save."""
LONGEST = 80
MOST_COMMON = 0.5
"""A further set is no use where so many sentences have it."""


def clauses(pattern: str) -> list[list[Needs]] | None:
    """Of each way in which a pattern may match the sets of words that it needs, the rarest first; None if unknown."""
    items = whole_words(list(_parser.parse(pattern)))
    while len(items) == 1 and items[0][0] is sre.SUBPATTERN:
        items = whole_words(list(items[0][1][3]))
    ways = items[0][1][1] if len(items) == 1 and items[0][0] is sre.BRANCH else [items]
    plain: Needs = frozenset()
    found: list[list[Needs]] = []
    for way in ways:
        groups: list[Needs] = []
        for group in sorted(all_needs(list(way), True, True, True), key=lambda group: (cost(group), sorted(group))):
            distinct = all(2 * len(group & other) < len(group) for other in groups)
            if not groups or (
                distinct and cost(group) < MOST_COMMON and len(group) <= LONGEST and len(groups) < MOST_GROUPS
            ):
                groups.append(group)
        if not groups:
            return None
        if len(groups) == 1:
            plain |= groups[0]
        else:
            found.append(groups)
    return ([[plain]] if plain else []) + found


def _starts_word(before: list, left: bool) -> bool:
    return _edge(before, False) and (left or not all(map(_optional, before)))


def _ends_word(after: list, right: bool) -> bool:
    return _edge(after, True) and (right or not all(map(_optional, after)))


def _optional(item: tuple) -> bool:
    kind, value = item
    if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
        return value[0] == 0
    return kind in (sre.AT, sre.ASSERT, sre.ASSERT_NOT)


def tried(found: list[list[Needs]]) -> float:
    """About the share of sentences on which a rule of those needs is tried."""
    return sum(math.prod(min(1.0, cost(group)) for group in groups) for groups in found)


def read(cell: str) -> list[list[Needs]]:
    """The needs that a cell holds."""
    return [[frozenset(group.split()) for group in way.split(" + ")] for way in cell.split(" | ")]


def filled(pattern: str, language: str, names: dict[tuple[str, str], str]) -> str:
    """The pattern with its names replaced."""
    return _NAME.sub(lambda match: names[language, match[1]], pattern)


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    names: dict[tuple[str, str], str] = {}
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines):
        cells = line.split("\t")
        if line.startswith("@"):
            language, _, name = cells[0][1:].partition(".")
            names[language, name] = f"(?:{filled(cells[1], language, names)})"
        elif len(cells) == 8 and not line.startswith("#"):
            pattern = filled(cells[5], cells[1], names)
            found = None
            if cells[1] not in UNSPACED and cells[4] != "-" and "*" not in cells[4]:
                found = clauses(pattern)
                if found and cells[4] != "?" and tried(read(cells[4])) < tried(found):
                    continue
            elif cells[4] == "?":
                only = needs(list(_parser.parse(pattern)), False, False, False)
                found = [[only]] if only else None
            if found:
                cells[4] = " | ".join(" + ".join(" ".join(sorted(group)) for group in groups) for groups in found)
                lines[number] = "\t".join(cells)
            elif cells[4] == "?":
                print(f"{path.name}, line {number + 1}: no needed words can be told for {cells[0]}", file=sys.stderr)
    path.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
