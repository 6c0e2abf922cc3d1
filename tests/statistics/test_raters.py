"""Agreement of several readers, against worked examples of the literature."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbench.statistics.raters import krippendorff_alpha


def read(*observers: str) -> list[list[str | None]]:
    """One string an observer, one character a unit, `*` where a label is missing."""
    return [[None if label == "*" else label for label in unit] for unit in zip(*observers, strict=True)]


@pytest.mark.parametrize(
    ("units", "alpha"),
    [
        (read("0100000010", "1110010000"), 0.095),  # Krippendorff (2011), section A: two observers, binary data
        (read("aabbdcccedda", "babbbccceddd"), 0.692),  # section B: nominal data
        # Section C: four observers, missing data, its nominal alpha.
        (read("123321412***", "1233224125*3", "*3332342251*", "12332441251*"), 0.743),
    ],
)
def test_alpha_is_that_of_krippendorff_s_worked_examples(units: list[list[str | None]], alpha: float) -> None:
    assert krippendorff_alpha(units) == pytest.approx(alpha, abs=0.0006)


@given(st.lists(st.lists(st.sampled_from(["a", "b", None]), min_size=3, max_size=3)))
def test_alpha_does_not_depend_on_who_is_called_first(units: list[list[str | None]]) -> None:
    alpha = krippendorff_alpha(units)
    turned = krippendorff_alpha([unit[::-1] for unit in units])
    assert alpha == (None if turned is None else pytest.approx(turned))
    assert alpha is None or alpha <= 1


def test_what_cannot_be_compared_has_no_agreement() -> None:
    assert krippendorff_alpha([["a", None], [None, "b"]]) is None
    assert krippendorff_alpha([["a", "a"], ["a", "a"]]) is None
    assert krippendorff_alpha([["a", "a"], ["b", "b"]]) == 1
