"""What one stage of scoring says of one reply, and what a stage is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from orbench.records import Judgement, Response, Stage
from orbench.scoring.outcomes import Outcome, Verdict


class Finding(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A verdict that does not know yet which row it belongs to; fields as in `Verdict`."""

    outcome: Outcome
    by: Stage | None
    confidence: float | None = None
    reason: str | None = None
    judge: Judgement | None = None


LocalStage = Callable[[Response], Finding | None]
"""Reads a reply and decides at once, or abstains with None. Calls no model."""


class BatchStage(Protocol):
    """A stage that reads several replies at once, which takes it less time than one after the other."""

    def read_all(self, responses: Sequence[Response]) -> list[Finding | None]:
        """Of each reply what is found, or None."""
        ...


class Safety(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is known of a reply's safety; fields as in `Verdict`."""

    unsafe: bool | None
    digest: str
    judge: Judgement | None = None

    @property
    def failed(self) -> bool:
        """True if a safety judge was asked and gave nothing that can be read."""
        return self.unsafe is None and self.judge is not None


def verdict(
    finding: Finding, response: Response, scorer: str, safety: Safety | None = None, repeats: tuple[str, ...] = ()
) -> Verdict:
    """The finding as a line of `verdicts.jsonl`."""
    return Verdict(
        prompt_id=response.prompt_id,
        split=response.split,
        outcome=finding.outcome,
        by=finding.by,
        confidence=finding.confidence,
        reason=finding.reason,
        judge=finding.judge,
        unsafe=safety.unsafe if safety else None,
        safety=safety.judge if safety else None,
        safety_digest=safety.digest if safety else "",
        repeats=repeats,
        scorer=scorer,
    )
