"""Agreement of two readers: against statsmodels, a published example, and by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa

from orbench.statistics.agreement import Agreement, cohen_kappa
from orbench.statistics.intervals import wilson


def agreement(a, b, c, d):
    return Agreement(both_refused=a, only_first=b, only_second=c, neither=d)


@pytest.mark.parametrize("cells", [(40, 5, 9, 46), (3, 0, 1, 90), (10, 10, 10, 10), (1, 7, 8, 2), (0, 3, 4, 0)])
def test_kappa_is_that_of_statsmodels(cells):
    a, b, c, d = cells
    ours, theirs = agreement(*cells), cohens_kappa([[a, b], [c, d]])
    assert ours.kappa == pytest.approx(theirs.kappa)
    assert ours.share == pytest.approx((a + d) / sum(cells))
    assert ours.share_interval == wilson(a + d, sum(cells))
    if a + d:
        expected = max(-1, theirs.kappa_low), min(1, theirs.kappa_upp)
        assert ours.kappa_interval == pytest.approx(expected, abs=1e-6)


def test_kappa_of_a_worked_example():
    # The grant proposals of Wikipedia's article on Cohen's kappa: 20, 5, 10 and 15 of 50, kappa 0.4.
    assert agreement(20, 5, 10, 15).kappa == pytest.approx(0.4)


def test_there_is_no_kappa_where_nothing_varies():
    assert agreement(5, 0, 0, 0).kappa is None
    assert agreement(5, 0, 0, 5).kappa == 1
    assert agreement(5, 0, 0, 5).kappa_interval is None
    assert agreement(0, 5, 5, 0).kappa == -1
    assert agreement(0, 5, 5, 0).kappa_interval is None
    for constant in ((10, 90, 0, 0), (0, 0, 90, 10), (10, 0, 7, 0), (0, 9, 0, 7)):
        assert agreement(*constant).kappa == 0
        assert agreement(*constant).kappa_interval is None
    nothing = agreement(0, 0, 0, 0)
    assert (nothing.kappa, nothing.share, nothing.share_interval, nothing.kappa_interval) == (None, None, None, None)


@given(*[st.integers(0, 60)] * 4)
def test_what_always_holds(a, b, c, d):
    found = agreement(a, b, c, d)
    if found.kappa is not None:
        assert -1 <= found.kappa <= 1
        turned, relabelled = agreement(a, c, b, d), agreement(d, c, b, a)
        assert found.kappa == pytest.approx(turned.kappa)
        assert found.kappa == pytest.approx(relabelled.kappa)
    if found.kappa_interval:
        low, high = found.kappa_interval
        assert -1 <= low <= found.kappa <= high <= 1
        assert low < high
        assert (low, high) == pytest.approx(agreement(a, c, b, d).kappa_interval, abs=1e-9)


@pytest.mark.parametrize("cells", [(0.3, 0.05, 0.05, 0.6), (0.2, 0.2, 0.1, 0.5)])
def test_the_interval_covers_the_true_kappa(cells):
    a, b, c, d = cells
    chance = (a + b) * (a + c) + (c + d) * (b + d)
    true = (a + d - chance) / (1 - chance)
    drawn = np.random.default_rng(17).multinomial(300, cells, 2000)
    intervals = [agreement(*map(int, row)).kappa_interval for row in drawn]
    assert 0.93 <= sum(low <= true <= high for low, high in intervals) / 2000 <= 0.97


def test_kappa_is_that_of_a_table_worked_by_hand() -> None:
    # 20 and 15 alike, 5 and 10 not: observed 0.7, by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5, so 0.4.
    first = [1] * 20 + [1] * 5 + [0] * 10 + [0] * 15
    second = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2))
def test_kappa_of_labels_is_that_of_statsmodels(pairs: list[tuple[int, int]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    kappa = cohen_kappa(first, second)
    if kappa is None:
        assert len({*first, *second}) == 1
    else:
        table = [[sum(p == (i, j) for p in pairs) for j in range(3)] for i in range(3)]
        assert kappa == pytest.approx(cohens_kappa(table, return_results=False))


def test_readers_who_labelled_nothing_in_common_have_no_kappa() -> None:
    assert cohen_kappa(["a", None], [None, "a"]) is None
