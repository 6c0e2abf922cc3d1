"""A run folder's lines, folded: the last that fits counts, and everything received is paid for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from orbench.records import Judgement, Response, Usage
from orbench.run_state import RunState, read_by, scan
from orbench.scoring.outcomes import Outcome, Verdict

KEY = ("safe", "1")


def reply(**changes: Any) -> Response:
    base = Response(
        prompt_id="1", split="safe", category="", kind="safe", prompt="Hi?", response="Hi.",
        usage=Usage(input_tokens=10, output_tokens=1),
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def verdict(outcome: Outcome = Outcome.DIRECT_ANSWER, **changes: Any) -> Verdict:
    base = Verdict(prompt_id="1", split="safe", outcome=outcome, by="phrases", scorer="one")
    return msgspec.structs.replace(base, **changes)


def folded(folder: Path, responses: list[Response], verdicts: list[Verdict], scorer: str | None = None) -> RunState:
    for name, records in (("responses.jsonl", responses), ("verdicts.jsonl", verdicts)):
        (folder / name).write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
    return scan(folder, "m", scorer)


def test_the_last_verdict_counts(tmp_path: Path) -> None:
    state = folded(tmp_path, [reply()], [verdict(Outcome.DIRECT_REFUSAL), verdict(Outcome.DIRECT_ANSWER)])
    assert state.rows[KEY].outcome is Outcome.DIRECT_ANSWER


def test_an_error_s_verdict_is_void_beside_a_later_reply(tmp_path: Path) -> None:
    state = folded(tmp_path, [reply(error="down"), reply()], [verdict(Outcome.ERROR)])
    assert state.rows[KEY].outcome is None
    assert not state.rows[KEY].failed


def test_superseded_replies_are_paid_for(tmp_path: Path) -> None:
    state = folded(tmp_path, [reply(attempts=3), reply()], [])
    assert (state.usage["m"].requests, state.usage["m"].input_tokens) == (4, 20)


def test_a_judge_s_part_that_is_repeated_is_paid_for_once(tmp_path: Path) -> None:
    judged = Judgement(model="j", reply="direct_answer", usage=Usage(input_tokens=7, output_tokens=2))
    first = verdict(by="judge", judge=judged)
    state = folded(tmp_path, [reply()], [first, msgspec.structs.replace(first, repeats=("judge",))])
    assert (state.judge_usage["j"].requests, state.judge_usage["j"].input_tokens) == (1, 7)


def test_only_the_named_scorer_s_verdicts_count(tmp_path: Path) -> None:
    lines = [verdict(Outcome.DIRECT_REFUSAL), verdict(scorer="two")]
    assert folded(tmp_path, [reply()], lines, scorer="one").rows[KEY].outcome is Outcome.DIRECT_REFUSAL


def test_another_scorer_s_verdict_is_stale(tmp_path: Path) -> None:
    row = read_by(folded(tmp_path, [reply()], [verdict()]), "two").rows[KEY]
    assert (row.outcome, row.stale) == (None, True)


def test_a_verdict_on_a_row_that_is_not_there_counts_nowhere(tmp_path: Path) -> None:
    assert set(folded(tmp_path, [reply()], [verdict(prompt_id="2")]).rows) == {KEY}
