"""The interval that holds at every look."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orbench.statistics.sequence import confidence_sequence

RUNS = 2000


def looks(prompts, share, order, runs=RUNS):
    """Share of simulated runs in which the interval held the truth at every look; `order` shuffles the refusals."""
    random = np.random.default_rng(19)
    held = 0
    for _ in range(runs):
        refused = order(random)
        counts = np.cumsum(refused)
        true = counts[-1] / prompts
        held += all(
            low <= true <= high
            for n in range(1, prompts + 1)
            for low, high in [confidence_sequence(int(counts[n - 1]), n, prompts)]
        )
    return held / runs


@pytest.mark.parametrize("share", [0.05, 0.3, 0.95])
def test_it_holds_the_truth_at_every_look(share):
    prompts = 120
    base = np.arange(prompts) < round(share * prompts)
    assert looks(prompts, share, lambda random: random.permutation(base)) >= 0.95


def test_an_interval_for_one_look_would_not():
    from orbench.statistics.intervals import wilson

    random = np.random.default_rng(19)
    base = np.arange(400) < 120
    missed = 0
    for _ in range(300):
        counts = np.cumsum(random.permutation(base))
        missed += not all(low <= 0.3 <= high for n in range(5, 300) for low, high in [wilson(int(counts[n - 1]), n)])
    assert missed / 300 > 0.2


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), st.data())
def test_it_holds_exactly_the_totals_that_the_martingale_allows(sizes, data):
    prompts, asked = sizes
    refused = data.draw(st.integers(0, asked))
    low, high = confidence_sequence(refused, asked, prompts)
    allowed = [
        total
        for total in range(refused, prompts - (asked - refused) + 1)
        # The prior of `total` over its posterior is the flat prior predictive over the hypergeometric likelihood.
        if 1 / (asked + 1) / stats.hypergeom.pmf(refused, prompts, total, asked) < 20
    ]
    assert (round(low * prompts), round(high * prompts)) == (min(allowed), max(allowed))
    assert low <= refused / max(1, asked) <= high or asked == 0


def test_before_the_first_reply_nothing_is_known():
    assert confidence_sequence(0, 0, 50) == (0, 1)


def test_after_the_last_reply_everything_is_known():
    assert confidence_sequence(13, 50, 50) == (0.26, 0.26)
    assert confidence_sequence(13, 50, 50) == (0.26, 0.26)


def test_few_of_many_prompts_are_enough():
    low, high = confidence_sequence(316, 3163, 80_359)
    assert high - low <= 2 * 0.02
