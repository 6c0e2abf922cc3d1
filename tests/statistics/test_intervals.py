"""Wilson's interval."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint  # type: ignore[import-untyped]

from orbench.statistics.intervals import wilson


@st.composite
def shares(draw: st.DrawFn) -> tuple[int, int]:
    trials = draw(st.integers(1, 100_000))
    return draw(st.integers(0, trials)), trials


LEVELS = st.floats(0.5, 0.999)


@given(shares(), LEVELS)
def test_it_is_that_of_statsmodels(share: tuple[int, int], level: float) -> None:
    successes, trials = share
    expected = proportion_confint(successes, trials, alpha=1 - level, method="wilson")
    assert wilson(successes, trials, level) == pytest.approx(expected, abs=1e-9)


@given(shares(), LEVELS)
def test_it_lies_between_0_and_1_and_holds_the_share(share: tuple[int, int], level: float) -> None:
    successes, trials = share
    low, high = wilson(successes, trials, level)
    assert 0 <= low <= successes / trials <= high <= 1
    assert low < high


@given(shares())
def test_successes_and_failures_mirror_each_other(share: tuple[int, int]) -> None:
    successes, trials = share
    low, high = wilson(successes, trials)
    assert wilson(trials - successes, trials) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@given(shares(), LEVELS)
def test_more_confidence_is_wider_and_more_trials_are_narrower(share: tuple[int, int], level: float) -> None:
    successes, trials = share
    low, high = wilson(successes, trials, level)
    wide_low, wide_high = wilson(successes, trials, level + (1 - level) / 2)
    assert wide_high - wide_low > high - low
    narrow_low, narrow_high = wilson(10 * successes, 10 * trials, level)
    assert narrow_high - narrow_low < high - low


@pytest.mark.parametrize("trials", [30, 127, 655, 1319])
def test_it_covers_the_truth_in_the_mean_over_all_shares_and_nowhere_fails_badly(trials: int) -> None:
    # Brown, Cai, DasGupta (2001), figures 5 and 8: close to the level in the mean, least near 0 and 1.
    successes = np.arange(trials + 1)
    ends = np.array([wilson(int(n), trials) for n in successes])
    true = np.linspace(0.0005, 0.9995, 1000)[:, None]
    inside = (ends[:, 0] <= true) & (true <= ends[:, 1])
    coverage = (stats.binom.pmf(successes, trials, true) * inside).sum(1)
    assert 0.945 <= coverage.mean() <= 0.96
    assert coverage.min() >= 0.83


def test_a_share_of_none_or_all_reaches_its_end() -> None:
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    assert wilson(0, 10)[1] == pytest.approx(0.2775, abs=5e-5)


def test_the_level_is_95_percent_by_default() -> None:
    assert wilson(410, 1310) == wilson(410, 1310, 0.95)
    assert wilson(410, 1310) == pytest.approx((0.2884, 0.3386), abs=5e-5)
