"""Models at work side by side, each on what another one hands it, until nobody has anything left to do.

A `Station` is one model in one role. A model behind a wire gets its jobs one by one as they come. An engine that
wants a whole list gets what has gathered when nothing else is going on, or when a good part has gathered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Generic, TypeVar

from orbench.engine.calls import CallResult, complete, first_error
from orbench.engine.limits import ConcurrencyLimit
from orbench.models.base import Model
from orbench.records import Message, Request, Sampling

J = TypeVar("J")
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
        concurrency: int | None,
    ) -> None:
        """Say how a job becomes a request, and what is done with its result."""
        self.model = model
        self._flow = flow
        self._sampling = sampling
        self._messages = messages
        self._receive_job = receive
        self._limit = ConcurrencyLimit(concurrency or model.max_concurrency)
        self._queue: asyncio.Queue[J | None] = asyncio.Queue()
        self._asked: dict[str, J] = {}
        self._numbers = 0
        self._wake = asyncio.Event()
        flow.stations.append(self)

    @property
    def is_local(self) -> bool:
        """Whether it wants whole lists."""
        return self.model.batch_size is None

    @property
    def waiting(self) -> int:
        """Jobs that nobody has taken yet."""
        return self._queue.qsize()

    def put(self, job: J) -> None:
        """Give it something to do."""
        self._flow.begin()
        self._queue.put_nowait(job)
        if self.is_local and self.waiting >= _PART:
            self._wake.set()

    def wake(self) -> None:
        """Nothing else goes on: take what has gathered."""
        self._wake.set()

    def end(self) -> None:
        """Nothing will come any more."""
        self._queue.put_nowait(None)
        self._wake.set()

    async def run(self) -> None:
        """Work until the end."""
        if not self.is_local:
            await complete(self.model, self._drawn(), self._receive, limit=self._limit)
            return
        while True:
            await self._wake.wait()
            self._wake.clear()
            jobs = [self._queue.get_nowait() for _ in range(min(self.waiting, _PART))]
            if jobs and jobs[0] is None:
                return
            requests = [self._request(job) for job in jobs if job is not None]
            async with self._flow.machine:
                await complete(self.model, requests, self._receive)

    async def ask(self, jobs: list[J]) -> None:
        """Do these jobs alone, beside whatever else goes on."""
        requests = [self._request(job) for job in jobs]
        if self.is_local:
            async with self._flow.machine:
                await complete(self.model, requests, self._receive_alone)
        else:
            await complete(self.model, requests, self._receive_alone, limit=self._limit)

    async def _drawn(self) -> AsyncIterator[Request]:
        while (job := await self._queue.get()) is not None:
            yield self._request(job)

    def _request(self, job: J) -> Request:
        self._numbers += 1
        id = str(self._numbers)
        self._asked[id] = job
        return Request(id=id, messages=self._messages(job), sampling=self._sampling)

    async def _receive(self, result: CallResult) -> None:
        self._receive_job(self._asked.pop(result.request.id), result)
        self._flow.done()

    async def _receive_alone(self, result: CallResult) -> None:
        self._receive_job(self._asked.pop(result.request.id), result)


class Flow:
    """Counts what is still to be done over all stations, and ends them when it is nothing."""

    def __init__(self) -> None:
        """Begin with nothing to do."""
        self.stations: list[Station[Any]] = []
        self.machine = asyncio.Lock()
        """Held by the local engine that is at work: each wants the whole machine."""
        self._open = 0

    def begin(self) -> None:
        """Something more is to be done."""
        self._open += 1

    def done(self) -> None:
        """Something is done, and all that follows from it is begun."""
        self._open -= 1
        if self._open == 0:
            for station in self.stations:
                station.end()
        elif any(station.is_local for station in self.stations):
            local = [station for station in self.stations if station.is_local and station.waiting]
            if self._open == sum(station.waiting for station in local):
                for station in local:
                    station.wake()

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
