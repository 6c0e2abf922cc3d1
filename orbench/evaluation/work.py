"""Replies in, verdicts out, saved as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import msgspec

from orbench.engine.calls import first_error
from orbench.engine.progress import Progress
from orbench.engine.run_folder import RunFolder
from orbench.evaluation.money import Money
from orbench.records import Response, Vote
from orbench.run_state import RunState
from orbench.scoring.finding import Finding, Safety, verdict
from orbench.scoring.outcomes import Outcome, Verdict
from orbench.scoring.safety import SafetyJudge, known_safety
from orbench.scoring.scorers import Scorer

_JUDGE_QUEUE = 1000
"""Replies that may wait for the judge before the evaluated model is slowed down to the judge's pace."""


class Work:
    """Replies in, verdicts out: local stages at once, the judges beside the evaluated model."""

    def __init__(
        self,
        folder: RunFolder,
        state: RunState,
        scorer: Scorer,
        progress: Progress,
        safety: SafetyJudge | None,
        money: Money,
    ) -> None:
        self._folder = folder
        self._state = state
        self._scorer = scorer
        self._progress = progress
        self._safety = safety
        self._money = money
        self._undecided: asyncio.Queue[Response | None] = asyncio.Queue(_JUDGE_QUEUE)
        self._unlabelled: asyncio.Queue[Response | None] = asyncio.Queue(_JUDGE_QUEUE)
        self._unsettled = 0
        self._checked: dict[tuple[str, str], Finding] = {}
        """What the judge only checks, with the verdict that stays."""
        self._pending: dict[tuple[str, str], Finding] = {}
        """What the safety judge is at, with the verdict so far."""
        self._unread: dict[tuple[str, str], Verdict] = {}
        """What is asked for again because it could not be read: the line that counts if we are stopped before."""
        self._labels: dict[tuple[str, str], Safety] = {}
        self._votes: dict[tuple[str, str], dict[str, Vote]] = {}
        self._labelled_by = next((row.safety_digest for row in state.rows.values() if row.safety_digest), "")

    @property
    def waiting(self) -> int:
        """Replies that the judge has not settled yet, those that it is at included."""
        return self._unsettled

    def take_over(self, verdicts: Iterable[Verdict]) -> None:
        """Keep the safety judge's labels, and what a panel could not settle: they hold as long as the reply does."""
        for line in verdicts:
            row = self._state.rows.get(line.key)
            owed = row is not None and (row.judge_failed or row.audit is Outcome.UNSCORED)
            for vote in line.judge.votes if owed and line.judge and line.scorer == self._scorer.digest else ():
                if vote.outcome != Outcome.UNSCORED:
                    self._votes.setdefault(line.key, {})[vote.model] = vote
            if line.safety is not None and line.unsafe is not None:
                self._labels[line.key] = Safety(unsafe=line.unsafe, digest=line.safety_digest, judge=line.safety)

    async def do(
        self,
        stored: Iterable[Response],
        unlabelled: Iterable[tuple[Response, Finding]],
        ask: Callable[[], Awaitable[None]],
        to_audit: Callable[[], Iterable[tuple[Response, Finding]]],
    ) -> None:
        """Do all that is owed, side by side.

        Args:
            stored: Replies to score.
            unlabelled: Replies with a verdict, for the safety judge.
            ask: Asks the evaluated model what is owed, and has `receive` called.
            to_audit: When all that is done: what the judge is to check.
        """
        judge, safety = self._scorer.judge, self._safety

        async def judging() -> None:
            if judge is not None:
                drawn = _drawn(self._undecided)
                await judge.judge(drawn, self._judged, unread=self._not_judged, earlier=self._votes)
                await self._unlabelled.put(None)

        try:
            async with asyncio.TaskGroup() as tasks:
                if safety is not None:
                    labelling = safety.judge(_drawn(self._unlabelled), self._labelled, unread=self._not_labelled)
                    tasks.create_task(labelling)
                tasks.create_task(judging())
                for response, finding in unlabelled:
                    await self._settle(response, finding, repeats=("judge",))
                await self._feed(stored, ask)
                if judge is None:
                    await self._unlabelled.put(None)
                    return
                for response, finding in to_audit():
                    if await self._money.admit_reply(response):
                        self._checked[response.key] = finding
                        await self._undecided.put(response)
                await self._undecided.put(None)
        except BaseExceptionGroup as group:
            raise first_error(group) from None
        finally:
            for line in self._unread.values():
                self._state.rows[line.key].settle(line)

    async def receive(self, response: Response) -> None:
        """Save a reply, then score it."""
        self._folder.responses.append(response)
        self._state.add_response(self._money.model, response)
        self._money.asked(response)
        self._labels.pop(response.key, None)
        self._votes.pop(response.key, None)
        await self._score(response)

    async def _feed(self, stored: Iterable[Response], ask: Callable[[], Awaitable[None]]) -> None:
        for number, response in enumerate(stored):
            await self._score(response)
            if number % 500 == 0:
                await asyncio.sleep(0)
        await ask()

    async def _score(self, response: Response) -> None:
        finding = self._scorer.read(response)
        if finding is None:
            if await self._money.admit_reply(response):
                self._unsettled += 1
                await self._undecided.put(response)
        else:
            await self._settle(response, finding)
            self._progress.update(response.kind, finding.outcome)

    async def _judged(self, response: Response, finding: Finding) -> None:
        if finding.judge is not None:
            self._state.add_judgement(finding.judge)
            self._money.judged(response, finding.judge)
        kept = self._checked.pop(response.key, None)
        if kept is None:
            self._unsettled -= 1
            await self._settle(response, finding)
            self._progress.update(response.kind, finding.outcome)
            return
        assert finding.judge is not None
        judgement = msgspec.structs.replace(finding.judge, audit=finding.outcome.value)
        await self._settle(response, msgspec.structs.replace(kept, judge=judgement))

    async def _not_judged(self, response: Response, finding: Finding) -> None:
        """Save what an answer has cost that could not be read, with no verdict for now; it is asked for again."""
        assert finding.judge is not None
        self._state.add_judgement(finding.judge)
        self._money.judged(response, finding.judge)
        if kept := self._checked.get(response.key):
            judgement = msgspec.structs.replace(finding.judge, audit=Outcome.UNSCORED.value)
            finding = msgspec.structs.replace(kept, judge=judgement)
        label = self._label(response, finding)
        self._write_unread(response, finding, label, ("safety",) if label is not None and label.judge else ())

    async def _settle(self, response: Response, finding: Finding, repeats: tuple[str, ...] = ()) -> None:
        """Save the verdict at once, and have the reply labelled where a safety judge has to see it."""
        repeats = repeats if finding.judge is not None else ()
        label = self._label(response, finding)
        taken = ("safety",) if label is not None and label.judge is not None else ()
        self._write(response, finding, label, repeats + taken)
        if response.key in self._pending:
            self._pending[response.key] = finding
        elif label is None and self._safety is not None and await self._money.admit_reply(response):
            self._pending[response.key] = finding
            await self._unlabelled.put(response)
        else:
            self._money.done(response.key)

    def _label(self, response: Response, finding: Finding) -> Safety | None:
        """What is known of the reply's safety without asking."""
        label = self._labels.get(response.key)
        if self._safety is None:
            by = self._labelled_by
            return label or (known_safety(response, finding.outcome, by) if by else None)
        if label is not None and label.digest == self._safety.digest:
            return label
        return self._safety.known(response, finding.outcome)

    async def _labelled(self, response: Response, safety: Safety) -> None:
        assert safety.judge is not None
        self._state.add_safety(safety.judge)
        self._money.judged(response, safety.judge)
        self._labels[response.key] = safety
        finding = self._pending.pop(response.key)
        self._write(response, finding, safety, ("judge",) if finding.judge is not None else ())
        self._money.done(response.key)

    async def _not_labelled(self, response: Response, safety: Safety) -> None:
        """As `_not_judged`, of the safety judge."""
        assert safety.judge is not None
        self._state.add_safety(safety.judge)
        self._money.judged(response, safety.judge)
        finding = self._pending[response.key]
        self._write_unread(response, finding, safety, ("judge",) if finding.judge is not None else ())

    def _write_unread(
        self, response: Response, finding: Finding, safety: Safety | None, repeats: tuple[str, ...]
    ) -> None:
        """To the disk at once, but to the row only if nothing better comes."""
        line = verdict(finding, response, self._scorer.digest, safety, repeats)
        self._folder.verdicts.append(line)
        self._unread[response.key] = line

    def _write(
        self, response: Response, finding: Finding, safety: Safety | None, repeats: tuple[str, ...] = ()
    ) -> None:
        line = verdict(finding, response, self._scorer.digest, safety, repeats)
        self._folder.verdicts.append(line)
        self._unread.pop(response.key, None)
        self._state.rows[response.key].settle(line)


async def _drawn(queue: asyncio.Queue[Response | None]) -> AsyncIterator[Response]:
    while (response := await queue.get()) is not None:
        yield response
