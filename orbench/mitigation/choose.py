"""Which of several replies to a prompt is taken: the best by a stated rule, or a random one as its control.

The rule. A reply must be whole: not cut off at max_tokens, not blocked by a platform. One to a safe prompt must answer,
one to a toxic prompt may refuse or answer harmlessly; where moderators were asked, all must have passed it. Of those
left, the most helpful is taken; where helpfulness was not scored, or is alike, the first. The random pick looks neither
at helpfulness nor at refusal, as in POROver, whose reviews report that it does about as well; it leaves out what is not
whole and what a moderator found unsafe. The rule is ours.

Source: POROver (arXiv 2410.12999), rejection sampling over a teacher's completions, and its random baseline.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import msgspec

from orbench.records import BlockedBy, FinishReason, Kind
from orbench.results import Row


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
    finish_reason: FinishReason | None = None
    blocked_by: BlockedBy | None = None
    seed_id: str | None = None
    group_id: str | None = None


def broken_off(reply: Row | Candidate) -> Literal["blocked", "cut_off"] | None:
    """Why a text is not all that its model would have said; None if it is."""
    if reply.blocked_by is not None or reply.finish_reason in ("content_filter", "refusal"):
        return "blocked"
    return "cut_off" if reply.finish_reason == "length" else None


def is_fit(candidate: Candidate, *, moderated: bool) -> bool:
    """Whether the rule lets a completion be taken at all."""
    if not _is_whole(candidate) or candidate.refused is None:
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
    """A random whole completion of one prompt, the control, none that a moderator found unsafe; None if none is left.

    Drawn by the prompt's id alone.
    """
    there = [one for one in candidates if _is_whole(one) and one.passed is not False]
    return random.Random(f"{seed}\n{there[0].prompt_id}").choice(there) if there else None


def _is_whole(candidate: Candidate) -> bool:
    return candidate.error is None and bool(candidate.completion.strip()) and broken_off(candidate) is None
