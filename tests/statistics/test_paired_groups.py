"""Paired prompts in groups: against brute force, statsmodels' robust variance, and by simulation."""

from itertools import product

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orbench.statistics.paired import Pairs, mcnemar, paired_difference, tango
from orbench.statistics.paired_groups import grouped_difference, sign_flip_test


@given(st.lists(st.integers(-5, 5), max_size=9))
def test_the_sign_flip_test_is_what_flipping_every_sign_finds(nets):
    there = [net for net in nets if net]
    sums = [
        abs(sum(sign * net for sign, net in zip(signs, there, strict=True)))
        for signs in product((-1, 1), repeat=len(there))
    ]
    assert sign_flip_test(nets) == pytest.approx(np.mean([found >= abs(sum(nets)) for found in sums]))


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 4))
def test_where_all_groups_are_of_one_size_it_is_mcnemars(only_a, only_b, size):
    assert sign_flip_test([size] * only_b + [-size] * only_a) == pytest.approx(mcnemar(only_a, only_b))


@given(st.lists(st.integers(-5, 5), max_size=300), st.randoms())
def test_the_test_is_symmetric_and_knows_no_order(nets, random):
    p = sign_flip_test(nets)
    assert 0 <= p <= 1
    shuffled = [-net for net in nets]
    random.shuffle(shuffled)
    assert sign_flip_test(shuffled) == pytest.approx(p)


def test_many_groups_agree_with_the_normal_distribution():
    random = np.random.default_rng(5)
    nets = [int(net) for net in random.integers(-6, 7, 5000)]
    z = (abs(sum(nets)) - 1) / np.sqrt(sum(net * net for net in nets))
    assert sign_flip_test(nets) == pytest.approx(2 * stats.norm.sf(z), rel=0.01)


def test_a_sum_that_cannot_be_by_chance_has_a_tiny_p_value():
    assert 0 < sign_flip_test([1, 2, 3] * 1000) < 1e-25


def counted(first, second, groups):
    cells = [int(np.sum(first & second)), int(np.sum(first & ~second)), int(np.sum(~first & second))]
    net = np.bincount(groups, second.astype(int) - first.astype(int))
    return Pairs(*cells, len(first) - sum(cells)), list(zip(net.astype(int), np.bincount(groups), strict=True))


def test_the_design_effect_is_that_of_the_robust_variance():
    random = np.random.default_rng(2)
    groups = np.repeat(np.arange(40), 6)
    first = random.random(240) < np.repeat(random.beta(1, 1, 40), 6)
    second = random.random(240) < np.repeat(random.beta(1, 1, 40), 6)
    difference = second.astype(int) - first.astype(int)
    fit = sm.OLS(difference, np.ones(240)).fit(cov_type="cluster", cov_kwds={"groups": groups})
    pairs, nets = counted(first, second, groups)
    found = grouped_difference(pairs, nets)
    assert found.design_effect == pytest.approx(fit.cov_params()[0, 0] / (difference.var() / 240))
    scale = found.design_effect * (stats.t.ppf(0.975, 39) / stats.norm.ppf(0.975)) ** 2
    assert (found.low, found.high) == pytest.approx(tango(240 / scale, pairs.only_b / scale, pairs.only_a / scale))
    assert found.groups == 40


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 5)), min_size=1, max_size=60))
def test_the_interval_holds_the_estimate_and_turns_round_with_the_models(rows):
    first, second, numbers = (np.array(column) for column in zip(*rows, strict=True))
    groups = np.unique(numbers, return_inverse=True)[1]
    pairs, nets = counted(first, second, groups)
    found, other = grouped_difference(pairs, nets), grouped_difference(*counted(second, first, groups))
    assert -1 <= found.low <= (pairs.only_b - pairs.only_a) / pairs.prompts <= found.high <= 1
    assert found.low < found.high
    assert (found.low, found.high) == pytest.approx((-other.high, -other.low), abs=1e-9)
    low, high = paired_difference(pairs)
    assert high - low <= found.high - found.low + 1e-9
    assert found.design_effect >= 1


def test_the_grouped_interval_and_test_hold_where_the_plain_ones_do_not():
    random = np.random.default_rng(19)
    groups = np.repeat(np.arange(50), 5)
    covered = plain = rejected = false = 0
    for _ in range(1000):
        first = np.repeat(random.random(50) < 0.4, 5) & (random.random(250) < 0.95)
        second = np.repeat(random.random(50) < 0.4, 5) & (random.random(250) < 0.95)
        pairs, nets = counted(first, second, groups)
        found = grouped_difference(pairs, nets)
        low, high = paired_difference(pairs)
        covered += found.low <= 0 <= found.high
        plain += low <= 0 <= high
        rejected += sign_flip_test([int(net) for net, _ in nets]) < 0.05
        false += mcnemar(pairs.only_a, pairs.only_b) < 0.05
    assert covered >= 935
    assert rejected <= 65
    assert plain < 750
    assert false > 250


def test_groups_that_all_agree_count_as_one_prompt_each():
    found = grouped_difference(Pairs(0, 0, 30, 0), [(5, 5)] * 6)
    assert found.design_effect == 5
    scale = 5 * (stats.t.ppf(0.975, 5) / stats.norm.ppf(0.975)) ** 2
    assert (found.low, found.high) == pytest.approx(tango(30 / scale, 30 / scale, 0))


def test_prompts_that_all_stand_alone_have_tangos_own_interval():
    found = grouped_difference(Pairs(3, 2, 6, 9), [(1, 1)] * 6 + [(-1, 1)] * 2 + [(0, 1)] * 12)
    assert (found.low, found.high) == paired_difference(Pairs(3, 2, 6, 9))
    assert (found.groups, found.design_effect) == (20, 1.0)
