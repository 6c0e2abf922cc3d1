"""The engine: gives a model its requests, many at once, tries again what may pass, and hands every result on.

Requests come from any iterable, asynchronous ones included, so that the results of one model can be the requests
of the next while both work. Each request ends in exactly one `CallResult`. There is one layer of retries, this
one; a request that waits for its next attempt holds no slot.
"""

from __future__ import annotations

import asyncio
import datetime
import math
import random
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import TypeVar

import msgspec

from orbench.engine.limits import ConcurrencyLimit, limit_for
from orbench.errors import ModelError, OrbenchError
from orbench.models.base import CallError, Model, RejectedError, RetryableError
from orbench.models.keys import without_keys
from orbench.records import Completion, Request

T = TypeVar("T")

_UNREACHABLE_ATTEMPTS = 3
"""Attempts on a service that was never reached before the run is given up: its address is probably wrong."""
_WHILE_OTHERS_S = 4.0
"""Longest wait of our own choice while the service answers other calls."""
_ANSWERS_S = 10.0
"""It does if it has answered one within so many seconds."""
_WAITING = 1000
"""Requests that may wait, for another attempt or for `receive`, while others take their slots; bounds memory."""


class Retries(msgspec.Struct, frozen=True):
    """How long one request is tried."""

    attempts: int = 8
    """Calls for one request at most."""
    budget_s: float = 600.0
    """Seconds after which no further attempt is begun: for a single call from its first attempt, for a whole list
    from the first failure since it last got on."""

    def wait_s(self, attempt: int, retry_after: float | None) -> float:
        """Seconds to wait after the given attempt (counted from 1) failed.

        The server's own wish is kept and only lengthened, by up to a tenth. Else the wait doubles from half a
        second to a minute, and is drawn from its upper half so that failed calls do not come back all at once.
        """
        if retry_after is not None:
            return max(0.0, retry_after) * random.uniform(1.0, 1.1)
        return min(60.0, 0.5 * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)

    def next_wait_s(self, attempt: int, spent_s: float, retry_after: float | None) -> float | None:
        """As `wait_s`, or None where attempts or budget are used up after `spent_s` seconds."""
        wait = self.wait_s(attempt, retry_after)
        return None if attempt >= self.attempts or spent_s + wait > self.budget_s else wait


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
        OrbenchError: The model cannot be used at all, or is overloaded and asks to wait beyond `retries`, or `receive`
            raised it. Open calls are cancelled.
    """
    if model.batch_size is None:
        await _complete_list(model, [request async for request in each(requests)], receive, retries)
        return
    limit = limit or limit_for(model)
    room = asyncio.Semaphore(limit.maximum + _WAITING)
    calls = _Calls(model, limit, retries)
    waiting = 0  # tasks that have a slot and did not run yet

    async def one(request: Request, cuts: int) -> None:
        nonlocal waiting
        waiting -= 1
        await receive(await calls.result(request, cuts))
        room.release()

    try:
        async with asyncio.TaskGroup() as tasks, aclosing(each(requests)) as drawn:
            async for request in drawn:
                await room.acquire()
                if delay := limit.pace.delay_s(request):
                    await asyncio.sleep(delay)
                # Slots are taken here, so that a request which comes back for its next attempt stands in line with
                # this one alone, not with all that are still to come.
                cuts = await limit.acquire()
                waiting += 1
                tasks.create_task(one(request, cuts))
    except BaseExceptionGroup as group:
        raise first_error(group) from None
    finally:
        for _ in range(waiting):  # cancelled before their first step
            limit.release()


class _Calls:
    """Single calls to one model, each tried until it ends; knows whether the model was ever reached."""

    def __init__(self, model: Model, limit: ConcurrencyLimit, retries: Retries) -> None:
        self._model = model
        self._limit = limit
        self._retries = retries
        self._reached = False
        self._answered_at = -math.inf

    async def result(self, request: Request, cuts: int) -> CallResult:
        """Try one request until it is answered or given up.

        Args:
            request: What to ask.
            cuts: What the limit's `acquire` returned: the call begins with a slot, and ends without.
        """
        began = time.monotonic()
        attempt = 0
        has_slot = True
        try:
            while True:
                attempt += 1
                sent = time.monotonic()
                try:
                    completion = await self._once(request)
                except RetryableError as error:
                    failure = error
                    self._told()
                    if error.overloaded:
                        self._limit.overloaded(cuts)
                except OrbenchError:
                    raise
                except (Exception, asyncio.CancelledError) as error:
                    if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                        raise
                    self._reached = True
                    return given_up(self._model, request, error, attempt)
                else:
                    self._reached = True
                    self._answered_at = time.monotonic()
                    self._limit.succeeded()
                    self._limit.pace.used(request, completion.usage)
                    self._told()
                    return CallResult(
                        request=request,
                        completion=completion,
                        error=completion.error,
                        attempts=attempt,
                        latency_s=round(time.monotonic() - sent, 4),
                    )
                self._reached = self._reached or not failure.unreachable
                if not self._reached and attempt >= _UNREACHABLE_ATTEMPTS:
                    raise ModelError(f"{self._model.name}: {failure}")
                wait = self._wait_s(failure, attempt, began)
                if wait is None:
                    return given_up(self._model, request, failure, attempt)
                if self._reached:  # else the others would not reach it either, and need not try
                    self._limit.release()
                    has_slot = False
                await asyncio.sleep(wait)
                if delay := self._limit.pace.delay_s(request):
                    await asyncio.sleep(delay)
                if not has_slot:
                    cuts = await self._limit.acquire()
                    has_slot = True
        finally:
            if has_slot:
                self._limit.release()

    def _wait_s(self, failure: RetryableError, attempt: int, began: float) -> float | None:
        """Seconds until the next attempt; None where it is given up."""
        retries, retry_after = self._retries, failure.retry_after
        wait = retries.next_wait_s(attempt, time.monotonic() - began, retry_after)
        in_vain = wait is None and attempt < retries.attempts and self._answered_at < began
        if in_vain or (retry_after or 0.0) > retries.budget_s:
            _check_closed(self._model, failure)
        if wait is not None and retry_after is None and time.monotonic() - self._answered_at < _ANSWERS_S:
            return min(wait, _WHILE_OTHERS_S)
        return wait

    def _told(self) -> None:
        self._limit.pace.told(getattr(self._model, "rate_limits", None), self._limit.open)

    async def _once(self, request: Request) -> Completion:
        completions = self._model.generate([request])
        try:
            return await anext(completions)
        except StopAsyncIteration:
            raise RejectedError("the model gave no completion") from None
        finally:
            await completions.aclose()


async def _complete_list(model: Model, requests: list[Request], receive: Receive, retries: Retries) -> None:
    """Give the model the whole list; what it leaves unanswered after a failure that may pass is asked again."""
    owed = {request.id: request for request in requests}
    calls = failures = 0
    failing_since = 0.0
    reached = False
    while owed:
        calls += 1
        failure: Exception = RejectedError("the model gave no completion")
        async with aclosing(model.generate(list(owed.values()))) as completions:
            while True:
                try:
                    completion = await anext(completions)
                except StopAsyncIteration:
                    break
                except OrbenchError:
                    raise
                except Exception as error:
                    failure = error
                    break
                request = owed.pop(completion.id, None)
                if request is None:
                    raise ModelError(f"{model.name}: gave a completion that it was not asked for, or gave one twice")
                reached = True
                failures = 0
                await receive(
                    CallResult(request=request, completion=completion, error=completion.error, attempts=calls)
                )
        if isinstance(failure, RetryableError) and owed:
            failures += 1
            if failures == 1:
                failing_since = time.monotonic()
            reached = reached or not failure.unreachable
            if not reached and calls >= _UNREACHABLE_ATTEMPTS:
                raise ModelError(f"{model.name}: {failure}")
            wait = retries.next_wait_s(failures, time.monotonic() - failing_since, failure.retry_after)
            if (failure.retry_after or 0.0) > retries.budget_s or (wait is None and failures < retries.attempts):
                _check_closed(model, failure)
            if wait is not None:
                await asyncio.sleep(wait)
                continue
        for request in owed.values():
            await receive(given_up(model, request, failure, calls))
        return


def given_up(model: Model, request: Request, failure: BaseException, attempts: int) -> CallResult:
    """How a request ends that is not tried again; what was paid for a part of it is counted all the same."""
    give_up = getattr(model, "give_up", None)
    usage = None if give_up is None else give_up(request.id)
    error = describe(failure)
    completion = None if usage is None else Completion(id=request.id, text="", error=error, usage=usage)
    return CallResult(request=request, completion=completion, error=error, attempts=attempts)


def _check_closed(model: Model, failure: RetryableError) -> None:
    """Stop the run where an overloaded service wants to be left alone for longer than we wait.

    The other requests would each meet the same answer, at the full speed of the wire, and end as errors.

    Raises:
        ModelError: It does; says when to come back.
    """
    if not failure.overloaded or failure.retry_after is None:
        return
    try:
        then = datetime.datetime.now().astimezone() + datetime.timedelta(seconds=failure.retry_after)
        when = f"after {then:%Y-%m-%d %H:%M}"
    except OverflowError:
        when = "another day"
    raise ModelError(
        f"{model.name}: {describe(failure)}; the service asks to wait {failure.retry_after:.0f} s. What was received "
        f"is kept: run the same command again {when}"
    )


def describe(error: BaseException) -> str:
    """One line for an error row: the message, with the type where the message alone says too little, without keys."""
    text = " ".join(without_keys(str(error)).split())
    if not isinstance(error, CallError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text[:500]


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended a group of tasks: those that fail side by side mostly say the same."""
    error = group.exceptions[0]
    return first_error(error) if isinstance(error, BaseExceptionGroup) else error


def _is_cancelled() -> bool:
    """Whether somebody wants this task to end; a callable may raise CancelledError of its own accord."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


async def each(items: Iterable[T] | AsyncIterable[T]) -> AsyncGenerator[T, None]:
    """Yield the items of an iterable of either sort."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
