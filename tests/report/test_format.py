"""How numbers look."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbench import Outcome
from orbench.report.format import counts, interval, percent, plural, score
from orbench.statistics.rates import rate

SHARES = st.floats(0, 1)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (None, "-"),
        (0.0, "0.0 %"),
        (1.0, "100.0 %"),
        (0.314, "31.4 %"),
        (0.0005, "0.1 %"),
        (0.0004, "<0.1 %"),
        (1e-12, "<0.1 %"),
        (0.9994, "99.9 %"),
        (0.9996, ">99.9 %"),
        (1 - 1e-12, ">99.9 %"),
    ],
)
def test_a_share_is_a_percentage_with_one_digit(share: float | None, text: str) -> None:
    assert percent(share) == text


def test_more_or_fewer_digits_can_be_had() -> None:
    assert percent(0.31415, 3) == "31.415 %"
    assert percent(0.0004, 2) == "0.04 %"
    assert percent(0.31415, 0) == "31 %"
    assert percent(0.001, 0) == "<1 %"
    assert percent(0.999, 0) == ">99 %"


@given(SHARES, st.integers(0, 4))
def test_nothing_looks_like_none_or_all_that_is_not(share: float, digits: int) -> None:
    text = percent(share, digits)
    assert "nan" not in text
    assert re.fullmatch(r"[<>]?\d+(\.\d+)? %", text)
    shown = float(text.strip("<> %"))
    assert (shown == 0) is (share == 0)
    assert (shown == 100) is (share == 1)


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.287, 0.336, "28.7-33.6 %"),
        (0.0, 0.0004, "0.0-<0.1 %"),
        (0.0003, 0.004, "<0.1-0.4 %"),
        (0.997, 0.9998, "99.7->99.9 %"),
        (0.997, 1.0, "99.7-100.0 %"),
        (None, None, "-"),
        (None, 0.5, "-"),
        (0.5, None, "-"),
    ],
)
def test_an_interval_is_two_percentages(low: float | None, high: float | None, text: str) -> None:
    assert interval(low, high) == text


@given(SHARES, SHARES)
def test_the_ends_of_an_interval_look_like_shares_alone(low: float, high: float) -> None:
    assert interval(low, high) == f"{percent(low).removesuffix(' %')}-{percent(high)}"


def test_counts_are_refused_of_scored() -> None:
    assert counts(rate({Outcome.DIRECT_REFUSAL: 410, Outcome.DIRECT_ANSWER: 900, Outcome.EMPTY: 7})) == "410/1,310"


def test_a_score_has_three_digits() -> None:
    assert score(0.80049) == "0.800"
    assert score(0.0) == "0.000"
    assert score(None) == "-"


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 replies"), (1, "1 reply"), (2, "2 replies"), (2000, "2,000 replies")]
)
def test_a_number_agrees_with_its_noun(number: int, text: str) -> None:
    assert plural(number, "reply", "replies") == text
    assert plural(number, "prompt") == text.replace("replies", "prompts").replace("reply", "prompt")
