"""Where each row of a run stands, and what the run has cost: folded from the lines of its folder."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from orbench.engine.run_folder import read_responses, read_verdicts
from orbench.ledger import Ledger, Ledgers
from orbench.records import Judgement, Kind, Response, Stage
from orbench.scoring.outcomes import DISAGREE, UNSURE, Outcome, Verdict

Key = tuple[str, str]


class RowState(msgspec.Struct, kw_only=True, gc=False):
    """What is kept in memory of one row of a run; its texts stay on disk."""

    kind: Kind
    category: str
    failed: bool
    """The last line in responses.jsonl is an error."""
    outcome: Outcome | None = None
    """Of the last verdict that fits the last response; None if there is none yet."""
    judge_failed: bool = False
    failure: str = ""
    """Why the judge failed, if it did."""
    unsure: bool = False
    by: Stage | None = None
    audit: Outcome | None = None
    """The judge's own label where it only checked."""
    votes: tuple[Outcome, ...] = ()
    """Each judge's own label, where there were several."""
    unsafe: bool | None = None
    safety_digest: str = ""
    safety_failed: bool = False
    scorer: str = ""
    """Digest of the scorer that gave the verdict."""
    stale: bool = False
    """The only verdict is another scorer's than the run's, from before scoring again was stopped: it counts nowhere."""

    def fits(self, verdict: Verdict) -> bool:
        """Whether the verdict is one of the last response: `error` beside a later good reply is void."""
        return (verdict.outcome is Outcome.ERROR) == self.failed

    def settle(self, verdict: Verdict) -> None:
        """Keep what the numbers need of a verdict."""
        self.outcome = verdict.outcome
        self.judge_failed = verdict.judge_failed
        self.failure = sys.intern(verdict.reason or "") if verdict.judge_failed else ""
        # a judge's own words may be the same as ours
        self.unsure = verdict.outcome is Outcome.UNSCORED and verdict.reason in (UNSURE, DISAGREE)
        self.by = verdict.by
        judge = verdict.judge
        self.audit = Outcome(judge.audit) if judge and judge.audit else None
        self.votes = tuple(Outcome(vote.outcome) for vote in judge.votes) if judge else ()
        self.unsafe = verdict.unsafe
        self.safety_digest = verdict.safety_digest
        self.safety_failed = verdict.unsafe is None and verdict.safety is not None
        self.scorer = verdict.scorer


class RunState(msgspec.Struct):
    """Every row of a run, and what it cost."""

    rows: dict[Key, RowState]
    usage: Ledgers
    judge_usage: Ledgers
    safety_usage: Ledgers = msgspec.field(default_factory=dict)

    def add_response(self, model: str, response: Response) -> None:
        """Count a line of responses.jsonl."""
        answered = response.error is None and (response.usage is not None or response.blocked_by is None)
        self.usage.setdefault(model, Ledger()).add(response.attempts, response.usage, answered=answered)
        self.rows[response.key] = RowState(
            kind=response.kind, category=response.category, failed=response.error is not None
        )

    def add_judgement(self, judgement: Judgement) -> None:
        """Count what a judge, or each of a panel's, has cost."""
        _add(self.judge_usage, judgement)

    def add_safety(self, judgement: Judgement) -> None:
        """Count what the safety judge has cost."""
        _add(self.safety_usage, judgement)


def _add(ledgers: Ledgers, judgement: Judgement) -> None:
    for part in judgement.votes or (judgement,):
        ledgers.setdefault(part.model, Ledger()).add(part.requests, part.usage, answered=bool(part.reply))


def scan(folder: Path, model: str, scorer: str | None = None) -> RunState:
    """Read what a run folder holds, a line at a time.

    Args:
        folder: The run folder.
        model: Whose replies it holds.
        scorer: Digest of the one scorer whose verdicts shall count; by default the last ones do, whosever they are.

    Raises:
        orbench.RunError: A damaged line; see `orbench.engine.jsonl`.
    """
    state = RunState({}, {}, {}, {})
    for response in read_responses(folder):
        state.add_response(model, response)
    for verdict in read_verdicts(folder):
        if verdict.judge is not None and "judge" not in verdict.repeats:
            state.add_judgement(verdict.judge)
        if verdict.safety is not None and "safety" not in verdict.repeats:
            state.add_safety(verdict.safety)
        row = state.rows.get(verdict.key)
        mine = scorer in (None, verdict.scorer) or verdict.outcome is Outcome.ERROR
        if row is not None and mine and row.fits(verdict):
            row.settle(verdict)
    return state


def read_by(state: RunState, scorer: str) -> RunState:
    """The same run without the verdicts of other scorers; those of the safety judge stay."""
    rows = state.rows
    if all(row.scorer == scorer or row.failed or row.outcome is None for row in rows.values()):
        return state
    kept = ("kind", "category", "failed", "unsafe", "safety_digest", "safety_failed", "scorer")
    found = {
        key: row
        if row.scorer == scorer or row.failed or row.outcome is None
        else RowState(**{name: getattr(row, name) for name in kept}, stale=True)
        for key, row in rows.items()
    }
    return msgspec.structs.replace(state, rows=found)
