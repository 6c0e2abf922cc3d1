"""What is linked by a name in common is one family."""

from hypothesis import given
from hypothesis import strategies as st

from orbench.statistics.families import families


def test_every_family_is_found_through_its_links():
    seeds = ["a", "a", "b", "c", "d", "d"]
    groups = [0, 1, 1, 2, 3, 2]
    assert families([(seed,) for seed in seeds]) == [0, 0, 1, 2, 3, 3]
    assert families(zip(seeds, groups, strict=True)) == [0, 0, 0, 1, 1, 1]


def test_what_has_no_name_is_alone():
    assert families([(), ("a",), (), ("b", "a")]) == [0, 1, 2, 1]


@given(st.lists(st.lists(st.integers(0, 8), max_size=3), max_size=25))
def test_a_family_is_what_a_walk_over_shared_names_reaches(names):
    found = families(names)
    for start in range(len(names)):
        reached, todo = {start}, [start]
        while todo:
            own = set(names[todo.pop()])
            more = {other for other, theirs in enumerate(names) if own & set(theirs)} - reached
            reached |= more
            todo += more
        assert reached == {place for place, family in enumerate(found) if family == found[start]}
