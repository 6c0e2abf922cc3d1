"""The most alike text of another set, against a comparison of every pair."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbench.statistics.nearest import nearest

TEXTS = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=7).map(" ".join), max_size=12)


def by_hand(texts, others, likeness):
    found = []
    for text in texts:
        one = set(text.split())
        alike = [
            (len(one & two) / len(one | two), -place)
            for place, two in enumerate(set(other.split()) for other in others)
            if one and two
        ]
        best = max(alike, default=(0.0, 0))
        found.append((-best[1], best[0]) if best[0] >= likeness else None)
    return found


@pytest.mark.parametrize("apart", [0, 2000])  # few others are compared all at once, many by their rare words
@given(texts=TEXTS, others=TEXTS, likeness=st.sampled_from([0.3, 0.5, 0.6, 2 / 3, 1.0]))
def test_no_pair_is_missed_and_the_first_of_equals_is_named(apart, texts, others, likeness):
    others = [*others, *(f"x{number}" for number in range(apart))]
    assert nearest(texts, others, likeness) == by_hand(texts, others, likeness)
