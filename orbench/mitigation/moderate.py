"""Whether moderators find replies unsafe; asked with the safety judge's template, or a guard model's own form.

In: replies and moderators. Out: a label for each, saved line by line as it comes, so that the same command asks
nothing twice. A moderator that cannot be read says nothing: such a reply has not passed.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from orbench.costs import Estimate
from orbench.engine.jsonl import Appender, read_lines
from orbench.engine.threads import run_sync
from orbench.evaluation.setup import AnyModel, refuse_repeated, shared_base_url
from orbench.ledger import Ledger, Ledgers
from orbench.mitigation.terms import NO_TERMS, Terms
from orbench.models import make_options, open_model
from orbench.models.base import Model
from orbench.records import Judgement, Prompt, Response
from orbench.scoring.finding import Safety
from orbench.scoring.safety import SafetyJudge

MODERATION = "moderation.jsonl"


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
    cost_usd: dict[str, float | None] = {}
    """`moderator NAME` to what it has cost."""
    unread: frozenset[tuple[str, str]] = frozenset()
    """Replies about which a moderator answered what cannot be read; others without a label were not asked about, or
    the call failed."""

    def passed(self, key: tuple[str, str]) -> bool | None:
        """True if every moderator finds the reply safe, False if one finds it unsafe, None if that is not known."""
        labels = self.labels.get(key, ())
        return False if True in labels else None if None in labels or not labels else True


async def moderate(
    moderators: Sequence[Model], replies: Iterable[Response], path: Path, terms: Terms = NO_TERMS
) -> Moderated:
    """Ask every moderator about every reply that it has not labelled yet.

    Args:
        moderators: Models; guard models (told by their name) are asked in a form of their own.
        replies: What to label; (split, prompt_id) names each.
        path: The file of labels, continued if it exists.
        terms: Calls open at once, and the money; replies that there is none for have no label.

    Raises:
        orbench.UsageError: One has no price where there is a bound.
        orbench.ModelError: A moderator cannot be used at all.
        orbench.RunError: The file cannot be read or written.
    """
    replies = list(replies)
    known: dict[tuple[str, str, str, str], bool | None] = {}
    usage: Ledgers = {model.name: Ledger() for model in moderators}

    def count(spent: Judgement | None) -> None:
        if spent is not None:
            usage.setdefault(spent.model, Ledger()).add(spent.requests, spent.usage, answered=bool(spent.reply))

    for line in read_lines(path, Label):
        known[line.split, line.prompt_id, line.reply, line.moderator] = line.unsafe
        count(line.judgement)
    judges = [SafetyJudge(model, terms.limit(model)) for model in moderators]
    unread = set()
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(Appender[Label](path)) as file:
        for judge in judges:
            owed = [reply for reply in replies if known.get(_key(reply, judge)) is None]

            async def keep(response: Response, safety: Safety, judge: SafetyJudge = judge) -> None:
                split, prompt_id, reply, moderator = key = _key(response, judge)
                known[key] = safety.unsafe
                if safety.failed and safety.judge and safety.judge.reply:
                    unread.add(response.key)
                count(safety.judge)
                terms.settle(judge.model, response, safety.judge, judge.messages)
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
                await judge.judge(terms.afford(judge.model, owed, judge.messages), keep)
    labels = {reply.key: tuple(known.get(_key(reply, judge)) for judge in judges) for reply in replies}
    return Moderated(labels, usage, terms.costs_of("moderator", usage, moderators), frozenset(unread))


class Moderators:
    """The moderators, opened where they are needed; nothing is sent before `ask`."""

    def __init__(
        self,
        models: Sequence[AnyModel],
        teachers: Sequence[AnyModel],
        base_url: str | None,
        path: Path,
        terms: Terms,
    ) -> None:
        """Keep them; nothing is opened yet.

        Args:
            models: The moderators.
            teachers: Whose address, `base_url`, they share if they are of the same provider.
            base_url: See there.
            path: The file of labels.
            terms: Calls open at once, and the money.
        """
        self._models, self._terms, self._path = models, terms, path
        self._options = [
            make_options(shared_base_url(base_url, teachers, one), terms.concurrency, None) for one in models
        ]

    def check(self) -> None:
        """Before a teacher is paid: whether each can be opened and has a price, and what was paid to it before.

        Raises:
            orbench.UsageError: One has no price where there is a bound, or is given twice.
        """
        self._terms.count_spent(self._path, Label)
        self._do(lambda opened: [self._terms.price(model) for model in opened])

    def estimate(self, prompts: Sequence[Prompt], max_tokens: int) -> list[Estimate]:
        """What they would take for a reply to each prompt, as far as they have not labelled it yet."""
        lines = (line for line in read_lines(self._path, Label) if line.unsafe is not None)
        known = {(line.split, line.prompt_id, line.moderator) for line in lines}

        def estimates(opened: Sequence[Model]) -> list[Estimate]:
            judges = [SafetyJudge(model) for model in opened]
            texts = [[p.text for p in prompts if (p.split, p.id, judge.digest) not in known] for judge in judges]
            return [
                self._terms.estimate(judge.model, mine, max_tokens, judge.messages)
                for judge, mine in zip(judges, texts, strict=True)
            ]

        found: list[Estimate] = self._do(estimates)
        return found

    def moderate(self, replies: Sequence[Response]) -> Moderated:
        """All of them about all replies."""
        if not self._models:
            return Moderated({}, {})
        found: Moderated = self._do(lambda opened: moderate(opened, replies, self._path, self._terms))
        return found

    def _do(self, what: Callable[[Sequence[Model]], Any]) -> Any:
        async def do() -> Any:
            opened: list[Model] = []
            try:
                for one, options in zip(self._models, self._options, strict=True):
                    opened.append(open_model(one, options))
                refuse_repeated([model.name for model in opened], "two moderators are called {}: name each once")
                found = what(opened)
                return await found if inspect.isawaitable(found) else found
            finally:
                for model in opened:
                    await model.close()

        return run_sync(do())


def _key(response: Response, judge: SafetyJudge) -> tuple[str, str, str, str]:
    digest = hashlib.sha256(response.response.encode()).hexdigest()[:16]
    return response.split, response.prompt_id, digest, judge.digest
