"""The audit: who is checked, what stays, and what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import orbench
from orbench import Prompt, Split
from orbench.models.baseline import ANSWER, REFUSAL
from orbench.scoring.audit import LEAST, AuditedRow, audit_result, audited, position
from orbench.scoring.outcomes import Outcome
from orbench.testing import ScriptedModel

A, D = Outcome.DIRECT_ANSWER, Outcome.DIRECT_REFUSAL


def split(rows: int) -> Split:
    prompts = [
        Prompt(id=str(n), text=f"How is puzzle {n} solved?", category="illegal", kind="safe", split="puzzles")
        for n in range(rows)
    ]
    return Split("puzzles", prompts, "here")


def by_parity(request: orbench.Request) -> str:
    return REFUSAL if int(request.prompt.split()[3]) % 2 else ANSWER


def evaluate(out: Path, rows: int, judge: ScriptedModel, **options: object) -> orbench.Evaluation:
    return orbench.evaluate(
        ScriptedModel(by_parity),
        splits=[split(rows)],
        judge=judge,
        out=out,
        progress=False,
        **options,  # type: ignore[arg-type]
    )


def always(label: str = "direct_answer") -> ScriptedModel:
    return ScriptedModel(f"[[{label}]]", name="scripted/judge")


@given(st.integers(0, 400), st.floats(0.01, 1), st.integers(0, 5))
def test_the_slice_is_the_share_or_the_least_and_grows_with_the_share(rows: int, share: float, seed: int) -> None:
    keys = [("s", str(n)) for n in range(rows)]
    chosen = audited(keys, share, seed)
    assert len(chosen) >= min(LEAST, rows)
    assert chosen == audited(reversed(keys), share, seed)
    assert chosen <= audited(keys, 1.0, seed) == set(keys)
    assert audited(keys, 0, seed) == set()


def test_places_are_evenly_spread_and_depend_on_the_seed() -> None:
    places = [position(0, ("s", str(n))) for n in range(4000)]
    assert sum(place < 0.05 for place in places) == pytest.approx(200, abs=45)
    assert position(1, ("s", "0")) != places[0]


def test_a_slice_goes_to_the_judge_and_the_verdicts_stay(tmp_path: Path) -> None:
    judge = always()
    result = evaluate(tmp_path / "run", 300, judge)
    assert len(judge.requests) == LEAST
    assert result.outcomes == {"direct_answer": 150, "direct_refusal": 150}
    assert {row.by for row in result.rows()} <= {"phrases", "classifier"}
    audit = result.to_dict()["audit"]
    assert (audit["decided"], audit["audited"], audit["judge_calls_saved"]) == (300, 50, 250)
    safe = audit["safe"]
    wrong = sum(row.judge is not None and row.outcome == "direct_refusal" for row in result.rows())
    assert (safe["audited"], safe["wrong"]) == (50, wrong)
    assert safe["error"]["low"] < safe["error"]["value"] == wrong / 50 < safe["error"]["high"]
    assert safe["shift"] == -wrong / 50
    assert "the cascade saved 250 judge calls" in str(result)
    assert len(list(result.rows(disagreements=True))) == wrong


def test_the_same_command_again_asks_the_judge_nothing(tmp_path: Path) -> None:
    first = evaluate(tmp_path / "run", 120, always())
    judge = always()
    again = evaluate(tmp_path / "run", 120, judge)
    assert judge.requests == []
    assert again.audit == first.audit


def test_a_larger_share_only_adds(tmp_path: Path) -> None:
    evaluate(tmp_path / "run", 120, always())
    judge = always()
    result = evaluate(tmp_path / "run", 120, judge, audit=1.0)
    assert len(judge.requests) == 120 - LEAST
    assert result.audit is not None
    assert result.audit["audited"] == 120


def test_an_audit_that_could_not_be_read_changes_no_verdict_and_is_tried_again(tmp_path: Path) -> None:
    result = evaluate(tmp_path / "run", 60, ScriptedModel(orbench.RejectedError("no"), name="scripted/judge"))
    assert (result.open, result.failed_judgements) == (0, 0)
    assert result.audit is not None
    assert (result.audit["safe"]["audited"], result.audit["safe"]["unread"]) == (0, 50)
    assert (result.audit["audited"], result.audit["unread"]) == (0, 50)
    (line,) = (line for line in str(result).splitlines() if line.startswith("over-refusal  "))
    assert line.split()[1:4] == ["60", "0", "50"]
    assert "no label that can be read for 50 of the 50 replies that it was to check" in " ".join(str(result).split())
    assert list(result.rows(disagreements=True)) == []
    judge = always()
    again = evaluate(tmp_path / "run", 60, judge)
    assert len(judge.requests) == 50
    assert again.audit is not None
    assert again.audit["safe"]["audited"] == 50


@pytest.mark.parametrize("options", [{"audit": 0}, {"scorer": "judge"}, {"scorer": "paper", "family": "llama"}])
def test_there_is_no_audit_without_a_share_or_where_the_scorer_is_a_preset(
    tmp_path: Path, options: dict[str, object]
) -> None:
    result = evaluate(tmp_path / "run", 6, always(), **options)
    assert result.audit is None
    assert "audit" not in result.to_dict()


def test_the_judge_s_work_proper_is_not_part_of_the_audit(tmp_path: Path) -> None:
    judge = always()
    result = orbench.evaluate(
        ScriptedModel("Hm."), splits=[split(5)], judge=judge, out=tmp_path / "run", progress=False
    )
    assert len(judge.requests) == 5
    assert result.audit is None


def test_errors_that_cancel_leave_the_rate_where_it_is() -> None:
    rows = [AuditedRow("safe", A, D), AuditedRow("safe", D, A), AuditedRow("safe", A, A), AuditedRow("toxic", D, D)]
    found = audit_result(rows, {"safe": 30, "toxic": 10}, "default")
    assert (found["safe"]["wrong"], found["safe"]["shift"]) == (2, 0)
    assert found["toxic"]["error"]["value"] == 0
    assert found["judge_calls_saved"] == 36
