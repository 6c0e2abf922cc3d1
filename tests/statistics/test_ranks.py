"""Ranks that the data allow."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from orbench.statistics.paired import holm, unpaired_test
from orbench.statistics.ranks import ranks


def apart(values, gap):
    return [[abs(a - b) > gap for b in values] for a in values]


def test_models_that_all_differ_have_one_rank_each():
    found = ranks([0.1, 0.5, 0.3], apart([0.1, 0.5, 0.3], 0.05), smallest_first=True)
    assert [(rank.rank, rank.low, rank.high) for rank in found] == [(1, 1, 1), (3, 3, 3), (2, 2, 2)]
    assert [rank.groups for rank in found] == [(1,), (3,), (2,)]


def test_models_that_cannot_be_told_apart_share_all_ranks():
    found = ranks([0.1, 0.5, 0.3], apart([0.1, 0.5, 0.3], 9), smallest_first=True)
    assert {(rank.low, rank.high) for rank in found} == {(1, 3)}
    assert {rank.groups for rank in found} == {(1,)}


def test_a_model_may_belong_to_two_groups():
    values = [0.1, 0.2, 0.3]
    found = ranks(values, apart(values, 0.15), smallest_first=True)
    assert [rank.groups for rank in found] == [(1,), (1, 2), (2,)]
    assert [(rank.low, rank.high) for rank in found] == [(1, 2), (1, 3), (2, 3)]


def test_the_largest_is_first_where_it_is_best():
    found = ranks([0.9, 0.2], apart([0.9, 0.2], 0.1), smallest_first=False)
    assert [rank.rank for rank in found] == [1, 2]


def test_equal_estimates_share_the_better_rank():
    found = ranks([0.4, 0.4, 0.1], apart([0.4, 0.4, 0.1], 0.1), smallest_first=True)
    assert [rank.rank for rank in found] == [2, 2, 1]


@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0, 1))
def test_a_rank_lies_within_its_interval(values, gap):
    for rank in ranks(values, apart(values, gap), smallest_first=True):
        assert 1 <= rank.low <= rank.rank <= rank.high <= len(values)
        assert rank.groups


def test_all_intervals_hold_the_true_ranks_at_once():
    random = np.random.default_rng(1)
    true = [0.05, 0.1, 0.12, 0.3, 0.31, 0.6]
    covered = 0
    for _ in range(1000):
        hits = random.binomial(300, true)
        p = [unpaired_test(int(hits[i]), 300, int(hits[j]), 300) for i, j in itertools.combinations(range(6), 2)]
        differ = [[False] * 6 for _ in range(6)]
        for (i, j), value in zip(itertools.combinations(range(6), 2), holm(p), strict=True):
            differ[i][j] = differ[j][i] = value < 0.05
        found = ranks([hit / 300 for hit in hits], differ, smallest_first=True)
        covered += all(rank.low <= n + 1 <= rank.high for n, rank in enumerate(found))
    assert covered / 1000 >= 0.95


def test_what_is_not_known_makes_no_group_and_shuts_out_no_rank():
    differ = [[False, None, True], [None, False, True], [True, True, False]]
    found = ranks([0.1, 0.2, 0.9], differ, smallest_first=True)
    assert [rank.groups for rank in found] == [(1,), (2,), (3,)]
    assert [(rank.low, rank.high) for rank in found] == [(1, 2), (1, 2), (3, 3)]
