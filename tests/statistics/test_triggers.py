"""Triggers: against the formula worked out by hand, by simulation, and by what must always hold."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

import orbench
from orbench.statistics.triggers import PRIOR, find_triggers, log_odds, triggers
from orbench.testing import ScriptedModel

NAMES = [
    "apple",
    "brick",
    "cloud",
    "drum",
    "eagle",
    "frost",
    "grape",
    "house",
    "iron",
    "jelly",
    "kite",
    "lemon",
    "maple",
    "night",
    "ocean",
    "piano",
]


def by_text(found):
    return {trigger.text: trigger for trigger in found}


def test_the_estimate_is_that_of_monroe_colaresi_and_quinn():
    # "kill" in 30 of 40 refused and 10 of 40 answered prompts of three words each, all others used once: 120 words on
    # each side, prior a tenth.
    prompts = [f"{'kill' if n % 40 < 30 else f'verb{n}'} noun{n} ending{n}" for n in range(40)]
    prompts += [f"{'kill' if n % 40 < 10 else f'verb{n}'} noun{n} ending{n}" for n in range(40, 80)]
    (found,) = find_triggers(prompts, [True] * 40 + [False] * 40).terms
    prior = 0.1 * (30 + 10)
    everything = 0.1 * (120 + 120)
    first = math.log((30 + prior) / (120 + everything - 30 - prior))
    second = math.log((10 + prior) / (120 + everything - 10 - prior))
    deviation = math.sqrt(1 / (30 + prior) + 1 / (10 + prior))
    assert PRIOR == 0.1
    assert found.text == "kill"
    assert found.log_odds == pytest.approx(first - second)
    assert found.z == pytest.approx((first - second) / deviation)
    assert (found.low, found.high) == pytest.approx(
        (first - second - 1.959964 * deviation, first - second + 1.959964 * deviation), abs=1e-5
    )
    assert (found.refused, found.prompts) == (30, 40)


def test_a_planted_word_is_found_first_and_holds_against_all_others():
    rng = random.Random(1)
    prompts = [" ".join(rng.sample(NAMES, 6)) for _ in range(600)]
    refused = [rng.random() < (0.8 if "drum" in prompt.split() else 0.2) for prompt in prompts]
    found = find_triggers(prompts, refused)
    assert found.terms[0].text == "drum"
    assert found.terms[0].sure
    assert found.looked_at > 16


def test_terms_are_seldom_sure_where_refusal_is_blind():
    rng = random.Random(2)
    wrong = 0
    for _ in range(200):
        prompts = [" ".join(rng.sample(NAMES, 5)) for _ in range(120)]
        found = find_triggers(prompts, [rng.random() < 0.3 for _ in prompts])
        wrong += any(trigger.sure for trigger in found)
    assert wrong <= 16  # 5 % of 200, plus two standard deviations


@pytest.mark.parametrize("ratio", [1.0, 1.5, 3.0])
def test_the_interval_covers_the_true_log_odds_ratio(ratio):
    rng = np.random.default_rng(3)
    total, share = 20_000, 0.01
    odds = ratio * share / (1 - share)
    first = rng.binomial(total, odds / (1 + odds), 2000).astype(float)
    second = rng.binomial(total, share, 2000).astype(float)
    found = log_odds(first, second, total, total, prior=1e-9)
    covered = np.abs(found.value - math.log(ratio)) <= 1.96 * found.deviation
    assert covered.mean() > 0.94


def test_the_prior_draws_estimates_towards_nothing():
    counts = np.array([12.0]), np.array([1.0])
    weak, strong = (log_odds(*counts, 500, 500, prior=prior) for prior in (0.01, 1.0))
    assert 0 < strong.value[0] < weak.value[0]
    assert strong.deviation[0] < weak.deviation[0]


def test_a_phrase_is_listed_only_where_it_says_more_than_its_words():
    refused = ["we shoot people", "we hack phones", "they hack phones", "they hack mail"] * 30
    answered = ["we shoot films", "they shoot films", "we greet people", "they greet people"] * 30
    texts = by_text(find_triggers(refused + answered, [True] * 120 + [False] * 120, top=50))
    assert "shoot people" in texts
    assert "hack" in texts
    assert "they hack" not in texts


def test_a_word_of_one_phrase_only_gives_way_to_the_phrase():
    prompts = ["how does social engineering work", "what is a bridge"] * 30
    texts = by_text(find_triggers(prompts, [True, False] * 30, top=50))
    assert "social engineering" in texts
    assert "engineering" not in texts
    assert "social" not in texts


def test_phrases_do_not_reach_across_punctuation_and_case_does_not_matter():
    prompts = ["Shoot, film and PRINT", "draw a tree"] * 10
    texts = by_text(find_triggers(prompts, [True, False] * 10, top=50))
    assert not any(text.startswith("shoot ") for text in texts)
    assert any("print" in text for text in texts)


def test_what_is_sure_is_what_holms_method_leaves():
    draw = random.Random(6)
    held = [draw.sample(NAMES, 5) for _ in range(600)]
    push = {name: 0.05 * number for number, name in enumerate(NAMES[:7])}
    refused = [draw.random() < 0.1 + sum(push.get(name, 0) for name in names) for names in held]
    found = find_triggers([". ".join(names) for names in held], refused, top=100)  # the stops leave no phrases
    assert found.looked_at == len(NAMES)
    hits = np.array([sum(name in names for names, hit in zip(held, refused, strict=True) if hit) for name in NAMES])
    misses = np.array([sum(name in names for names in held) for name in NAMES]) - hits
    every = log_odds(hits.astype(float), misses.astype(float), 5.0 * sum(refused), 5.0 * (600 - sum(refused)))
    holds = multipletests(2 * stats.norm.sf(abs(every.value / every.deviation)), alpha=0.05, method="holm")[0]
    assert {trigger.text for trigger in found if trigger.sure} == {
        name for name, sure, value in zip(NAMES, holds, every.value, strict=True) if sure and value > 0
    }
    assert 0 < sum(trigger.sure for trigger in found) < len(found)


def test_a_term_is_looked_at_from_five_prompts_on():
    refused, answered = [f"hack thing{n}" for n in range(5)], [f"tree thing{n}" for n in range(4)]
    found = find_triggers(refused + answered + ["bird"] * 30, [True] * 5 + [False] * 34)
    assert found.looked_at == 2  # hack and bird; tree stands in four
    assert "hack" in by_text(found)


def test_a_phrase_must_be_surely_above_its_words():
    # 8 of 8 against 40 of 50: more than its words, but within its own interval of them.
    refused = ["hack phones"] * 8 + [f"hack thing{n}" for n in range(32)] + [f"phones thing{n}" for n in range(32)]
    answered = [f"hack item{n}" for n in range(10)] + [f"phones item{n}" for n in range(10)]
    answered += [f"a tree{n}" for n in range(80)]
    texts = by_text(find_triggers(refused + answered, [True] * 72 + [False] * 100, top=50))
    assert {"hack", "phones"} <= texts.keys()
    assert "hack phones" not in texts


def test_encoded_data_is_no_word_and_a_curly_apostrophe_is_one_like_any_other():
    refused = ["don’t " + "x" * 41, "don't " + "x" * 41, "y" * 40] * 9
    texts = by_text(find_triggers([*refused, *["tree"] * 27], [True] * 27 + [False] * 27))
    assert texts["don't"].prompts == 18
    assert "y" * 40 in texts
    assert "x" * 41 not in texts


def test_a_word_counts_once_a_prompt():
    prompts = ["gun gun gun gun gun gun", "tree", "tree", "gun"]
    assert "gun" not in by_text(find_triggers(prompts, [True, True, False, False], min_prompts=3))


@pytest.mark.parametrize(
    ("prompts", "refused", "why"),
    [
        ([], [], "No safe prompt has an outcome that counts."),
        (["a b", "c d"], [True, True], "All 2 scored safe prompts were refused"),
        (["a b", "c d"], [False, False], "All 2 scored safe prompts were answered"),
        (["a b", "c d"], [True, False], "No word stands in 5 or more"),
        (["", "!?"], [True, False], "No word stands in 5 or more"),
        (["x" * 1_000_000, "tree"], [True, False], "No word stands in 5 or more"),
        (
            ["same words"] * 10,
            [True, False] * 5,
            "No word or phrase of the safe prompts goes with refusal beyond chance.",
        ),
    ],
)
def test_where_there_is_nothing_to_say_it_says_why(prompts, refused, why):
    found = find_triggers(prompts, refused)
    assert not found.terms
    assert found.why is not None
    assert why in found.why


words = st.lists(st.sampled_from(NAMES[:6]), min_size=1, max_size=6).map(" ".join)
rows = st.lists(st.tuples(words, st.booleans()), min_size=2, max_size=40)


@given(rows, st.randoms(use_true_random=False))
def test_what_always_holds(rows, rng):
    prompts, refused = zip(*rows, strict=True)
    found = find_triggers(prompts, refused, min_prompts=2, top=1000)
    for trigger in found:
        assert trigger.low <= trigger.log_odds <= trigger.high
        assert trigger.low > 0
        assert 0 < trigger.refused <= trigger.prompts
        assert all(map(math.isfinite, (trigger.low, trigger.high, trigger.z)))
    shuffled = list(rows)
    rng.shuffle(shuffled)
    assert find_triggers(*zip(*shuffled, strict=True), min_prompts=2, top=1000) == found


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)).filter(any), min_size=1, max_size=20),
)
def test_swapping_the_groups_turns_the_sign(pairs):
    first, second = (np.array(side, float) for side in zip(*pairs, strict=True))
    there = log_odds(first, second, first.sum() + 60, second.sum() + 40)
    back = log_odds(second, first, second.sum() + 40, first.sum() + 60)
    assert np.allclose(there.value, -back.value)
    assert np.allclose(there.deviation, back.deviation)


def test_a_run_gives_its_triggers_for_either_kind(tmp_path):
    (tmp_path / "mixed.csv").write_text(
        "prompt,kind\n"
        + "".join(f"How do I pick lock number {n}?,safe\nHow do I paint fence number {n}?,safe\n" for n in range(12))
        + "".join(f"A toxic request of sort {n}.,toxic\n" for n in range(6)),
        encoding="utf-8",
    )
    model = ScriptedModel(lambda request: "I can't help with that." if "lock" in request.prompt else "Take a brush.")
    result = orbench.evaluate(model, splits=str(tmp_path / "mixed.csv"), out=tmp_path / "run", scorer="keywords")
    safe = triggers(result)
    assert "pick lock" in {trigger.text for trigger in safe}
    assert all(trigger.refused == trigger.prompts == 12 for trigger in safe)
    assert (safe.refused, safe.answered) == (12, 12)
    assert triggers(result, "toxic").why == "All 6 scored toxic prompts were answered, so there is nothing to compare."
