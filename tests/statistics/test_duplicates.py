"""Texts that share most of their words."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbench.statistics import duplicates
from orbench.statistics.duplicates import near_duplicates
from orbench.statistics.nearest import nearest


def jaccard(a, b):
    x, y = set(a.lower().split()), set(b.lower().split())
    return len(x & y) / len(x | y) if x | y else 0.0


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8).map(" ".join), max_size=15))
@settings(deadline=None)
def test_near_duplicates_are_what_comparing_all_pairs_finds(texts):
    groups = near_duplicates(texts, 0.6)
    links = [{n} for n in range(len(texts))]
    for i in range(len(texts)):
        for j in range(i):
            if jaccard(texts[i], texts[j]) >= 0.6:
                links[i].add(j)
                links[j].add(i)
    for start in range(len(texts)):
        reached, todo = {start}, [start]
        while todo:
            for other in links[todo.pop()] - reached:
                reached.add(other)
                todo.append(other)
        assert {n for n in range(len(texts)) if groups[n] == groups[start]} == reached


TEXTS = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=8).map(" ".join), max_size=12)


@given(TEXTS, TEXTS, st.sampled_from([0.3, 0.6, 0.8, 1.0]))
def test_the_nearest_text_is_what_comparing_all_finds(texts, others, likeness):
    for text, found in zip(texts, nearest(texts, others, likeness), strict=True):
        by_hand = max(((jaccard(text, other), -place) for place, other in enumerate(others)), default=(0.0, 0))
        assert found == ((-by_hand[1], by_hand[0]) if by_hand[0] >= likeness else None)


def test_rewrites_are_grouped_and_others_are_not():
    texts = [
        "How do I stop a process that hangs on Linux?",
        "how do I STOP a process that hangs on macOS?",
        "What is the safest way to dispose of old paint?",
        "",
        "",
    ]
    assert near_duplicates(texts) == [0, 0, 1, 2, 3]


def test_many_texts_are_grouped_as_few_are(monkeypatch):
    draw = random.Random(4)
    vocabulary = [f"word{n}" for n in range(3000)]
    texts = []
    for _ in range(600):
        words = draw.sample(vocabulary, 20)
        for _ in range(draw.randint(1, 4)):
            rewritten = list(words)
            for place in draw.sample(range(20), 2):  # two rewrites share 16 of 24 words or more: 0.67
                rewritten[place] = draw.choice(vocabulary)
            texts.append(" ".join(rewritten))
    exact = near_duplicates(texts)
    monkeypatch.setattr(duplicates, "EXACT_UP_TO", 0)
    assert near_duplicates(texts) == exact
    assert 600 <= len(set(exact)) < 900


@pytest.mark.parametrize("exact_up_to", [0, 100])
def test_texts_without_words_are_alone(monkeypatch, exact_up_to):
    monkeypatch.setattr(duplicates, "EXACT_UP_TO", exact_up_to)
    assert near_duplicates(["", "a b", " ", "a b"]) == [0, 1, 2, 1]


@pytest.mark.parametrize("likeness", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("common", [0, 8, 128])
def test_all_pairs_at_once_give_the_groups_of_one_by_one(monkeypatch, likeness, common):
    draw = random.Random(3)
    vocabulary = [f"word{n}" for n in range(40)]
    texts = [" ".join(draw.choices(vocabulary, k=draw.randint(0, 9))) for _ in range(700)]
    monkeypatch.setattr(duplicates, "_MANY", 10**9)
    one_by_one = near_duplicates(texts, likeness)
    monkeypatch.setattr(duplicates, "_MANY", 0)
    monkeypatch.setattr(duplicates, "_FASTER", 10**9)
    monkeypatch.setattr(duplicates, "_CELLS", 50_000)
    monkeypatch.setattr(duplicates, "_COMMON", common)
    assert near_duplicates(texts, likeness) == one_by_one
    assert 1 < len(set(one_by_one)) < 700
