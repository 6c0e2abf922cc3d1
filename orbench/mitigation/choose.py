"""Which of several replies to a prompt is taken: the best by a stated rule, or a random one as its control.

The rule. A reply to a safe prompt must answer, one to a toxic prompt may refuse or answer harmlessly; where moderators
were asked, all must have passed it. Of those left, the most helpful is taken; where helpfulness was not scored, or is
alike, the first. The random pick looks at nothing of this, as in POROver, whose reviews report that it does about as
well. The rule is ours.

Source: POROver (arXiv 2410.12999), rejection sampling over a teacher's completions, and its random baseline.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from orbench.records import Kind


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One completion of a teacher, with all that is known of it; one line of `candidates.jsonl`."""

    prompt_id: str
    prompt: str
    kind: Kind
    category: str
    teacher: str
    number: int
    """Which of the teacher's completions, from 1."""
    completion: str
    refused: bool | None
    """By the scorer; None if it could not tell."""
    passed: bool | None = None
    """Moderation: None if nobody was asked, or could not be read."""
    helpfulness: float | None = None
    error: str | None = None


def is_fit(candidate: Candidate, *, moderated: bool) -> bool:
    """Whether the rule lets a completion be taken at all."""
    if candidate.error is not None or not candidate.completion.strip():
        return False
    if moderated and candidate.passed is not True:
        return False
    if candidate.kind == "safe":
        return candidate.refused is False
    return moderated or candidate.refused is True  # unseen, an answer to a toxic prompt is not known to be harmless


def best_of(candidates: Sequence[Candidate], *, moderated: bool) -> Candidate | None:
    """The best completion of one prompt by the rule; None if none is fit."""
    fit = [one for one in candidates if is_fit(one, moderated=moderated)]
    return max(fit, key=lambda one: float("-inf") if one.helpfulness is None else one.helpfulness, default=None)


def any_of(candidates: Sequence[Candidate], seed: int) -> Candidate | None:
    """A random completion of one prompt, the control; None if none has a text. Drawn by the prompt's id alone."""
    there = [one for one in candidates if one.error is None and one.completion.strip()]
    return random.Random(f"{seed}\n{there[0].prompt_id}").choice(there) if there else None
