"""Replies in, verdicts out, saved as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import msgspec

from orbench.engine.calls import first_error
from orbench.engine.progress import Progress
from orbench.engine.run_folder import RunFolder
from orbench.records import Response
from orbench.results import RowState, RunState
from orbench.scoring.finding import Finding, Safety, verdict
from orbench.scoring.outcomes import Verdict
from orbench.scoring.safety import SafetyJudge, known_safety
from orbench.scoring.scorers import Scorer

_JUDGE_QUEUE = 1000
"""Replies that may wait for the judge before the evaluated model is slowed down to the judge's pace."""


class Work:
    """Replies in, verdicts out: local stages at once, the judges beside the evaluated model."""

    def __init__(
        self, folder: RunFolder, state: RunState, scorer: Scorer, progress: Progress, safety: SafetyJudge | None
    ) -> None:
        self._folder = folder
        self._state = state
        self._scorer = scorer
        self._progress = progress
        self._safety = safety
        self._undecided: asyncio.Queue[Response | None] = asyncio.Queue(_JUDGE_QUEUE)
        self._unlabelled: asyncio.Queue[Response | None] = asyncio.Queue(_JUDGE_QUEUE)
        self._unsettled = 0
        self._checked: dict[tuple[str, str], Finding] = {}
        """What the judge only checks, with the verdict that stays."""
        self._pending: dict[tuple[str, str], Finding] = {}
        """What the safety judge is at, with the verdict so far."""
        self._labels: dict[tuple[str, str], Safety] = {}
        self._labelled_by = next((row.safety_digest for row in state.rows.values() if row.safety_digest), "")

    @property
    def waiting(self) -> int:
        """Replies that the judge has not settled yet, those that it is at included."""
        return self._unsettled

    def keep_labels(self, verdicts: Iterable[Verdict]) -> None:
        """Take over the safety judge's labels from before: they hold as long as the reply does."""
        for line in verdicts:
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
                await judge.judge(_drawn(self._undecided), self._judged)
                await self._unlabelled.put(None)

        try:
            async with asyncio.TaskGroup() as tasks:
                if safety is not None:
                    tasks.create_task(safety.judge(_drawn(self._unlabelled), self._labelled))
                tasks.create_task(judging())
                for response, finding in unlabelled:
                    await self._settle(response, finding, repeats=("judge",))
                await self._feed(stored, ask)
                if judge is None:
                    await self._unlabelled.put(None)
                    return
                for response, finding in to_audit():
                    self._checked[response.key] = finding
                    await self._undecided.put(response)
                await self._undecided.put(None)
        except BaseExceptionGroup as group:
            raise first_error(group) from None

    async def receive(self, response: Response) -> None:
        """Save a reply, then score it."""
        self._folder.responses.append(response)
        self._state.usage.add(response.attempts, response.usage)
        self._labels.pop(response.key, None)
        self._state.rows[response.key] = RowState(
            kind=response.kind, category=response.category, failed=response.error is not None
        )
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
            self._unsettled += 1
            await self._undecided.put(response)
        else:
            await self._settle(response, finding)
            self._progress.update(response.kind, finding.outcome)

    async def _judged(self, response: Response, finding: Finding) -> None:
        if finding.judge is not None:
            self._state.judge_usage.add(finding.judge.requests, finding.judge.usage)
        kept = self._checked.pop(response.key, None)
        if kept is None:
            self._unsettled -= 1
            await self._settle(response, finding)
            self._progress.update(response.kind, finding.outcome)
            return
        assert finding.judge is not None
        judgement = msgspec.structs.replace(finding.judge, audit=finding.outcome.value)
        await self._settle(response, msgspec.structs.replace(kept, judge=judgement))

    async def _settle(self, response: Response, finding: Finding, repeats: tuple[str, ...] = ()) -> None:
        """Save the verdict at once, and have the reply labelled where a safety judge has to see it."""
        repeats = repeats if finding.judge is not None else ()
        label = self._label(response, finding)
        taken = ("safety",) if label is not None and label.judge is not None else ()
        self._write(response, finding, label, repeats + taken)
        if response.key in self._pending:
            self._pending[response.key] = finding
        elif label is None and self._safety is not None:
            self._pending[response.key] = finding
            await self._unlabelled.put(response)

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
        self._state.safety_usage.add(safety.judge.requests, safety.judge.usage)
        self._labels[response.key] = safety
        finding = self._pending.pop(response.key)
        self._write(response, finding, safety, ("judge",) if finding.judge is not None else ())

    def _write(
        self, response: Response, finding: Finding, safety: Safety | None, repeats: tuple[str, ...] = ()
    ) -> None:
        line = verdict(finding, response, self._scorer.digest, safety, repeats)
        self._folder.verdicts.append(line)
        self._state.rows[response.key].settle(line)


async def _drawn(queue: asyncio.Queue[Response | None]) -> AsyncIterator[Response]:
    while (response := await queue.get()) is not None:
        yield response
