"""Models at work side by side, each on what another one hands it, until nobody has anything left to do.

A `Station` is one model in one role. A model behind a wire gets its jobs one by one as they come. An engine that
wants a whole list gets what has gathered when nothing else is going on, or when a good part has gathered; so does a
vendor's batch API, which gets all that has gathered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from typing import Any, Generic, Protocol, TypeVar

from orbench.engine.calls import CallResult, Receive, complete, first_error
from orbench.engine.limits import ConcurrencyLimit
from orbench.engine.progress import Tally
from orbench.generation.money import Purse
from orbench.models.base import Model
from orbench.records import Message, Request, Sampling


class Job(Protocol):
    """Something to be asked."""

    @property
    def id(self) -> str:
        """The same for the same thing asked in the same turn, in every run; a batch is known by it."""
        ...


J = TypeVar("J", bound=Job)
_PART = 4096
"""Jobs that an engine for lists gets at once at most."""


class Station(Generic[J]):
    """One model in one role, with the jobs that wait for it."""

    def __init__(
        self,
        flow: Flow,
        model: Model,
        sampling: Sampling,
        messages: Callable[[J], tuple[Message, ...]],
        receive: Callable[[J, CallResult], None],
        schema: dict[str, Any] | None,
        limit: ConcurrencyLimit,
        purse: Purse,
        tally: Tally,
        *,
        gives_way: bool = False,
    ) -> None:
        """Say how a job becomes a request and what a reply looks like, what is done with it, who pays, who is told.

        With `gives_way` nothing new is begun while a later station is behind.
        """
        self.model = model
        self._flow = flow
        self._sampling = sampling
        self._messages = messages
        self._receive_job = receive
        self._schema = schema
        self._limit = limit
        self._purse = purse
        self._tally = tally
        self._gives_way = gives_way
        self._queue: asyncio.Queue[J | None] = asyncio.Queue()
        self._asked: dict[str, J] = {}
        self._wake = asyncio.Event()
        flow.stations.append(self)

    @property
    def takes_lists(self) -> bool:
        """Whether it wants whole lists: a local engine, or a vendor's batch API."""
        return self.model.batch_size is None

    @property
    def needs_machine(self) -> bool:
        """Whether it is a local engine."""
        return self.takes_lists and getattr(self.model, "needs_machine", True)

    @property
    def waiting(self) -> int:
        """Jobs that nobody has taken yet."""
        return self._queue.qsize()

    @property
    def is_behind(self) -> bool:
        """Whether more waits than it could have open at once."""
        return self.waiting > self._limit.limit

    def put(self, job: J) -> None:
        """Give it something to do."""
        self._flow.begin()
        self._tally.begin()
        self._queue.put_nowait(job)
        if self.needs_machine and self.waiting >= _PART:
            self._wake.set()

    def wake(self) -> None:
        """Nothing else goes on: take what has gathered."""
        self._wake.set()

    def close(self) -> None:
        """Take its bar off the screen."""
        self._tally.close()

    def end(self) -> None:
        """Nothing will come any more."""
        self._queue.put_nowait(None)
        self._wake.set()

    async def run(self) -> None:
        """Work until the end."""
        if not self.takes_lists:
            await complete(self.model, self._drawn(), self._receive, limit=self._limit)
            return
        while True:
            await self._wake.wait()
            self._wake.clear()
            most = _PART if self.needs_machine else self.waiting
            jobs = [self._queue.get_nowait() for _ in range(min(self.waiting, most))]
            if jobs and jobs[0] is None:
                return
            await self._ask_list([job for job in jobs if job is not None], self._receive, self._flow.done)

    async def ask(self, jobs: list[J]) -> None:
        """Do these jobs alone, beside whatever else goes on."""
        for _ in jobs:
            self._tally.begin()
        if self.takes_lists:
            await self._ask_list(jobs, self._receive_alone, lambda: None)
            return

        async def drawn() -> AsyncIterator[Request]:
            for job in jobs:
                if request := await self._affordable(job):
                    yield request

        await complete(self.model, drawn(), self._receive_alone, limit=self._limit)

    async def _ask_list(self, jobs: list[J], receive: Receive, refused: Callable[[], None]) -> None:
        """Give it the jobs that there is money for; what it did not need may pay for others."""
        jobs = sorted(jobs, key=lambda job: not self._purse.is_under_way(job.id))  # those are paid for
        while jobs:
            requests: list[Request] = []
            for job in jobs:
                request = self._request(job)
                if not await self._purse.hold(request, wait=False):
                    break
                self._asked[request.id] = job
                requests.append(request)
            if not requests:
                for _ in jobs:
                    self._purse.refuse()
                    refused()
                return
            jobs = jobs[len(requests) :]
            async with self._flow.machine if self.needs_machine else nullcontext():
                await complete(self.model, requests, receive)

    async def _drawn(self) -> AsyncIterator[Request]:
        while (job := await self._queue.get()) is not None:
            if request := await self._affordable(job):
                yield request
            else:
                self._flow.done()

    async def _affordable(self, job: J) -> Request | None:
        if self._gives_way:
            await self._flow.catch_up(self)
        request = self._request(job)
        if not await self._purse.hold(request):
            self._purse.refuse()
            return None
        self._asked[request.id] = job
        return request

    def _request(self, job: J) -> Request:
        return Request(id=job.id, messages=self._messages(job), sampling=self._sampling, schema=self._schema)

    async def _receive(self, result: CallResult) -> None:
        await self._receive_alone(result)
        self._flow.done()

    async def _receive_alone(self, result: CallResult) -> None:
        self._purse.settle(result)
        self._tally.done()
        self._receive_job(self._asked.pop(result.request.id), result)


class Flow:
    """Counts what is still to be done over all stations, and ends them when it is nothing."""

    def __init__(self) -> None:
        """Begin with nothing to do."""
        self.stations: list[Station[Any]] = []
        self.machine = asyncio.Lock()
        """Held by the local engine that is at work: each wants the whole machine."""
        self._open = 0
        self._moved = asyncio.Event()

    def begin(self) -> None:
        """Something more is to be done."""
        self._open += 1

    def done(self) -> None:
        """Something is done, and all that follows from it is begun."""
        self._open -= 1
        self._moved.set()
        if self._open == 0:
            for station in self.stations:
                station.end()
        elif any(station.takes_lists for station in self.stations):
            gathered = [station for station in self.stations if station.takes_lists and station.waiting]
            if self._open == sum(station.waiting for station in gathered):
                for station in gathered:
                    station.wake()

    async def catch_up(self, station: Station[Any]) -> None:
        """Wait until no later station is behind, so that money which runs out has finished what it began.

        Those that want whole lists begin when all else is done: nobody waits for them.
        """
        later = self.stations[self.stations.index(station) + 1 :]
        if any(other.takes_lists for other in self.stations):
            return
        while any(other.is_behind for other in later):
            self._moved.clear()
            await self._moved.wait()

    async def run(self, *sources: Awaitable[None]) -> None:
        """Let all stations work until the sources have ended and nothing is left.

        Raises:
            orbench.OrbenchError: Of the first that failed; the others are cancelled.
        """
        self._open += len(sources) + 1  # this very method, so that nothing ends before everything has begun

        async def source(work: Awaitable[None]) -> None:
            await work
            self.done()

        try:
            async with asyncio.TaskGroup() as tasks:
                for station in self.stations:
                    tasks.create_task(station.run())
                for work in sources:
                    tasks.create_task(source(work))
                self.done()
        except BaseExceptionGroup as group:
            raise first_error(group) from None
        finally:
            for station in self.stations:
                station.close()
