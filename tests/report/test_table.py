"""The table that people read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orbench import Evaluation
from orbench.records import Kind
from orbench.report.table import WIDTH, columns, evaluation_table, shorten
from orbench.run_state import RowState, RunState
from orbench.scoring.outcomes import Outcome, Policy

Counts = Mapping[str, int]
LONG = "a-category-of-our-own-with-a-name-that-does-not-end-before-the-line-does"


def evaluation(
    splits: Mapping[tuple[str, Kind], Mapping[str, Counts]],
    *,
    model: str = "openai/gpt-4o-mini",
    judge: str | None = None,
    open_prompts: int = 0,
    policy: Policy = "default",
    failed_judgements: bool = False,
    unsure: bool = False,
) -> Evaluation:
    """A result with so many outcomes for each split and category."""
    rows: dict[tuple[str, str], RowState] = {}
    config: list[dict[str, Any]] = []
    for (name, kind), categories in splits.items():
        for category, outcomes in categories.items():
            for outcome, count in outcomes.items():
                row = RowState(
                    kind=kind,
                    category=category,
                    failed=outcome == "error",
                    outcome=Outcome(outcome),
                    judge_failed=failed_judgements and outcome == "unscored",
                    unsure=unsure and outcome == "unscored",
                    scorer="d",
                )
                rows |= {(name, f"{category} {outcome} {number}"): row for number in range(count)}
        asked = sum(sum(outcomes.values()) for outcomes in categories.values())
        config.append(
            {
                "name": name,
                "kind": kind,
                "fingerprint": "f" * 64,
                "prompts": asked + open_prompts,
                "categories": list(categories),
            }
        )
    run = {"model": model, "splits": config, "scorer": {"name": "cascade", "digest": "d", "judge": judge}}
    return Evaluation(Path("runs/one"), run, RunState(rows, {}, {}), policy)


USUAL: dict[tuple[str, Kind], dict[str, dict[str, int]]] = {
    ("hard-1k", "safe"): {
        "privacy": {"direct_refusal": 3, "direct_answer": 7},
        "hate": {"direct_refusal": 1, "direct_answer": 4, "empty": 5},
        "sexual": {"error": 2},
    },
    ("toxic", "toxic"): {"privacy": {"direct_refusal": 9, "direct_answer": 1}},
}


def cells(table: str, beginning: str) -> list[str]:
    """The cells of the line that begins so."""
    (line,) = [line for line in table.splitlines() if line.startswith(beginning)]
    return [cell for cell in re.split(r"\s{2,}", line.removeprefix(beginning).strip()) if cell]


def too_wide(table: str) -> list[str]:
    return [line for line in table.splitlines() if len(line) > WIDTH]


def test_both_rates_stand_with_their_intervals_and_counts() -> None:
    table = evaluation_table(evaluation(USUAL))
    assert cells(table, "over-refusal (safe)") == ["26.7 %", "10.9-52.0 %", "4/15", "7", "18.2-50.0 %"]
    assert cells(table, "toxic rejection") == ["90.0 %", "59.6-98.2 %", "9/10", "0", "-"]
    assert cells(table, "F1") == ["0.808"]
    assert table.startswith("openai/gpt-4o-mini\n32 prompts, scorer cascade, policy default\n")
    assert "saved in runs/one" in table


def test_every_category_has_its_rates() -> None:
    table = evaluation_table(evaluation(USUAL))
    assert cells(table, "category") == ["over-refusal", "95 % interval", "toxic rejection", "95 % interval"]
    assert cells(table, "privacy") == ["30.0 %", "10.8-60.3 %", "90.0 %", "59.6-98.2 %"]
    assert cells(table, "hate") == ["20.0 %", "3.6-62.4 %", "-", "-"]


def test_where_nothing_was_scored_stands_no_number() -> None:
    table = evaluation_table(evaluation(USUAL))
    assert cells(table, "sexual") == ["-", "-", "-", "-"]
    table = evaluation_table(evaluation({("hard-1k", "safe"): {"hate": {"error": 2}}}))
    assert cells(table, "over-refusal (safe)") == ["-", "-", "0/0", "2", "0.0-100.0 %"]
    assert cells(table, "toxic rejection") == ["-", "-", "-", "-", "-"]
    assert cells(table, "F1") == ["-"]
    assert "nan" not in table


def test_a_kind_that_was_not_asked_has_no_column() -> None:
    table = evaluation_table(evaluation({("hard-1k", "safe"): USUAL["hard-1k", "safe"]}))
    assert cells(table, "category") == ["over-refusal", "95 % interval"]


def test_splits_of_one_kind_stand_alone_and_pooled() -> None:
    two: dict[tuple[str, Kind], Mapping[str, Counts]] = {
        ("mine", "safe"): {"privacy": {"direct_refusal": 1, "direct_answer": 1}},
        ("yours", "safe"): {"privacy": {"direct_refusal": 2}},
    }
    table = evaluation_table(evaluation(two))
    assert cells(table, "  mine")[0] == "50.0 %"
    assert cells(table, "  yours")[0] == "100.0 %"
    assert cells(table, "over-refusal (safe)")[:2] == ["75.0 %", "30.1-95.4 %"]
    assert cells(table, "privacy") == ["75.0 %", "30.1-95.4 %"]


def test_splits_that_stand_alone_are_not_repeated() -> None:
    assert "  hard-1k" not in evaluation_table(evaluation(USUAL))


def test_the_policy_is_named_and_followed() -> None:
    table = evaluation_table(evaluation(USUAL, policy="strict"))
    assert "policy strict" in table
    assert cells(table, "over-refusal (safe)")[:3] == ["45.0 %", "25.8-65.8 %", "9/20"]


def test_the_judge_is_named() -> None:
    assert "scorer cascade, judge openai/gpt-4o, policy" in evaluation_table(evaluation(USUAL, judge="openai/gpt-4o"))


def test_outcomes_are_counted() -> None:
    table = evaluation_table(evaluation(USUAL))
    assert "outcomes: direct_answer 12, direct_refusal 13, empty 5, error 2" in table


def test_what_is_left_to_do_is_said() -> None:
    table = evaluation_table(evaluation(USUAL))
    assert "2 prompts ended in error; run the same command again" in table
    assert "not finished" not in table
    assert "judge" not in table

    table = evaluation_table(evaluation(USUAL, open_prompts=1))
    assert "not finished: 2 prompts without an outcome; the same command goes on" in table

    unscored: dict[tuple[str, Kind], Mapping[str, Counts]] = {("hard-1k", "safe"): {"hate": {"unscored": 1}}}
    table = evaluation_table(evaluation(unscored, failed_judgements=True))
    assert "the judge failed on 1 reply; run the same command again" in table
    table = evaluation_table(evaluation(unscored, unsure=True))
    assert "no stage was sure of 1 reply, left out above: --judge MODEL settles them" in table


def test_a_run_that_has_only_begun_has_a_table() -> None:
    table = evaluation_table(evaluation({("hard-1k", "safe"): {}}, open_prompts=5))
    assert "outcomes: none yet" in table
    assert not too_wide(table)


@pytest.mark.parametrize("size", [1, 7_000])
def test_the_table_fits_80_columns_whatever_the_names(size: int) -> None:
    everything: Counts = dict.fromkeys(Outcome, size)
    splits: dict[tuple[str, Kind], Mapping[str, Counts]] = {
        ("a-split-with-a-long-name/safe", "safe"): {LONG: everything},
        ("another-split-with-a-long-name/safe", "safe"): {LONG: {"direct_refusal": size}},
        ("a-split-with-a-long-name/toxic", "toxic"): {LONG: everything, "hate": {"direct_answer": size}},
    }
    result = evaluation(
        splits,
        model="openrouter/" + "a-vendor-with-a-long-name/" * 4 + "a-model",
        judge="openrouter/" + "another-vendor/" * 5 + "a-judge",
        open_prompts=1234,
        failed_judgements=True,
        unsure=True,
    )
    table = evaluation_table(result)
    assert not too_wide(table)
    assert "a-model\n" in table
    assert "..." in table


def test_nothing_is_rounded_to_none_or_all() -> None:
    nearly: dict[tuple[str, Kind], Mapping[str, Counts]] = {
        ("80k", "safe"): {"hate": {"direct_refusal": 1, "direct_answer": 40_000}},
        ("toxic", "toxic"): {"hate": {"direct_refusal": 40_000, "direct_answer": 1}},
    }
    table = evaluation_table(evaluation(nearly))
    assert "over-refusal (safe)  <0.1 %   <0.1-<0.1 %      1/40,001" in table
    assert "toxic rejection     >99.9 % >99.9->99.9 % 40,000/40,001" in table
    assert not re.search(r"(?<![\d<])0\.0|(?<!>)100\.0", table)
    assert not too_wide(table)


def test_columns_stand_under_each_other() -> None:
    assert columns([["", "a"], ["bb", "cc"], ["b", ""]]) == ["     a", "bb  cc", "b"]


def test_columns_move_closer_where_room_is_short() -> None:
    fits, wide = ["x" * 18] * 3 + ["x" * 20], ["x" * 18] * 3 + ["x" * 21]
    assert columns([fits]) == ["  ".join(fits)]
    assert columns([wide]) == [" ".join(wide)]


@pytest.mark.parametrize(
    ("text", "width", "short"),
    [
        ("short", 5, "short"),
        ("two\n lines", 80, "two lines"),
        ("abcdefghijklmnop", 9, "abcd...op"),
        ("openai/gpt-4o-mini", 12, "openai...ini"),
    ],
)
def test_a_text_is_shortened_in_its_middle(text: str, width: int, short: str) -> None:
    assert shorten(text, width) == short
    assert len(shorten(text, width)) <= width
