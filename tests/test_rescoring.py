"""Scored again: old verdicts against new."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import orbench
from orbench import ModelError, Prompt, Split
from orbench.engine.run_folder import read_verdicts
from orbench.gate import check
from orbench.models.baseline import ANSWER, REFUSAL
from orbench.testing import ScriptedModel


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Ten replies by keywords: four refusals, six answers."""
    prompts = [
        Prompt(id=str(n), text=f"How is puzzle {n} solved?", category="illegal", kind="safe", split="puzzles")
        for n in range(10)
    ]

    def reply(request: orbench.Request) -> str:
        return REFUSAL if int(request.prompt.split()[3]) < 4 else ANSWER

    orbench.evaluate(
        ScriptedModel(reply),
        splits=[Split("puzzles", prompts, "here")],
        scorer="keywords",
        out=tmp_path / "run",
        progress=False,
    )
    return tmp_path / "run"


def judge(request: orbench.Request) -> str:
    number = int(request.prompt.split("puzzle ")[1][0])
    return (
        "[[indirect_refusal]]" if number in (2, 3, 4) else "[[direct_answer]]" if number > 1 else "[[direct_refusal]]"
    )


def test_old_verdicts_are_kept_and_set_against_the_new(run: Path) -> None:
    result = orbench.score(run, scorer="judge", judge=ScriptedModel(judge, name="scripted/judge"))
    assert result.rescored is not None
    assert {(m["from"], m["to"]): m["rows"] for m in result.rescored["moves"]} == {
        ("direct_refusal", "direct_refusal"): 2,
        ("direct_refusal", "indirect_refusal"): 2,
        ("direct_answer", "indirect_refusal"): 1,
        ("direct_answer", "direct_answer"): 5,
    }
    assert result.rescored["kappa"]["value"] == pytest.approx(0.8)  # 9 of 10 alike, 0.5 by chance
    rates = result.rescored["over_refusal_rate"]
    assert (rates["before"]["value"], rates["after"]["value"]) == (0.4, 0.5)
    assert len(list(read_verdicts(run))) == 20
    saved = json.loads((run / "result.json").read_text(encoding="utf-8"))
    assert saved["rescored"]["before"]["name"] == "keywords"
    text = str(result)
    assert "+10.0" in text
    assert "Table 8" in text
    assert "GPT-3.5-turbo-0613" in text


def test_table_8_stands_only_beside_keywords_and_judge(run: Path) -> None:
    result = orbench.score(run, scorer="cascade")
    assert result.rescored is not None
    assert "paper" not in result.rescored


@pytest.mark.parametrize("policy", ["strict", "paper"])
def test_another_policy_alone_scores_nothing_again(run: Path, policy: str) -> None:
    before = (run / "verdicts.jsonl").read_bytes()
    result = orbench.score(run, policy=policy)
    assert (run / "verdicts.jsonl").read_bytes() == before
    assert (result.policy, result.config["scorer"]["name"], result.rescored) == (policy, "keywords", None)
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["policy"] == policy


def test_the_same_scorer_again_changes_nothing(run: Path) -> None:
    before = (run / "verdicts.jsonl").read_bytes()
    assert orbench.score(run, scorer="keywords").rescored is None
    assert (run / "verdicts.jsonl").read_bytes() == before


def stopped(replies: int) -> Callable[[orbench.Request], str]:
    """A judge that is gone after some replies."""
    left = replies

    def answer(request: orbench.Request) -> str:
        nonlocal left
        left -= 1
        if left < 0:
            raise ModelError("no judge at that address")
        return judge(request)

    return answer


def score(run: Path, answer: Callable[[orbench.Request], str], **options: str) -> orbench.Evaluation:
    return orbench.score(
        run, scorer="judge", judge=ScriptedModel(answer, name="scripted/judge", max_concurrency=1), **options
    )


def test_a_rescoring_that_stops_leaves_no_old_verdict_under_the_new_scorer_s_name(run: Path) -> None:
    with pytest.raises(ModelError, match="no judge"):
        score(run, stopped(3))
    result = orbench.Evaluation.load(run)
    assert result.config["scorer"]["name"] == "judge"
    assert result.over_refusal_rate.scored == sum(result.outcomes.values()) == len(list(result.rows())) == 3
    assert (result.stale, result.open) == (7, 7)
    assert {row.judge for row in result.rows()} == {"scripted/judge"}
    said = " ".join(str(result).split())
    assert "the same command goes on: 7 replies that only an earlier scorer has read are counted nowhere" in said
    assert "not finished" not in str(result)
    assert check(result, max_over_refusal=0.99).exit_code == 3
    saved = json.loads((run / "result.json").read_text(encoding="utf-8"))
    assert saved["over_refusal_rate"]["scored"] == 3
    assert (result.with_policy("strict").stale, result.with_policy("strict").open) == (7, 7)


def test_what_was_there_before_survives_until_all_is_scored_anew(run: Path) -> None:
    for replies in (3, 0, 2):
        with pytest.raises(ModelError):
            score(run, stopped(replies))
    result = score(run, judge)
    assert (result.open, result.stale) == (0, 0)
    assert result.rescored is not None
    assert result.rescored["before"]["name"] == "keywords"
    assert sum(move["rows"] for move in result.rescored["moves"]) == 10
    rates = result.rescored["over_refusal_rate"]
    assert (rates["before"]["value"], rates["after"]["value"]) == (0.4, 0.5)
    assert score(run, judge).rescored is None


def test_going_back_to_the_scorer_before_scores_anew_only_what_the_other_has_read(run: Path) -> None:
    with pytest.raises(ModelError):
        score(run, stopped(3))
    lines = len(list(read_verdicts(run)))
    result = orbench.score(run, scorer="keywords")
    assert (result.over_refusal_rate.value, result.open, result.rescored) == (0.4, 0, None)
    assert len(list(read_verdicts(run))) == lines + 3


def test_an_audit_and_a_panel_know_no_verdict_of_before(run: Path) -> None:
    two = [ScriptedModel(judge, name="scripted/one"), ScriptedModel(judge, name="scripted/two")]
    assert orbench.score(run, scorer="judge", judge=two).panel is not None
    third = [
        ScriptedModel(stopped(0), name="scripted/one"),
        ScriptedModel(stopped(0), name="scripted/three"),
    ]
    with pytest.raises(ModelError):
        orbench.score(run, scorer="judge", judge=third)
    assert orbench.Evaluation.load(run).panel is None
    orbench.score(run, scorer="cascade", judge=ScriptedModel(judge, name="scripted/judge"))
    assert orbench.Evaluation.load(run).audit is not None
    with pytest.raises(ModelError):
        score(run, stopped(0))
    assert orbench.Evaluation.load(run).audit is None
