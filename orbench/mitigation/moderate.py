"""Whether moderators find replies unsafe; asked with the safety judge's template, or a guard model's own form.

In: replies and moderators. Out: a label for each, saved line by line as it comes, so that the same command asks
nothing twice. A moderator that cannot be read says nothing: such a reply has not passed.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from orbench.engine.jsonl import Appender, read_lines
from orbench.models.base import Model
from orbench.records import Judgement, Response
from orbench.evaluation.setup import refuse_repeated
from orbench.results import Ledger, Ledgers
from orbench.scoring.finding import Safety
from orbench.scoring.safety import SafetyJudge


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `moderation.jsonl`: what one moderator says of one reply."""

    split: str
    prompt_id: str
    reply: str
    """First 16 hexadecimal digits of the sha256 of the reply, so that no label outlives it."""
    moderator: str
    """The moderator and its form."""
    unsafe: bool | None
    """None if it could not be read; the same command asks again."""
    judgement: Judgement | None = None


class Moderated(msgspec.Struct, frozen=True):
    """What all moderators said of some replies."""

    labels: dict[tuple[str, str], tuple[bool | None, ...]]
    """(split, prompt id) to each moderator's `unsafe`."""
    usage: Ledgers
    """Moderator to what it was asked, earlier commands included."""
    names: tuple[str, ...] = ()
    """Those at work now."""

    def passed(self, key: tuple[str, str]) -> bool | None:
        """True if every moderator finds the reply safe, False if one finds it unsafe, None if one cannot be read."""
        labels = self.labels.get(key, ())
        return False if True in labels else None if None in labels else True


async def moderate(moderators: Sequence[Model], replies: Iterable[Response], path: Path) -> Moderated:
    """Ask every moderator about every reply that it has not labelled yet.

    Args:
        moderators: Models; guard models (told by their name) are asked in a form of their own.
        replies: What to label; (split, prompt_id) names each.
        path: The file of labels, continued if it exists.

    Raises:
        orbench.UsageError: Two moderators of one name.
        orbench.ModelError: A moderator cannot be used at all.
        orbench.RunError: The file cannot be read or written.
    """
    replies = list(replies)
    known: dict[tuple[str, str, str, str], bool | None] = {}
    refuse_repeated(
        [model.name for model in moderators], "the moderator {} is given twice: give each a name of its own"
    )
    usage: Ledgers = {model.name: Ledger() for model in moderators}

    def count(spent: Judgement | None) -> None:
        if spent is not None:
            usage.setdefault(spent.model, Ledger()).add(spent.requests, spent.usage, answered=bool(spent.reply))

    for line in read_lines(path, Label):
        known[line.split, line.prompt_id, line.reply, line.moderator] = line.unsafe
        count(line.judgement)
    judges = [SafetyJudge(model) for model in moderators]
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(Appender[Label](path)) as file:
        for judge in judges:
            owed = [reply for reply in replies if known.get(_key(reply, judge)) is None]

            async def keep(response: Response, safety: Safety, judge: SafetyJudge = judge) -> None:
                split, prompt_id, reply, moderator = key = _key(response, judge)
                known[key] = safety.unsafe
                count(safety.judge)
                file.append(
                    Label(
                        split=split,
                        prompt_id=prompt_id,
                        reply=reply,
                        moderator=moderator,
                        unsafe=safety.unsafe,
                        judgement=safety.judge,
                    )
                )

            if owed:
                await judge.judge(_each(owed), keep)
    labels = {reply.key: tuple(known.get(_key(reply, judge)) for judge in judges) for reply in replies}
    return Moderated(labels, usage, tuple(judge.model.name for judge in judges))


def _key(response: Response, judge: SafetyJudge) -> tuple[str, str, str, str]:
    digest = hashlib.sha256(response.response.encode()).hexdigest()[:16]
    return response.split, response.prompt_id, digest, judge.digest


async def _each(responses: Sequence[Response]) -> AsyncIterator[Response]:
    for response in responses:
        yield response
