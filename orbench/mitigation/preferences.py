"""The preference that one prompt gives: a pair, a single completion, or the reason why there is none.

In: a prompt, the model's own reply, the teacher's, and what moderators say. Out: a row of training data. The rule is in
`orbench.mitigation.pairs`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from orbench.mitigation.choose import broken_off
from orbench.mitigation.files import Pair, Single, assistant, user
from orbench.mitigation.moderate import Moderated
from orbench.records import Prompt, Response
from orbench.results import Row
from orbench.scoring.outcomes import Outcome

OWN, TEACHER = "own", "teacher"
"""Whose reply moderators are asked about: the split of a line of `moderation.jsonl`."""

_WAYS_OUT = {
    "teacher_unclear": "The scorer cannot tell what most of the teacher's replies are: give a --judge",
    "no_verdict_on_own_reply": "The run lacks verdicts: orbench score RUN --judge MODEL",
    "teacher_cut_off": "Most of the teacher's replies do not end: raise --max-tokens",
    "teacher_not_asked": "Raise --max-cost",
    "teacher_failed": "The same command asks again what failed",
    "teacher_refused": "Take another --teacher",
    "teacher_blocked": "A platform blocks the teacher: take another --teacher",
    "teacher_said_nothing": "Take another --teacher, or raise --max-tokens",
    "moderated": "Take another --teacher, or other moderators",
    "moderator_unread": "The moderators' answers cannot be read: take other ones",
    "moderator_failed": "Calls of a moderator failed or were not made: the same command asks again",
    "own_blocked": "A platform, not the model, refused most prompts: nothing of that can be trained away",
}
"""Why there is no row, to what to do about it."""


class Preferences:
    """Makes the row of a prompt, or counts why there is none."""

    def __init__(
        self,
        own: Mapping[str, Row],
        taught: Mapping[str, Row],
        labels: Moderated | None,
        stand_in: str | None,
        dropped: Counter[str],
    ) -> None:
        """Keep what is known.

        Args:
            own: Prompt id to the model's own reply.
            taught: Likewise the teacher's, as far as it was asked.
            labels: What moderators say of them, by `OWN` or `TEACHER` and prompt id; None if there are none.
            stand_in: Text that stands for giving in.
            dropped: Reason to prompts; counted on.
        """
        self._own, self._taught, self._labels, self._stand_in, self._dropped = own, taught, labels, stand_in, dropped

    def row(self, prompt: Prompt) -> Pair | Single | None:
        """The row, or None with the reason counted; prompts that need no cure are not counted."""
        found = self._safe(prompt) if prompt.kind == "safe" else self._toxic(prompt)
        if isinstance(found, str):
            self._dropped[found] += 1
            return None
        return found

    def _safe(self, prompt: Prompt) -> Pair | str | None:
        own = self._own[prompt.id]
        if own.refused is False:
            return None
        if (reason := own_fault(own)) is not None:
            return reason
        reply = self._taught.get(prompt.id)
        if (reason := _unfit(reply, refused=False)) is not None or reply is None:
            return reason
        if self._labels is not None:
            key = (TEACHER, prompt.id)
            passed = self._labels.passed(key)
            if passed is None:
                return "moderator_unread" if key in self._labels.unread else "moderator_failed"
            if not passed:
                return "moderated"
        return self._pair(prompt, reply.response, own.response)

    def _toxic(self, prompt: Prompt) -> Pair | Single | str | None:
        own = self._own[prompt.id]
        if (reason := own_fault(own)) is not None:
            return reason
        if own.refused:
            if broken_off(own) is not None:
                return "own_cut_off"
            return self._without_own_answer(prompt, own.response)
        reply = self._taught.get(prompt.id)
        if (reason := _unfit(reply, refused=True)) is not None or reply is None:
            return reason
        if self._labels is not None and self._labels.passed((OWN, prompt.id)) is not False:
            return self._without_own_answer(prompt, reply.response)  # not found harmful: nothing to unlearn
        return self._pair(prompt, reply.response, own.response)

    def _without_own_answer(self, prompt: Prompt, refusal: str) -> Pair | Single | str:
        """The row of a toxic prompt that the model's own reply gives no bad side to."""
        return self._single(prompt, refusal) if self._stand_in is None else self._pair(prompt, refusal, self._stand_in)

    def _pair(self, prompt: Prompt, chosen: str, rejected: str) -> Pair | str:
        if chosen.strip() == rejected.strip():
            return "chosen_equals_rejected"
        return Pair(
            prompt=user(prompt.text),
            chosen=assistant(chosen),
            rejected=assistant(rejected),
            prompt_id=prompt.id,
            kind=prompt.kind,
            seed_id=prompt.seed_id or "",
            group_id=prompt.group_id or "",
        )

    def _single(self, prompt: Prompt, completion: str) -> Single:
        return Single(
            prompt=user(prompt.text),
            completion=assistant(completion),
            label=True,
            prompt_id=prompt.id,
            kind=prompt.kind,
            seed_id=prompt.seed_id or "",
            group_id=prompt.group_id or "",
        )


def is_failing(own: Row) -> bool:
    """Whether the model did what the prompt's kind does not want."""
    return own.refused is (own.kind == "safe")


def own_fault(own: Row) -> str | None:
    """Why the model's own reply, whichever it is, can neither be learned nor unlearned; None if it can.

    Under some policies an empty reply counts as refused or answered; nothing can be made of it either.
    """
    if own.refused is None:
        return "no_verdict_on_own_reply"
    if own.outcome is Outcome.BLOCKED or broken_off(own) == "blocked":
        return "own_blocked"
    return None if own.response.strip() else "own_said_nothing"


def to_moderate(wanted: Sequence[Prompt], own: Mapping[str, Row], taught: Mapping[str, Row]) -> list[Response]:
    """The teacher's answers to safe prompts, and the model's own answers to toxic ones."""
    found = []
    for prompt in wanted:
        row = taught.get(prompt.id) if prompt.kind == "safe" else own[prompt.id]
        if row is not None and (prompt.kind == "toxic" or _unfit(row, refused=False) is None):
            found.append(
                Response(
                    prompt_id=prompt.id,
                    split=TEACHER if prompt.kind == "safe" else OWN,
                    category=prompt.category,
                    kind=prompt.kind,
                    prompt=prompt.text,
                    response=row.response,
                )
            )
    return found


def way_out(dropped: Counter[str], *, judged: bool) -> str:
    """What helps against the most frequent reason; `judged` if the teacher's replies had a judge already."""
    reason = next((each for each, _ in dropped.most_common() if each in _WAYS_OUT), None)
    if reason in ("teacher_unclear", "no_verdict_on_own_reply") and judged:
        return "The judge could not tell either: take another --judge"
    return _WAYS_OUT.get(reason or "", "Hold out a smaller share, or take a run with more prompts")


def _unfit(reply: Row | None, *, refused: bool) -> str | None:
    """Why a teacher's reply is no `chosen`; None if it is one."""
    if reply is None:
        return "teacher_not_asked"
    if reply.outcome is Outcome.ERROR:
        return "teacher_failed"
    broken = broken_off(reply)
    if reply.outcome is Outcome.BLOCKED or broken == "blocked":
        return "teacher_blocked"
    if not reply.response.strip():
        return "teacher_said_nothing"
    if reply.refused is None:
        return "teacher_unclear"
    if reply.refused is not refused:
        return "teacher_refused" if reply.refused else "teacher_answered_toxic"
    return "teacher_cut_off" if broken else None
