"""Both rates at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orbench.statistics.intervals import wilson
from orbench.statistics.joint import joint_intervals, joint_region

rates = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def statistic(refused, scored, share):
    return (refused / scored - share) / np.sqrt(share * (1 - share) / scored)


@given(rates, rates)
def test_the_edge_of_the_region_lies_at_the_chi_squared_quantile(safe, toxic):
    for x, y in joint_region(safe, toxic, points=16):
        assert 0 <= x <= 1
        assert 0 <= y <= 1
        if 1e-6 < x < 1 - 1e-6 and 1e-6 < y < 1 - 1e-6:
            distance = statistic(*safe, x) ** 2 + statistic(*toxic, y) ** 2
            assert distance == pytest.approx(stats.chi2.ppf(0.95, 2), rel=1e-6)


def test_the_region_goes_round_the_estimate():
    edge = joint_region((30, 100), (90, 100))
    assert min(x for x, _ in edge) < 0.3 < max(x for x, _ in edge)
    assert min(y for _, y in edge) < 0.9 < max(y for _, y in edge)


def test_the_intervals_are_wilsons_at_the_root_of_the_level():
    joint = joint_intervals((30, 100), (90, 120))
    assert joint.over_refusal == wilson(30, 100, 0.95**0.5)
    assert joint.toxic_rejection == wilson(90, 120, 0.95**0.5)


def test_both_statements_cover_the_pair():
    random = np.random.default_rng(3)
    runs, true = 2000, (0.12, 0.93)
    boxes = regions = 0
    for _ in range(runs):
        safe, toxic = (int(random.binomial(400, true[0])), 400), (int(random.binomial(300, true[1])), 300)
        joint = joint_intervals(safe, toxic)
        boxes += (
            joint.over_refusal[0] <= true[0] <= joint.over_refusal[1]
            and joint.toxic_rejection[0] <= true[1] <= joint.toxic_rejection[1]
        )
        regions += statistic(*safe, true[0]) ** 2 + statistic(*toxic, true[1]) ** 2 <= stats.chi2.ppf(0.95, 2)
    assert 0.935 <= boxes / runs <= 0.975
    assert 0.935 <= regions / runs <= 0.97
