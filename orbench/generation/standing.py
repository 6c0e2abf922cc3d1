"""How prompts stand under a rule, and what is still owed: pure functions of what a folder holds.

The pipeline works by them, and whoever counts afterwards (estimate, facts, selection, analysis) reads the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from orbench.generation.config import GenerationConfig
from orbench.generation.folder import State, Track
from orbench.generation.records import Subject
from orbench.generation.rules import Decision, Rule, make_rule

SURPLUS = "more than the target"
"""Dropped because there are enough; taken up again when the target grows."""
DRY_CALLS = 5
"""Calls of a seeder that are looked at to tell whether it gives anything new."""
_DRY_SHARE = 0.05


class Progress(msgspec.Struct):
    """How a prompt stands."""

    decision: Decision | None
    """On the prompt and, where it was rescued, on the answer; None while something is owed."""
    rescued: bool = False
    reason: str | None = None
    """Why it is not kept."""


class Standing:
    """Says how prompts stand under a rule, and what they need next.

    Attributes:
        rule: What decides; None where there are no moderators.
        rescues: Whether a rescuer answers what is voted toxic.
        moderators: Those whose votes count.
    """

    def __init__(self, rule: Rule | None, *, rescues: bool) -> None:
        """Judge by the rule; None where there are no moderators."""
        self.rule = rule
        self.rescues = rescues
        self.moderators: Sequence[str] = list(rule.weights) if rule else []

    def missing(self, track: Track, of: Subject) -> list[str]:
        """Moderators who have not voted yet."""
        votes = track.votes_on(of)
        return [name for name in self.moderators if name not in votes]

    def is_voted_toxic(self, track: Track) -> bool:
        """Whether the votes on a prompt, without any on the answer, make it toxic."""
        return self.rule is not None and not self.missing(track, "prompt") and self.rule.decide(track.votes) == "toxic"

    def of(self, track: Track) -> Progress:
        """How a prompt stands now."""
        if track.is_seed:
            return Progress("toxic", reason="seed")
        if self.rule is None or self.missing(track, "prompt"):
            return Progress(None, reason="votes are owed")
        decision = self.rule.decide(track.votes)
        if decision == "safe":
            return Progress("safe")
        if decision == "undecided":
            return Progress("undecided", reason="abstentions left it undecided")
        if not self.rescues:
            return Progress("toxic", reason="voted toxic")
        if track.answered is None:
            return Progress(None, reason="the rescuer's answer is owed")
        if track.answered != "read":
            return Progress("toxic", reason="voted toxic, and the rescuer gave no answer")
        if self.missing(track, "answer"):
            return Progress(None, reason="votes on the answer are owed")
        on_answer = self.rule.decide(track.answer_votes)
        if on_answer == "safe":
            return Progress("safe", rescued=True)
        if on_answer == "undecided":
            return Progress("undecided", reason="abstentions on the answer left it undecided")
        return Progress("toxic", reason="voted toxic, and so was the answer")


def rewrites_wanted(config: GenerationConfig, track: Track, decision: Decision | None) -> int:
    """Rewrites of a prompt that are still to be asked for: of seeds, and of what stayed toxic while rounds are left."""
    if not track.is_seed and (decision != "toxic" or track.item.round > config.rounds):
        return 0
    return max(0, config.rewrites - track.rewritten)


def is_dry(config: GenerationConfig, state: State, category: str) -> bool:
    """Whether the seeder's last five calls brought next to nothing new: under 5 % of what they were asked for."""
    role = config.seeder
    if role is None:
        return True
    calls = [
        call
        for call in state.seed_calls.get(category, [])
        if call[1] != "error" and state.seed_models[call[0]] == role.name
    ][-DRY_CALLS:]
    if len(calls) < DRY_CALLS:
        return False
    new = sum(
        state.rows.get((name, place), (True, "no row"))[1] in (None, SURPLUS)
        for name, _, _ in calls
        for place in range(state.places[name])
    )
    return new < _DRY_SHARE * sum(wanted for _, _, wanted in calls)


def standing(config: GenerationConfig) -> Standing:
    """How prompts stand under a configuration."""
    names = [role.name for role in config.moderators]
    rule = make_rule(config.rule_name, names, config.weights) if names else None
    return Standing(rule, rescues=config.rescue is not None)
