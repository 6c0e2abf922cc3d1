"""Scored again: old verdicts against new."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import orbench
from orbench import Prompt, Split
from orbench.engine.run_folder import read_verdicts
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
