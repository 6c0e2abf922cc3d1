"""Prompts that belong together: against statsmodels' robust variance, and by simulation."""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from orbench.statistics.clusters import clustered_rate
from orbench.statistics.intervals import wilson


def test_without_groups_it_is_wilsons_interval():
    found = clustered_rate([1] * 30 + [0] * 70, range(100))
    assert (found.low, found.high) == wilson(30, 100)
    assert (found.design_effect, found.clusters, found.prompts) == (1.0, 100, 100)


def test_the_design_effect_is_that_of_the_robust_variance():
    random = np.random.default_rng(2)
    groups = np.repeat(np.arange(40), 6)
    refused = (random.random(240) < np.repeat(random.beta(1, 1, 40), 6)).astype(int)
    fit = sm.OLS(refused, np.ones(240)).fit(cov_type="cluster", cov_kwds={"groups": groups})
    share = refused.mean()
    found = clustered_rate(list(refused), list(groups))
    assert found.design_effect == pytest.approx(fit.cov_params()[0, 0] / (share * (1 - share) / 240))
    assert found.value == pytest.approx(share)
    effective = 240 / found.design_effect / (stats.t.ppf(0.975, 39) / stats.norm.ppf(0.975)) ** 2
    assert (found.low, found.high) == pytest.approx(wilson(share * effective, effective))


def coverage(copies, runs=1500):
    """How often the grouped and the plain interval hold the truth where groups answer alike."""
    random = np.random.default_rng(7)
    hits = plain = 0
    for _ in range(runs):
        refused = np.repeat(random.random(60) < 0.3, copies)
        found = clustered_rate(list(refused), list(np.repeat(np.arange(60), copies)))
        hits += found.low <= 0.3 <= found.high
        low, high = wilson(int(refused.sum()), len(refused))
        plain += low <= 0.3 <= high
    return hits / runs, plain / runs


def test_the_grouped_interval_covers_the_truth_where_the_plain_one_does_not():
    grouped, plain = coverage(5)
    assert grouped >= 0.935
    assert plain < 0.75


@pytest.mark.parametrize("refused", [0, 1])
def test_groups_that_all_agree_count_as_one_prompt_each(refused):
    found = clustered_rate([refused] * 50, [n // 5 for n in range(50)])
    assert found.design_effect == 5
    low, high = wilson(10 * refused, 10)
    assert found.low <= low + 1e-12
    assert found.high >= high - 1e-12


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=40), st.randoms())
@settings(deadline=None)
def test_the_interval_holds_the_estimate_and_the_order_of_rows_is_irrelevant(rows, random):
    found = clustered_rate([hit for hit, _ in rows], [group for _, group in rows])
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.design_effect >= 1
    random.shuffle(rows)
    again = clustered_rate([hit for hit, _ in rows], [group for _, group in rows])
    assert (again.low, again.high) == pytest.approx((found.low, found.high))
