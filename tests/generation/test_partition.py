"""Train and test without a seed on both sides."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbench.errors import UsageError
from orbench.generation.partition import partition

ROWS = st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(0, 30)), min_size=2, max_size=60)


@given(ROWS, st.floats(0.05, 0.95), st.integers(0, 5))
def test_no_seed_and_no_group_is_on_both_sides(rows, test_share, seed):
    seeds, groups = zip(*rows, strict=True)
    try:
        sides = partition(seeds, groups, test_share=test_share, seed=seed)
    except UsageError:
        return
    assert set(sides) == {"train", "test"}
    assert abs(sides.count("test") - test_share * len(rows)) <= max(1, 0.05 * len(rows))
    for keys in (seeds, groups):
        side_of = {}
        for key, side in zip(keys, sides, strict=True):
            assert side_of.setdefault(key, side) == side


@given(ROWS, st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_order_of_the_prompts_does_not_matter(rows, seed, draw):
    places = list(range(len(rows)))
    draw.shuffle(places)

    def sides(rows):
        try:
            return partition(*zip(*rows, strict=True), test_share=0.3, seed=seed)
        except UsageError as error:
            return str(error)

    straight, shuffled = sides(rows), sides([rows[place] for place in places])
    assert shuffled == (straight if isinstance(straight, str) else [straight[place] for place in places])


def test_the_seed_draws_the_sides_and_the_share_is_kept():
    seeds = [f"seed-{n // 4}" for n in range(400)]
    sides = partition(seeds, test_share=0.25, seed=1)
    assert sides == partition(seeds, test_share=0.25, seed=1)
    assert sides != partition(seeds, test_share=0.25, seed=2)
    assert sides.count("test") == 100


SIZES = st.lists(st.integers(1, 12), min_size=2, max_size=9)


@given(SIZES, st.floats(0.05, 0.95), st.integers(0, 3))
def test_it_is_parted_whenever_it_can_be(sizes, test_share, seed):
    seeds = [f"seed-{number}" for number, size in enumerate(sizes) for _ in range(size)]
    sums = {sum(some) for n in range(1, len(sizes)) for some in itertools.combinations(sizes, n)}
    off = min(abs(each - test_share * len(seeds)) for each in sums)
    try:
        partition(seeds, test_share=test_share, seed=seed)
    except UsageError:
        assert off > max(1, 0.05 * len(seeds)) - 1e-9
    else:
        assert off <= max(1, 0.05 * len(seeds))


def test_large_families_are_put_together_for_every_seed():
    seeds = ["a"] * 7 + ["b"] * 6 + ["c"] * 3
    for seed in range(200):
        assert partition(seeds, test_share=0.5, seed=seed).count("test") in (7, 9)


def test_a_set_that_grows_keeps_most_of_its_sides():
    draw = random.Random(0)
    seeds = [f"seed-{draw.randrange(300)}" for _ in range(1000)]
    before = partition(seeds[:900], test_share=0.2)
    after = partition(seeds, test_share=0.2)[:900]
    assert sum(one != other for one, other in zip(before, after, strict=True)) < 50


@pytest.mark.parametrize(
    ("seeds", "share", "message"),
    [
        (["a"] * 10, 0.1, "1 family"),
        ([], 0.1, "0 families"),
        (["a"] * 9 + ["b"], 0.5, r"nearest is 0\.10.*family of 9"),
        (["a"] * 50 + ["b"] * 50, 0.1, r"nearest is 0\.50"),
    ],
)
def test_what_cannot_be_parted_is_said_loudly(seeds, share, message):
    with pytest.raises(UsageError, match=message):
        partition(seeds, test_share=share)


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_a_share_that_is_none_is_wrong_usage(share):
    with pytest.raises(UsageError, match="test_share"):
        partition(["a", "b"], test_share=share)
