"""No reply can make the rules slow: shown by the shape of every pattern and by hostile texts, not by the clock.

A pattern backtracks more than linearly where a repeat without bound holds another, or stands beside one that can
match the same characters. Each rule reads one sentence of a text that was cut to 2,000 characters, so one unbounded
repeat by itself costs at most the square of that; two in a row, or one in another, are not allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

import pytest

from orbench.scoring import classifier, features, judge, phrases, text
from orbench.scoring.phrases import built_in

REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT)
MANY = 400
"""A repeat that may go on for so long counts as unbounded."""


def _inside(kind: Any, value: Any) -> list[Any]:
    if kind is sre.SUBPATTERN:
        return [value[3]]
    if kind is sre.BRANCH:
        return list(value[1])
    if kind in REPEATS:
        return [value[2]]
    if kind in (sre.ASSERT, sre.ASSERT_NOT):
        return [value[1]]
    if kind is sre.ATOMIC_GROUP:
        return [value]
    return []


def _long(kind: Any, value: Any) -> bool:
    return kind in REPEATS and (value[1] is sre.MAXREPEAT or value[1] >= MANY)


def nested(items: Any, within: bool = False) -> Iterator[str]:
    """Unbounded repeats inside of unbounded repeats."""
    for kind, value in items:
        long = _long(kind, value)
        if long and within:
            yield "a repeat without bound inside of another"
        for inner in _inside(kind, value):
            parted = long and inner[0][0] is sre.LITERAL and chr(inner[0][1]) not in characters(inner[1:])
            yield from nested(inner, (within or long) and not parted)


def characters(items: Any) -> set[str]:
    """Sample of the characters that a part is made of."""
    sample = 'ab1_ .,;!?"\n\t-#*>|'
    found: set[str] = set()
    for kind, value in items:
        if kind is sre.LITERAL:
            found.add(chr(value))
        elif kind in (sre.ANY, sre.IN, sre.NOT_LITERAL):
            pattern = _parser.SubPattern(_parser.State(), [(kind, value)])
            compiled = re.compile(_expression(pattern))
            found.update(character for character in sample if compiled.fullmatch(character))
        for inner in _inside(kind, value):
            found |= characters(inner)
    return found


def firsts(items: Any) -> set[str]:
    """Sample of the characters that a part can begin with."""
    found: set[str] = set()
    for kind, value in items:
        inside = _inside(kind, value)
        for inner in inside:
            found |= firsts(inner)
        if not inside:
            found |= characters([(kind, value)])
        if not (kind in REPEATS and value[0] == 0) and kind not in (sre.AT, sre.ASSERT, sre.ASSERT_NOT):
            break
    return found


def _expression(part: Any) -> str:
    (kind, value) = part.data[0]
    if kind is sre.ANY:
        return "."
    if kind is sre.NOT_LITERAL:
        return f"[^{re.escape(chr(value))}]"
    categories = {
        sre.CATEGORY_WORD: r"\w",
        sre.CATEGORY_NOT_WORD: r"\W",
        sre.CATEGORY_SPACE: r"\s",
        sre.CATEGORY_NOT_SPACE: r"\S",
        sre.CATEGORY_DIGIT: r"\d",
        sre.CATEGORY_NOT_DIGIT: r"\D",
    }
    out = ""
    for one, what in value:
        if one is sre.NEGATE:
            out = "^" + out
        elif one is sre.LITERAL:
            out += re.escape(chr(what))
        elif one is sre.RANGE:
            out += f"{re.escape(chr(what[0]))}-{re.escape(chr(what[1]))}"
        else:
            out += categories[what]
    return f"[{out}]"


def adjacent(items: Any) -> Iterator[str]:
    """Unbounded repeats side by side that can match the same characters."""
    before: set[str] = set()
    for kind, value in items:
        if _long(kind, value):
            own = characters(value[2])
            if firsts(value[2]) & before:
                yield f"two repeats without bound of {sorted(own & before)} in a row"
            before = before | own
        elif (kind in REPEATS and value[0] == 0) or kind in (sre.AT, sre.ASSERT, sre.ASSERT_NOT):
            pass
        else:
            before = set()
        for inner in _inside(kind, value):
            yield from adjacent(inner)


def faults(pattern: str, flags: int = 0) -> list[str]:
    tree = _parser.parse(pattern, flags)
    return [*nested(tree), *adjacent(tree)]


@pytest.mark.parametrize(
    "pattern", [r"(?:\w+ )+no", r"(?:a*)*b", r"\w+\w+x", r".*\s*.*x", r"a{0,900}a{0,900}b", r"(?:a|b+)*c"]
)
def test_the_check_finds_what_is_not_linear(pattern: str) -> None:
    assert faults(pattern)


@pytest.mark.parametrize("pattern", [r"\w+(?:'\w+)*", r"\w+ \w+", r"(?:\w{1,9} ){0,4}no", r"a+b+c+"])
def test_the_check_lets_pass_what_is(pattern: str) -> None:
    assert not faults(pattern)


def test_every_rule_is_linear_by_its_shape() -> None:
    found = {rule.id: wrong for rule in built_in().rules if (wrong := faults(rule.pattern))}
    assert found == {}


@pytest.mark.parametrize("module", [text, phrases, features, classifier, judge], ids=lambda module: module.__name__)
def test_so_is_every_expression_of_the_code_that_reads_replies(module: Any) -> None:
    found = {
        name: wrong
        for name, value in vars(module).items()
        if isinstance(value, re.Pattern) and (wrong := faults(value.pattern, value.flags & ~re.UNICODE))
    }
    assert found == {}


def test_a_rule_reads_no_more_than_head_and_tail() -> None:
    assert text.HEAD + text.TAIL <= 2000
