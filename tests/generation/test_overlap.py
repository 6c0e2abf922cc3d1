"""Overlap of a set with another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbench.errors import UsageError
from orbench.generation.overlap import Overlap, counts, overlap

FOX = "How do I keep a hungry fox out of my garden at night without hurting it?"


def test_the_nearest_come_first_and_say_how_near():
    others = ["What is a noun?", FOX]
    prompts = [
        "Why is the sky blue?",
        "Tell me: how do I keep a hungry fox out of the chicken house of a friend who lives far away from us",
        FOX.replace("hungry", "young"),
        FOX.upper().replace("?", "!"),
    ]
    found = overlap(prompts, others)
    assert [(each.prompt, each.other, each.how) for each in found] == [
        (3, 1, "exact"),
        (2, 1, "near"),
        (1, 1, "run of words"),
    ]
    assert [(each.likeness, each.run) for each in found[:2]] == [(1, 16), (15 / 17, 10)]
    assert found[2].run == 9
    assert counts(found) == {"exact": 1, "near": 1, "run of words": 1}


def test_thresholds_decide_what_counts():
    prompts = [FOX.replace("hungry", "young")]
    assert overlap(prompts, [FOX], likeness=0.95) == [
        Overlap(prompt=0, other=0, how="run of words", likeness=15 / 17, run=10)
    ]
    assert overlap(prompts, [FOX], likeness=0.95, run=11) == []


def test_the_longest_run_wins_and_of_equals_the_first():
    prompt = "one two three four five six seven eight nine"
    others = [
        "aa bb cc dd ee ff gg hh ii two three four five six seven eight nine",
        "aa bb cc dd ee ff gg hh ii jj one two three four five six seven eight nine",
        "zz bb cc dd ee ff gg hh ii jj one two three four five six seven eight nine",
    ]
    [found] = overlap([prompt], others)
    assert (found.other, found.run) == (1, 9)


def test_sets_without_common_prompts_do_not_overlap():
    assert overlap(["Why is the sky blue?"], ["What is a noun?"]) == []
    assert overlap([], [FOX]) == overlap([FOX], []) == []


def test_sentences_without_blanks_overlap_too():
    cat = "ノートパソコンで動かなくなったプロセスを安全に終了するにはどうすればよいですか"
    [found] = overlap([cat.replace("安全", "確実")], [cat])
    assert found.how == "near"


@given(st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=7).map(" ".join), max_size=8))
def test_a_set_overlaps_wholly_with_itself(texts):
    found = overlap(texts, texts)
    assert sorted(each.prompt for each in found) == list(range(len(texts)))
    assert {each.how for each in found} <= {"exact"}


@pytest.mark.parametrize("options", [{"likeness": 0}, {"likeness": 1.1}, {"run": 1}])
def test_thresholds_out_of_range_are_wrong_usage(options):
    with pytest.raises(UsageError):
        overlap([FOX], [FOX], **options)


TEXTS = st.lists(st.lists(st.sampled_from("abc"), max_size=8).map(" ".join), max_size=6)


@given(TEXTS, TEXTS, st.integers(2, 4))
def test_the_longest_run_is_that_of_a_search_over_all(texts, others, run):
    def longest(one, other):
        one, other = one.split(), other.split()
        return max(
            (n for n in range(run, len(one) + 1) for at in range(len(one) - n + 1) for to in range(len(other) - n + 1)
             if one[at : at + n] == other[to : to + n]),
            default=0,
        )  # fmt: skip

    found = {each.prompt: each for each in overlap(texts, others, likeness=1, run=run)}
    for place, text in enumerate(texts):
        lengths = [longest(text, other) for other in others]
        if place not in found:
            assert not any(lengths)
        elif found[place].how == "run of words":
            assert found[place].run == max(lengths)
            assert found[place].other == lengths.index(max(lengths))
