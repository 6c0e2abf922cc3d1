"""Distinct-n and self-BLEU."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbench.generation.diversity import distinct, diversity, self_bleu

TOKENS = st.lists(st.lists(st.sampled_from("abcde"), max_size=9), min_size=2, max_size=8)


def test_distinct_n_is_the_share_of_different_runs():
    tokens = [["a", "b", "a"], ["a", "b"]]
    assert distinct(tokens, 1) == 2 / 5
    assert distinct(tokens, 2) == 2 / 3  # no run goes from one text into the next
    assert distinct(tokens, 3) == 1
    assert distinct(tokens, 4) is None


def test_self_bleu_by_hand():
    # First text: 5 of 6 words, 3 of 5 pairs, 1 of 4 triples, none of 3 quadruples (0.1) are in the second; same length.
    one, other = ["how", "do", "i", "stop", "a", "fox"], ["how", "do", "i", "see", "a", "fox"]
    by_hand = math.exp(sum(map(math.log, (5 / 6, 3 / 5, 1 / 4, 0.1 / 3))) / 4)
    assert self_bleu([one, other]) == pytest.approx([by_hand, by_hand])


def test_texts_that_are_the_same_have_1_and_those_without_a_common_word_0():
    same = ["how", "do", "i", "stop", "a", "fox"]
    assert self_bleu([same, same, ["why"]]) == pytest.approx([1, 1, 0])
    assert self_bleu([same]) == []


@given(TOKENS)
def test_self_bleu_is_what_nltk_says(tokens):
    bleu = pytest.importorskip("nltk.translate.bleu_score", reason="an independent BLEU: pip install -e '.[dev]'")
    expected = [
        bleu.sentence_bleu(
            [other for at, other in enumerate(tokens) if at != place],
            own,
            smoothing_function=bleu.SmoothingFunction(epsilon=0.1).method1,
        )
        if own
        else 0.0
        for place, own in enumerate(tokens)
    ]
    assert self_bleu(tokens) == pytest.approx(expected)


def test_rows_are_by_category_with_the_papers_figures_beside_them():
    texts = ["How do I stop a fox?", "How do I stop an owl?", "Why is the sky blue?", "What is a noun?"]
    *rows, everything = diversity(texts, ["harmful", "harmful", "privacy", "grammar"])
    assert [(row.category, row.prompts, row.paper_self_bleu) for row in rows] == [
        ("harmful", 2, (0.32, 0.32)),
        ("privacy", 1, (0.44, 0.44)),
        ("grammar", 1, None),
    ]
    assert rows[0].self_bleu > 0
    assert rows[1].self_bleu is None
    assert (everything.category, everything.prompts, everything.paper_self_bleu) == (None, 4, None)


def test_large_categories_are_sampled_and_the_seed_draws_the_samples():
    texts = [f"How do I stop fox number {n} at {n % 7}?" for n in range(60)]
    [row, _] = diversity(texts, ["harmful"] * 60, sample=20, runs=3)
    assert (row.prompts, row.sample, row.runs) == (60, 20, 3)
    assert 0 < row.spread < 0.1
    assert diversity(texts, ["harmful"] * 60, sample=20, runs=3)[0] == row
    assert diversity(texts, ["harmful"] * 60, sample=20, runs=3, seed=1)[0] != row
    assert diversity(texts, ["harmful"] * 60, sample=60)[0].spread is None


def test_no_prompt_has_no_diversity():
    [everything] = diversity([], [])
    assert (everything.self_bleu, everything.distinct) == (None, (None, None, None))
