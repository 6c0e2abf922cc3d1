"""Agreement of several readers, against worked examples of the literature."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa

from orbench.statistics.raters import cohen_kappa, krippendorff_alpha


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


def test_kappa_is_that_of_a_table_worked_by_hand() -> None:
    # 20 and 15 alike, 5 and 10 not: observed 0.7, by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5, so 0.4.
    first = [1] * 20 + [1] * 5 + [0] * 10 + [0] * 15
    second = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2))
def test_kappa_is_that_of_statsmodels(pairs: list[tuple[int, int]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    kappa = cohen_kappa(first, second)
    if kappa is None:
        assert len({*first, *second}) == 1
    else:
        table = [[sum(p == (i, j) for p in pairs) for j in range(3)] for i in range(3)]
        assert kappa == pytest.approx(cohens_kappa(table, return_results=False))


@given(st.lists(st.lists(st.sampled_from(["a", "b", None]), min_size=3, max_size=3)))
def test_alpha_does_not_depend_on_who_is_called_first(units: list[list[str | None]]) -> None:
    alpha = krippendorff_alpha(units)
    turned = krippendorff_alpha([unit[::-1] for unit in units])
    assert alpha == (None if turned is None else pytest.approx(turned))
    assert alpha is None or alpha <= 1


def test_what_cannot_be_compared_has_no_agreement() -> None:
    assert krippendorff_alpha([["a", None], [None, "b"]]) is None
    assert krippendorff_alpha([["a", "a"], ["a", "a"]]) is None
    assert cohen_kappa(["a", None], [None, "a"]) is None
    assert krippendorff_alpha([["a", "a"], ["b", "b"]]) == 1
