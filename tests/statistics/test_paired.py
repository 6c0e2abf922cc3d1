"""Two models on the same prompts: against statsmodels, the literature, brute force and simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportions_ztest

from orbench.statistics.paired import (
    Pairs,
    fisher_exact,
    holm,
    mcnemar,
    mean_difference,
    paired_difference,
    unpaired_difference,
    unpaired_test,
)

counts = st.integers(0, 60)
tables = st.builds(Pairs, counts, counts, counts, counts).filter(lambda pairs: pairs.prompts > 0)


@given(counts, counts)
@settings(deadline=None)
def test_mcnemar_is_the_exact_binomial_test(only_a, only_b):
    p = mcnemar(only_a, only_b)
    assert p == pytest.approx(their_mcnemar([[3, only_a], [only_b, 5]], exact=True).pvalue)
    if only_a + only_b:
        assert p == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue)
    assert p == mcnemar(only_b, only_a)


def test_mcnemar_on_a_published_table():
    # Cavo et al. (2012), complete response before and after consolidation: 6 against 16 discordant pairs; p as in
    # Fagerland, Lydersen, Laake, Statistical Analysis of Contingency Tables (2017), chapter 8.
    assert mcnemar(6, 16) == pytest.approx(0.052479, abs=1e-6)


@pytest.mark.parametrize(
    ("pairs", "low", "high"),
    [
        # The same chapter's two examples (its differences are first minus second).
        (Pairs(59, 6, 16, 80), 0.0054, 0.1240),
        (Pairs(1, 1, 7, 12), 0.026, 0.517),
    ],
)
def test_tangos_interval_on_published_tables(pairs, low, high):
    assert paired_difference(pairs) == pytest.approx((low, high), abs=6e-4 if high > 0.5 else 6e-5)


@given(tables)
@settings(max_examples=40, deadline=None)
def test_tangos_interval_inverts_the_score_test(pairs):
    """At an end the constrained likelihood, maximised by brute force, puts the data 1.96 standard errors away."""
    n = pairs.prompts
    for end in paired_difference(pairs):
        if abs(end) < 0.999:

            def loss(minus, delta=end):
                plus = minus + delta
                cells = [
                    (pairs.only_b, plus),
                    (pairs.only_a, minus),
                    (n - pairs.only_a - pairs.only_b, 1 - plus - minus),
                ]
                return -sum(k * np.log(max(p, 1e-300)) for k, p in cells if k)

            low, high = max(0.0, -end), (1 - end) / 2
            minus = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
            variance = (2 * minus + end - end**2) / n
            z = abs((pairs.only_b - pairs.only_a) / n - end) / np.sqrt(variance)
            assert z == pytest.approx(1.959964, abs=2e-3)


@given(tables)
@settings(deadline=None)
def test_the_interval_holds_the_estimate_and_turns_round_with_the_models(pairs):
    low, high = paired_difference(pairs)
    value = (pairs.only_b - pairs.only_a) / pairs.prompts
    assert -1 <= low <= value <= high <= 1
    assert low < high
    other = paired_difference(Pairs(pairs.both, pairs.only_b, pairs.only_a, pairs.neither))
    assert other == pytest.approx((-high, -low), abs=1e-9)


def test_models_that_never_differ_leave_room_for_a_difference():
    low, high = paired_difference(Pairs(50, 0, 0, 50))
    assert low == pytest.approx(-high)
    assert 0.03 < high < 0.05


@pytest.mark.parametrize("cells", [(0.3, 0.1, 0.1, 0.5), (0.9, 0.01, 0.04, 0.05), (0.2, 0.3, 0.1, 0.4)])
def test_tangos_interval_covers_the_truth(cells):
    random = np.random.default_rng(11)
    true = cells[2] - cells[1]
    drawn = random.multinomial(200, cells, 2000)
    covered = sum(low <= true <= high for low, high in (paired_difference(Pairs(*map(int, row))) for row in drawn))
    assert 0.935 <= covered / 2000 <= 0.97


def test_the_exact_test_keeps_its_level():
    random = np.random.default_rng(13)
    drawn = random.multinomial(100, (0.4, 0.1, 0.1, 0.4), 2000)
    assert sum(mcnemar(int(row[1]), int(row[2])) < 0.05 for row in drawn) / 2000 <= 0.05


proportions = st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(proportions, proportions)
@settings(deadline=None)
def test_newcombes_interval_is_statsmodels(a, b):
    low, high = unpaired_difference(*a, *b)
    theirs = confint_proportions_2indep(*b, *a, method="newcomb", compare="diff")
    assert (low, high) == pytest.approx(theirs, abs=1e-9)
    assert low <= b[0] / b[1] - a[0] / a[1] <= high


def test_newcombes_interval_on_his_example():
    # Newcombe 1998, table II, (a): 56/70 against 48/80, method 10.
    assert unpaired_difference(48, 80, 56, 70) == pytest.approx((0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize("true", [(0.13, 0.18), (0.93, 0.97), (0.5, 0.5), (0.01, 0.01)])
def test_newcombes_interval_covers_the_truth_and_the_test_keeps_its_level(true):
    random = np.random.default_rng(19)
    a, b = random.binomial(300, true[0], 2000), random.binomial(200, true[1], 2000)
    covered = rejected = 0
    for hits_a, hits_b in zip(a.tolist(), b.tolist(), strict=True):
        low, high = unpaired_difference(hits_a, 300, hits_b, 200)
        covered += low <= true[1] - true[0] <= high
        rejected += unpaired_test(hits_a, 300, hits_b, 200) < 0.05
    assert 0.94 <= covered / 2000 <= 0.99
    if true[0] == true[1]:
        assert rejected / 2000 <= 0.06


@given(proportions, proportions)
@settings(deadline=None)
def test_the_test_of_two_shares_is_statsmodels(a, b):
    p = unpaired_test(*a, *b)
    assert p == pytest.approx(unpaired_test(*b, *a))
    if 0 < a[0] + b[0] < a[1] + b[1]:
        theirs = proportions_ztest([a[0], b[0]], [a[1], b[1]])[1]
        assert p == pytest.approx(theirs, abs=1e-9)
    else:
        assert p == 1


@given(proportions, proportions)
@settings(deadline=None)
def test_fishers_test_is_scipys(a, b):
    theirs = stats.fisher_exact([[a[0], a[1] - a[0]], [b[0], b[1] - b[0]]]).pvalue
    assert fisher_exact(*a, *b) == pytest.approx(theirs, abs=1e-9)
    assert fisher_exact(*b, *a) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("cells", [(4800, 8036, 20_000, 72_323), (0, 8036, 400, 72_323), (527, 9322, 4001, 71_037)])
def test_fishers_test_holds_for_80_000_prompts(cells):
    hits_a, n_a, hits_b, n_b = cells
    theirs = stats.fisher_exact([[hits_a, n_a - hits_a], [hits_b, n_b - hits_b]]).pvalue
    assert fisher_exact(*cells) == pytest.approx(theirs, rel=1e-5, abs=1e-200)


def test_fishers_test_of_nothing_is_one():
    assert fisher_exact(0, 0, 3, 7) == 1
    assert fisher_exact(0, 5, 0, 7) == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_holm_is_statsmodels(p_values):
    adjusted = holm(p_values)
    assert adjusted == pytest.approx(list(multipletests(p_values, method="holm")[1]))
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))


def test_holm_of_nothing_is_nothing():
    assert holm([]) == []


@given(tables)
@settings(deadline=None)
def test_with_one_reply_a_prompt_the_mean_difference_is_the_paired_one(pairs):
    differences = [1.0] * pairs.only_b + [-1.0] * pairs.only_a + [0.0] * (pairs.both + pairs.neither)
    assert mean_difference(differences) == pytest.approx(paired_difference(pairs), abs=1e-9)


@pytest.mark.parametrize("all_of_them", [-1.0, 1.0])
@pytest.mark.parametrize("prompts", [1, 2, 50, 1000])
def test_the_mean_difference_stays_a_difference_where_every_prompt_flipped(all_of_them, prompts):
    low, high = mean_difference([all_of_them] * prompts)
    assert -1 <= low <= all_of_them <= high <= 1
    assert low < high


def steady_shift(random, prompts, repeat):
    own = random.beta(0.5, 0.5, prompts)  # how often each prompt is refused
    shifted = np.clip(own + 0.1, 0, 1)
    return random.binomial(repeat, shifted) / repeat - random.binomial(repeat, own) / repeat


def rare_flips(random, prompts, repeat):
    """Every repetition of a prompt goes with the first, as at temperature 0."""
    return (random.random(prompts) < 2 / prompts).astype(float)


def rare_chances(random, prompts, repeat):
    return random.binomial(repeat, 2 / prompts, prompts) / repeat


@pytest.mark.parametrize("repeat", [2, 5])
@pytest.mark.parametrize("prompts", [60, 500])
@pytest.mark.parametrize("drawn", [steady_shift, rare_flips, rare_chances])
def test_the_mean_difference_of_repeated_prompts_covers_the_truth(drawn, prompts, repeat):
    random = np.random.default_rng(17)
    truth = _TRUE_SHIFT if drawn is steady_shift else 2 / prompts
    ends = [mean_difference(list(drawn(random, prompts, repeat))) for _ in range(500)]
    assert sum(low <= truth <= high for low, high in ends) / 500 >= 0.93


def test_where_repetitions_differ_they_narrow_the_mean_difference():
    noise = [0.2, -0.2] * 50  # as of five repetitions each
    low, high = mean_difference(noise)
    wide_low, wide_high = paired_difference(Pairs(0, 10, 10, 80))  # as many flips, whole ones
    assert high - low < 0.6 * (wide_high - wide_low)


_DRAWN = np.random.default_rng(0).beta(0.5, 0.5, 2_000_000)
_TRUE_SHIFT = float((np.clip(_DRAWN + 0.1, 0, 1) - _DRAWN).mean())
