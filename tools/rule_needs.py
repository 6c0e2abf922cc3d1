"""Works out the column `needs` of orbench/scoring/phrases.tsv: all of a cell `?`, and what may follow its `+`.

    python tools/rule_needs.py [FILE]

A rule is tried only on sentences with one of its needed words, so the words must be such that every match holds one.
They are read off the pattern: of a sequence the part with the rarest words, of alternatives the words of all. Where
none can be told, the rule is listed and the cell stays for a person to fill. Behind a plus stand words of which every
match holds one as well, where a second part of the pattern gives them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]

from orbench.scoring.phrases import _NAME, UNSPACED

FILE = Path(__file__).parent.parent / "orbench" / "scoring" / "phrases.tsv"
COMMON = frozenset(
    [
        "a",
        "as",
        "be",
        "de",
        "en",
        "i",
        "in",
        "is",
        "it",
        "la",
        "me",
        "no",
        "not",
        "of",
        "on",
        "or",
        "so",
        "the",
        "to",
        "un",
        "we",
        "you",
        "for",
        "do",
        "can",
        "that",
        "this",
        "an",
    ]
)
"""Words that many English sentences hold too; a need among them costs time."""

Needs = frozenset[str]


def _edge(items: list, first: bool) -> bool:
    """Whether what the items match surely begins (ends) with something that is no letter, or is empty."""
    for kind, value in items if first else reversed(items):
        if kind is sre.LITERAL:
            return not (chr(value).isalnum() or chr(value) == "_")
        if kind is sre.AT:
            continue
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
    return sum(20.0 if word in COMMON else 1.0 for word in needs) + (0.0 if needs else 1e9)


def needs(items: list, left: bool, right: bool, spaced: bool) -> Needs | None:
    """Words one of which every match of the items holds; None if it cannot be told.

    `left` and `right` say whether a word ends where the items begin and end.
    """
    found: list[Needs] = []
    number = 0
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
            inner = needs(list(value[3]), before, after, spaced)
        elif kind in (sre.MAX_REPEAT, sre.MIN_REPEAT) and value[0] > 0:
            inner = needs(list(value[2]), before and value[1] == 1, after and value[1] == 1, spaced)
        elif kind is sre.BRANCH:
            options = [needs(list(option), before, after, spaced) for option in value[1]]
            inner = None if any(option is None for option in options) else frozenset().union(*options)
        elif kind is sre.IN and not spaced:
            inner = frozenset(chr(v) for k, v in value) if all(k is sre.LITERAL for k, _ in value) else None
        else:
            inner = None
        if inner:
            found.append(inner)
        number += 1
    return min(found, key=cost) if found else None


def second(pattern: str, first: Needs) -> Needs | None:
    """Other words one of which every match holds besides; None if there are none."""
    options: list[Needs] = []
    items = list(_parser.parse(pattern))
    for number in range(len(items)):
        before, after = _starts_word(items[:number], True), _ends_word(items[number + 1 :], True)
        if items[number][0] is sre.LITERAL:
            continue
        found = needs(items[number : number + 1], before, after, True)
        if found and 2 * len(found & first) < len(found) and len(found) <= 80:
            options.append(found)
    return min(options, key=cost) if options else None


def _starts_word(before: list, left: bool) -> bool:
    return _edge(before, False) and (left or not all(map(_optional, before)))


def _ends_word(after: list, right: bool) -> bool:
    return _edge(after, True) and (right or not all(map(_optional, after)))


def _optional(item: tuple) -> bool:
    kind, value = item
    if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
        return value[0] == 0
    return kind in (sre.AT, sre.ASSERT, sre.ASSERT_NOT)


def flat(pattern: str, spaced: bool) -> Needs | None:
    """The needs of a whole pattern; a match begins and ends with whole words where the language parts them."""
    items = list(_parser.parse(pattern))
    return needs(items, spaced, spaced, spaced)


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
        elif len(cells) == 8 and not line.startswith("#") and cells[4] == "?":
            pattern = filled(cells[5], cells[1], names)
            found = flat(pattern, cells[1] not in UNSPACED)
            if found is None:
                print(f"{path.name}, line {number + 1}: no needed words can be told for {cells[0]}", file=sys.stderr)
                continue
            cells[4] = " ".join(sorted(found))
            lines[number] = "\t".join(cells)
        if len(cells) == 8 and not line.startswith("#") and cells[1] not in UNSPACED and "*" not in cells[4]:
            pattern = filled(cells[5], cells[1], names)
            first = cells[4].partition(" + ")[0]
            also = second(pattern, frozenset(first.split()))
            cells[4] = f"{first} + {' '.join(sorted(also))}" if also and first != "-" else first
            lines[number] = "\t".join(cells)
    path.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
