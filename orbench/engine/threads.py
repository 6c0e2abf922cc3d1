"""Blocking work beside an event loop, in daemon threads.

Daemon threads, unlike those of an executor, do not hold up the end of the program: after Ctrl-C nobody waits for
a callable that hangs or for a batch that is still being generated. A program must not end in Python's usual way
while one of them is at work, though (`at_work`).
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

_LAST_S = 2.0
"""Seconds that an iterator gets to notice that it is stopped: a step of a large model takes most of one."""

_busy: set[threading.Thread] = set()


def at_work() -> bool:
    """Whether a daemon thread of ours is inside somebody else's code.

    Python, as it ends, breaks off such a thread where it next takes the lock of the interpreter; in the C++ of torch
    that aborts the program with a signal (before Python 3.14). So a program leaves with `os._exit` then.
    """
    return any(thread.is_alive() for thread in tuple(_busy))


@contextmanager
def _working() -> Iterator[None]:
    thread = threading.current_thread()
    _busy.add(thread)
    try:
        yield
    finally:
        _busy.discard(thread)


class WorkerThreads:
    """Up to `size` daemon threads that run blocking functions for one event loop."""

    def __init__(self, size: int) -> None:
        """Threads are started as they are needed, at most `size`."""
        self._size = size
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = 0
        self._open = 0

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Run the function in a thread and return what it returns or raise what it raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            try:
                result = function(*arguments)
            except BaseException as error:
                _in_loop(loop, _settle, future, None, error)
            else:
                _in_loop(loop, _settle, future, result, None)

        self._open += 1
        if self._open > self._threads < self._size:
            self._threads += 1
            threading.Thread(target=_work, args=(self._jobs,), daemon=True, name="orbench-worker").start()
        self._jobs.put(job)
        try:
            return await future
        finally:
            self._open -= 1

    def close(self) -> None:
        """Let the threads end after the job at hand, without waiting for them; a later call starts new ones."""
        for _ in range(self._threads):
            self._jobs.put(None)
        self._jobs = queue.SimpleQueue()
        self._threads = 0


def _work(jobs: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (job := jobs.get()) is not None:
        with _working():
            job()


def _settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(_bearable(error))


def _bearable(error: BaseException) -> Exception:
    """The error in a form that a loop can carry: SystemExit and the like, set free in it, would end the program."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return RuntimeError(f"{type(error).__name__} raised: {error}")


def _in_loop(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: object) -> None:
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        pass  # the loop is gone: the run was interrupted and nobody waits for this any more


async def iterate_in_thread(
    make_iterator: Callable[[], Iterator[T]], stopped: threading.Event | None = None
) -> AsyncGenerator[T, None]:
    """Run an iterator in a daemon thread and yield its items as they come.

    Args:
        make_iterator: Called in the thread; so slow set-up may stand in it.
        stopped: Set when nobody wants the next item any more. An iterator that looks at it ends in the middle of an
            item, and is waited for, up to two seconds.

    Raises:
        Exception: Whatever the iterator raises.
    """
    loop = asyncio.get_running_loop()
    items: asyncio.Queue[tuple[T | None, Exception | None, bool]] = asyncio.Queue()
    ends_early = stopped is not None
    stop = stopped or threading.Event()

    def produce() -> None:
        error: Exception | None = None
        try:
            with _working():
                for item in make_iterator():
                    _in_loop(loop, items.put_nowait, (item, None, False))
                    if stop.is_set():
                        break
        except BaseException as caught:
            error = _bearable(caught)
        _in_loop(loop, items.put_nowait, (None, error, True))

    thread = threading.Thread(target=produce, daemon=True, name="orbench-iterator")
    thread.start()
    try:
        while True:
            item, error, last = await items.get()
            if error is not None:
                raise error
            if last:
                return
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        if ends_early:
            thread.join(_LAST_S)


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from synchronous code, also inside a running event loop (a notebook).

    In a running loop the coroutine gets a loop of its own in another thread. KeyboardInterrupt cancels the
    coroutine, waits for its clean-up, and is raised again.
    """
    if not _loop_is_running():
        return asyncio.run(coroutine)

    results: list[T] = []
    errors: list[BaseException] = []
    started: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = queue.SimpleQueue()

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None
        started.put((asyncio.get_running_loop(), task))
        return await coroutine

    def run() -> None:
        try:
            results.append(asyncio.run(main()))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name="orbench-loop")
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        loop, task = started.get()
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    if errors:
        raise errors[0]
    return results[0]


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
