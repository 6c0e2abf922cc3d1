"""The engine: gives a model its requests, many at once, tries again what may pass, and hands every result on.

Requests come from any iterable, asynchronous ones included, so that the results of one model can be the requests
of the next while both work. Each request ends in exactly one `CallResult`. There is one layer of retries, this
one; a request that waits for its next attempt holds no slot.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import TypeVar

import msgspec

from orbench.engine.limits import ConcurrencyLimit
from orbench.errors import ModelError, OrbenchError
from orbench.models.base import CallError, Model, RejectedError, RetryableError
from orbench.records import Completion, Request

T = TypeVar("T")

_UNREACHABLE_ATTEMPTS = 3
"""Attempts on a service that was never reached before the run is given up: its address is probably wrong."""
_WAITING = 1000
"""Requests that may wait for another attempt while others take their slots; bounds memory."""


class Retries(msgspec.Struct, frozen=True):
    """How long one request is tried."""

    attempts: int = 8
    """Calls for one request at most."""
    budget_s: float = 600.0
    """Seconds from the first attempt after which no further one is begun."""

    def wait_s(self, attempt: int, retry_after: float | None) -> float:
        """Seconds to wait after the given attempt (counted from 1) failed.

        The server's own wish is kept and only lengthened, by up to a tenth. Else the wait doubles from half a
        second to a minute, and is drawn from its upper half so that failed calls do not come back all at once.
        """
        if retry_after is not None:
            return max(0.0, retry_after) * random.uniform(1.0, 1.1)
        return min(60.0, 0.5 * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)


class CallResult(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How one request ended: with a completion, or with the error that the last attempt met."""

    request: Request
    completion: Completion | None
    error: str | None = None
    attempts: int = 1
    latency_s: float | None = None


Receive = Callable[[CallResult], Awaitable[None]]
"""Called once for each request, in the order in which they end."""


async def complete(
    model: Model,
    requests: Iterable[Request] | AsyncIterable[Request],
    receive: Receive,
    *,
    limit: ConcurrencyLimit | None = None,
    retries: Retries = Retries(),
) -> None:
    """Ask the model every request and hand each result to `receive`.

    Args:
        model: What to ask.
        requests: Drawn as they are needed where the model takes one at a time, all at once where it takes the list.
        receive: Gets each result; what it raises ends the run.
        limit: Calls open at once; by default as the model wishes, else adaptive.
        retries: How long a request is tried.

    Raises:
        OrbenchError: The model cannot be used at all, or `receive` raised it. Open calls are cancelled.
    """
    if model.batch_size is None:
        await _complete_list(model, [request async for request in _each(requests)], receive, retries)
        return
    limit = limit or ConcurrencyLimit(model.max_concurrency)
    room = asyncio.Semaphore(limit.maximum + _WAITING)
    calls = _Calls(model, limit, retries)

    async def one(request: Request) -> None:
        try:
            await receive(await calls.result(request))
        finally:
            room.release()

    try:
        async with asyncio.TaskGroup() as tasks:
            async for request in _each(requests):
                await room.acquire()
                tasks.create_task(one(request))
    except BaseExceptionGroup as group:
        raise _first(group) from None


class _Calls:
    """Single calls to one model, each tried until it ends; knows whether the model ever answered."""

    def __init__(self, model: Model, limit: ConcurrencyLimit, retries: Retries) -> None:
        self._model = model
        self._limit = limit
        self._retries = retries
        self._reached = False

    async def result(self, request: Request) -> CallResult:
        """Try one request until it is answered or given up."""
        began = time.monotonic()
        attempt = 0
        while True:
            attempt += 1
            cuts = await self._limit.acquire()
            sent = time.monotonic()
            try:
                completion = await self._once(request)
                self._reached = True
                self._limit.succeeded()
                return CallResult(
                    request=request,
                    completion=completion,
                    error=completion.error,
                    attempts=attempt,
                    latency_s=round(time.monotonic() - sent, 4),
                )
            except RetryableError as error:
                failure = error
                if error.overloaded:
                    self._limit.overloaded(cuts)
            except OrbenchError:
                raise
            except Exception as error:
                self._reached = True
                return CallResult(request=request, completion=None, error=describe(error), attempts=attempt)
            finally:
                self._limit.release()
            if failure.unreachable and not self._reached and attempt >= _UNREACHABLE_ATTEMPTS:
                raise ModelError(f"{self._model.name}: {failure}")
            self._reached = self._reached or not failure.unreachable
            wait = self._retries.wait_s(attempt, failure.retry_after)
            if attempt >= self._retries.attempts or time.monotonic() - began + wait > self._retries.budget_s:
                return CallResult(request=request, completion=None, error=describe(failure), attempts=attempt)
            await asyncio.sleep(wait)

    async def _once(self, request: Request) -> Completion:
        async with aclosing(self._model.generate([request])) as completions:
            async for completion in completions:
                return completion
        raise RejectedError("the model gave no completion")


async def _complete_list(model: Model, requests: list[Request], receive: Receive, retries: Retries) -> None:
    """Give the model the whole list; what it leaves unanswered after a failure that may pass is asked again."""
    open_requests = {request.id: request for request in requests}
    attempt = 0
    began = time.monotonic()
    while open_requests:
        attempt += 1
        error: str = "the model gave no completion"
        try:
            async with aclosing(model.generate(list(open_requests.values()))) as completions:
                async for completion in completions:
                    request = open_requests.pop(completion.id)
                    await receive(
                        CallResult(request=request, completion=completion, error=completion.error, attempts=attempt)
                    )
        except RetryableError as failure:
            wait = retries.wait_s(attempt, failure.retry_after)
            if attempt < retries.attempts and time.monotonic() - began + wait <= retries.budget_s:
                await asyncio.sleep(wait)
                continue
            error = describe(failure)
        except CallError as failure:
            error = describe(failure)
        for request in open_requests.values():
            await receive(CallResult(request=request, completion=None, error=error, attempts=attempt))
        return


def describe(error: BaseException) -> str:
    """One line for an error row: the message, with the type where the message alone says too little."""
    text = " ".join(str(error).split())
    if not isinstance(error, CallError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text[:500]


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended the run: tasks that fail side by side mostly say the same."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _each(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
