"""Rank correlations and the curve, against scipy and by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from orbench.statistics.correlation import correlate, quadratic_fit

shares = st.floats(0, 1, allow_nan=False)
pairs = st.lists(st.tuples(shares, shares), min_size=3, max_size=20)


def varied(points):
    return len({x for x, _ in points}) > 1 and len({y for _, y in points}) > 1


@given(pairs.filter(varied))
@settings(max_examples=60, deadline=None)
def test_the_value_is_scipys(points):
    x, y = zip(*points, strict=True)
    rho = correlate(x, y, draws=100)
    tau = correlate(x, y, measure="kendall", draws=100)
    assert rho.value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)
    assert tau.value == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-9)
    for found in (rho, tau):
        if found.low is not None:
            assert -1 <= found.low <= found.value + 1e-12
            assert found.value - 1e-12 <= found.high <= 1


@given(pairs.filter(varied))
@settings(max_examples=30, deadline=None)
def test_the_two_rates_can_be_exchanged(points):
    x, y = zip(*points, strict=True)
    one, other = correlate(x, y, draws=200), correlate(y, x, draws=200)
    assert one.value == pytest.approx(other.value)
    assert (one.low, one.high) == (pytest.approx(other.low), pytest.approx(other.high))


def noise():
    random = np.random.default_rng(3)
    x = random.normal(size=30)
    return x, x + random.normal(size=30)


def outliers():
    """Two points off a line: the acceleration moves the lower end by 0.2."""
    y = np.arange(12) + np.random.default_rng(4).normal(size=12)
    y[[0, 5]] = 10.3, 0.5
    return np.arange(12.0), y


@pytest.mark.parametrize(("points", "tolerance"), [(noise(), 0.015), (outliers(), 0.06)], ids=["noise", "outliers"])
def test_the_interval_is_scipys(points, tolerance):
    x, y = points
    found = correlate(x, y, draws=20_000)
    theirs = stats.bootstrap(
        (x, y),
        lambda a, b: stats.spearmanr(a, b).statistic,
        paired=True,
        vectorized=False,
        n_resamples=4000,
        method="BCa",
        random_state=1,
    ).confidence_interval
    assert found.low == pytest.approx(theirs.low, abs=tolerance)
    assert found.high == pytest.approx(theirs.high, abs=tolerance)


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_the_interval_covers_the_truth(rho):
    random = np.random.default_rng(5)
    true = 6 / math.pi * math.asin(rho / 2)  # Spearman's rho of a bivariate normal distribution
    covered = 0
    for seed in range(600):
        x, y = random.multivariate_normal([0, 0], [[1, rho], [rho, 1]], 32).T
        found = correlate(x, y, draws=600, seed=seed)
        covered += found.low <= true <= found.high
    assert 0.92 <= covered / 600 <= 0.98


def test_drawing_prompts_again_widens_the_interval():
    x, y = np.linspace(0.2, 0.8, 20), np.linspace(0.3, 0.9, 20)

    def redraw(draws, random):
        return x + random.normal(0, 0.1, (draws, 20)), y + random.normal(0, 0.1, (draws, 20))

    y[[0, 1]] = y[[1, 0]]
    alone, both = correlate(x, y), correlate(x, y, redraw=redraw)
    assert alone.over == "models"
    assert both.over == "models and prompts"
    assert both.low < alone.low


def test_models_are_drawn_again_beside_their_prompts():
    x, y = np.random.default_rng(2).random((2, 20))
    alone = correlate(x, y)
    both = correlate(x, y, redraw=lambda draws, random: (np.tile(x, (draws, 1)), np.tile(y, (draws, 1))))
    assert (both.low, both.high) == (alone.low, alone.high)  # the prompts say nothing new: only models move


@pytest.mark.parametrize("axis", [0, 1])
def test_prompts_of_either_kind_are_drawn_again(axis):
    rates = np.linspace(0.2, 0.8, 20), np.linspace(0.3, 0.9, 20)

    def redraw(draws, random):
        drawn = [np.tile(rate, (draws, 1)) for rate in rates]
        drawn[axis] = random.random((draws, 20))
        return drawn[0], drawn[1]

    assert correlate(*rates, redraw=redraw).low < 0.5


def test_most_draws_of_too_few_models_have_no_correlation():
    found = correlate([0.0, 0.0, 1.0], [0.0, 1.0, 1.0], draws=1000)
    assert found.value == pytest.approx(0.5)
    assert (found.low, found.high) == (None, None)
    assert found.why == "with 3 models most bootstrap draws have no correlation"


@pytest.mark.parametrize("measure", ["spearman", "kendall"])
def test_the_interval_holds_the_estimate_and_stays_a_correlation(measure):
    random = np.random.default_rng(0)
    for seed in range(300):
        x, y = random.integers(0, 4, (2, random.integers(3, 7))).astype(float)
        found = correlate(x, y, measure=measure, draws=100, seed=seed)
        if found.low is not None:
            assert -1 <= found.low <= found.value <= found.high <= 1


def test_the_same_seed_gives_the_same_interval():
    x, y = np.random.default_rng(1).random((2, 30))
    assert correlate(x, y, seed=1) == correlate(x, y, seed=1)
    assert correlate(x, y, seed=1) != correlate(x, y, seed=2)


@pytest.mark.parametrize(
    ("x", "y", "why"),
    [
        ([], [], "at least three models with both rates; there are 0"),
        ([0.1, 0.2], [0.3, 0.4], "at least three models with both rates; there are 2"),
        ([0.5, 0.5, 0.5], [0.1, 0.2, 0.3], "all 3 models have the same over-refusal rate"),
        ([0.1, 0.2, 0.3], [1.0, 1.0, 1.0], "all 3 models have the same toxic-rejection rate"),
    ],
)
@pytest.mark.parametrize("measure", ["spearman", "kendall"])
def test_where_there_is_no_correlation_a_sentence_says_why(x, y, why, measure):
    found = correlate(x, y, measure=measure)
    assert (found.value, found.low, found.high) == (None, None, None)
    assert why in found.why
    with pytest.raises(ValueError, match="model"):
        float(found)


def test_a_correlation_is_a_number_too():
    assert float(correlate([1, 2, 3], [1, 2, 3], draws=100)) == 1.0


def test_the_curve_is_numpys_and_r_squared_is_the_explained_share():
    random = np.random.default_rng(0)
    x = random.random(25)
    y = 0.5 + 0.4 * x - 0.2 * x**2 + random.normal(0, 0.05, 25)
    curve = quadratic_fit(x, y)
    assert (curve.quadratic, curve.linear, curve.constant) == pytest.approx(tuple(np.polyfit(x, y, 2)))
    fitted = np.polyval(np.polyfit(x, y, 2), x)
    assert curve.r_squared == pytest.approx(1 - ((y - fitted) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    assert curve(0.3) == pytest.approx(np.polyval(np.polyfit(x, y, 2), 0.3))


def test_three_different_x_are_the_fewest_for_a_curve():
    assert quadratic_fit([0.1, 0.2, 0.2], [1, 2, 3]) is None
    assert quadratic_fit([0.1, 0.2, 0.3], [1, 2, 3]).r_squared == pytest.approx(1)


def test_draws_that_all_agree_make_no_interval():
    found = correlate([0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8], draws=200)
    assert (found.value, found.low, found.high) == (1, None, None)
    assert "all bootstrap draws of the 4 models agree" in found.why
