"""`--limit`: a smaller set in the proportions of the whole."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbench.errors import UsageError
from orbench.records import Prompt
from orbench.splits import load_split, load_splits
from orbench.splits.sampling import sample

STRATA = st.lists(
    st.tuples(st.sampled_from(["safe", "toxic"]), st.sampled_from(["hate", "privacy", "sexual", "mine"])), min_size=1
)


def prompts(strata: list[tuple[str, str]]) -> list[Prompt]:
    return [
        Prompt(id=f"id-{number}", text=f"text {number}", category=category, kind=kind, split="x")  # type: ignore[arg-type]
        for number, (kind, category) in enumerate(strata)
    ]


def stratum(prompt: Prompt) -> tuple[str, str]:
    return (prompt.kind, prompt.category)


@given(STRATA, st.integers(1, 200), st.integers())
def test_each_kind_and_category_keeps_its_share(strata: list[tuple[str, str]], limit: int, seed: int) -> None:
    whole = prompts(strata)
    drawn = sample(whole, limit, seed)
    assert len(drawn) == min(limit, len(whole))
    assert drawn == sorted(set(drawn), key=whole.index)  # each once, in the order of the file
    counts = Counter(map(stratum, drawn))
    for key, there in Counter(map(stratum, whole)).items():
        assert counts[key] <= there
    kinds = Counter(prompt.kind for prompt in drawn)
    for kind, size in Counter(prompt.kind for prompt in whole).items():
        share = len(drawn) * size / len(whole)
        assert abs(kinds[kind] - share) < 1 or (kinds[kind] == 1 > share) or 1 in kinds.values()
        assert kinds[kind] or limit == 1
        for category in {prompt.category for prompt in whole if prompt.kind == kind}:
            there = sum(stratum(prompt) == (kind, category) for prompt in whole)
            assert abs(counts[kind, category] - kinds[kind] * there / size) < 1


def test_shares_are_rounded_by_largest_remainder() -> None:
    whole = prompts([("safe", "hate")] * 5 + [("safe", "privacy")] * 2 + [("toxic", "hate")] * 3)
    drawn = Counter(map(stratum, sample(whole, 4)))  # shares 2.8 and 1.2; of the 3 safe ones 2.1 and 0.9
    assert drawn == {("safe", "hate"): 2, ("safe", "privacy"): 1, ("toxic", "hate"): 1}


def test_a_kind_is_not_rounded_away() -> None:
    whole = prompts([("safe", "hate")] * 90 + [("toxic", "hate")])
    assert Counter(map(stratum, sample(whole, 2))) == {("safe", "hate"): 1, ("toxic", "hate"): 1}


@given(STRATA, st.integers(1, 50), st.integers(0, 50), st.integers(0, 9))
def test_a_larger_sample_goes_on_from_a_smaller_one(
    strata: list[tuple[str, str]], limit: int, more: int, seed: int
) -> None:
    whole = prompts(strata)
    small, large = set(sample(whole, limit, seed)), set(sample(whole, limit + more, seed))
    for key in set(map(stratum, whole)):
        one, other = ({prompt for prompt in drawn if stratum(prompt) == key} for drawn in (small, large))
        assert one <= other or other <= one


@given(STRATA, st.integers(1, 50), st.randoms())
def test_the_order_of_the_file_does_not_change_what_is_drawn(
    strata: list[tuple[str, str]], limit: int, shuffler: random.Random
) -> None:
    whole = prompts(strata)
    shuffled = list(whole)
    shuffler.shuffle(shuffled)
    assert set(sample(whole, limit, 3)) == set(sample(shuffled, limit, 3))


def test_the_same_seed_draws_the_same_prompts_everywhere() -> None:
    whole = prompts([("safe", "hate")] * 60 + [("safe", "privacy")] * 30 + [("toxic", "hate")] * 10)
    drawn = [int(prompt.id.removeprefix("id-")) for prompt in sample(whole, 10, seed=0)]
    assert drawn == [14, 21, 41, 43, 44, 55, 70, 72, 79, 94]
    assert sample(whole, 10, seed=0) != sample(whole, 10, seed=1)


def test_a_limit_holds_for_both_kinds_of_a_source_together(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    rows = [{"prompt": f"p{n}", "kind": "toxic" if n % 4 == 0 else "safe", "category": "hate"} for n in range(80)]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert [(split.name, len(split)) for split in load_splits([path], limit=8)] == [("mine/safe", 6), ("mine/toxic", 2)]
    assert [(split.name, len(split)) for split in load_splits([f"{path}/toxic"], limit=8)] == [("mine/toxic", 8)]
    assert load_split(path, limit=8, seed=1).fingerprint == load_split(path, limit=8, seed=1).fingerprint
    assert load_split(path, limit=8, seed=1).fingerprint != load_split(path, limit=8, seed=2).fingerprint


def test_a_limit_beyond_the_file_takes_all_of_it() -> None:
    whole = load_split("sample")
    assert list(load_split("sample", limit=len(whole))) == list(load_split("sample", limit=10**9)) == list(whole)


@pytest.mark.parametrize("limit", [0, -5])
def test_a_limit_below_one_is_wrong_usage(limit: int) -> None:
    with pytest.raises(UsageError, match=f"at least 1 prompt, not {limit}"):
        load_splits(["sample"], limit=limit)
    with pytest.raises(UsageError):
        load_split("safe=none.csv", limit=limit)  # before anything is read or loaded
    with pytest.raises(UsageError):
        sample(prompts([("safe", "hate")]), limit)
