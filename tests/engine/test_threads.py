import asyncio
import threading
from contextlib import aclosing

import pytest

from orbench.engine.threads import WorkerThreads, at_work, iterate_in_thread, run_sync


def test_a_call_returns_what_the_function_returns_from_another_thread():
    async def scenario():
        threads = WorkerThreads(1)
        here, there = threading.current_thread(), await threads.call(threading.current_thread)
        assert there is not here
        assert there.daemon
        assert await threads.call(divmod, 7, 2) == (3, 1)
        threads.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("size", [1, 3])
def test_no_more_threads_work_than_asked_for(size):
    async def scenario():
        threads, names, together = WorkerThreads(size), set(), threading.Barrier(size, timeout=10)

        def work():
            together.wait()  # passes only with `size` of them at once
            names.add(threading.get_ident())

        await asyncio.gather(*(threads.call(work) for _ in range(4 * size)))
        assert len(names) == size
        threads.close()

    asyncio.run(scenario())


def test_calls_one_after_the_other_need_one_thread():
    async def scenario():
        threads = WorkerThreads(8)
        assert len({await threads.call(threading.get_ident) for _ in range(20)}) == 1
        threads.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("raised", "kind", "text"),
    [
        (ValueError("odd"), ValueError, "odd"),
        (StopIteration(1), RuntimeError, "StopIteration"),
        (SystemExit(0), RuntimeError, "SystemExit raised: 0"),
        (KeyboardInterrupt(), RuntimeError, "KeyboardInterrupt raised"),
        (asyncio.CancelledError(), RuntimeError, "CancelledError raised"),
    ],
)
def test_what_a_function_raises_is_raised_and_never_ends_the_loop(raised, kind, text):
    def fail():
        raise raised

    def iterate():
        yield 1
        raise raised

    async def scenario():
        threads = WorkerThreads(1)
        with pytest.raises(kind, match=text):
            await threads.call(fail)
        assert await threads.call(len, "abc") == 3
        threads.close()
        items = iterate_in_thread(iterate)
        assert await anext(items) == 1
        with pytest.raises(kind, match=text):
            await anext(items)

    asyncio.run(scenario())


def test_an_iterator_that_looks_is_through_when_nobody_wants_more():
    stopped, ended = threading.Event(), []

    def iterate():
        try:
            yield 1
            assert stopped.wait(60)
        finally:
            ended.append(at_work())

    async def scenario():
        async with aclosing(iterate_in_thread(iterate, stopped)) as items:
            async for _ in items:
                break
        assert ended == [True]

    asyncio.run(scenario())


def test_closed_threads_start_anew_when_called_again():
    async def scenario():
        threads = WorkerThreads(2)
        for _ in range(3):
            assert await threads.call(len, "abc") == 3
            threads.close()

    asyncio.run(scenario())


def test_closing_does_not_wait_for_a_function_that_hangs():
    hangs, release = threading.Event(), threading.Event()

    def hang():
        hangs.set()
        release.wait(10)

    async def scenario():
        threads = WorkerThreads(1)
        hanging = asyncio.create_task(threads.call(hang))
        await asyncio.sleep(0)
        assert hangs.wait(10)
        hanging.cancel()
        threads.close()
        assert await threads.call(len, "abc") == 3
        threads.close()

    asyncio.run(scenario())
    release.set()  # its end finds the loop gone, and says nothing


def test_a_call_that_nobody_waits_for_any_more_ends_in_silence():
    hangs, release = threading.Event(), threading.Event()
    complaints = []

    def hang():
        hangs.set()
        release.wait(10)

    async def scenario():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        threads = WorkerThreads(1)
        hanging = asyncio.create_task(threads.call(hang))
        await asyncio.sleep(0)
        assert hangs.wait(10)
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        release.set()
        assert await threads.call(len, "abc") == 3  # in the same thread, so after the other has ended
        threads.close()

    asyncio.run(scenario())
    assert complaints == []


def test_items_of_an_iterator_come_one_by_one_from_another_thread():
    async def scenario():
        seen = threading.Event()

        def make():
            yield threading.get_ident()
            assert seen.wait(10)  # so the first item was handed on before the second was made
            yield 2

        got = []
        async with aclosing(iterate_in_thread(make)) as items:
            async for item in items:
                got.append(item)
                seen.set()
        assert got[1] == 2
        assert got[0] != threading.get_ident()

    asyncio.run(scenario())


def test_an_iterator_that_nobody_reads_any_more_stops():
    made, stopped = [], threading.Event()

    def make():
        try:
            for number in range(1_000_000):
                made.append(number)
                yield number
        finally:
            stopped.set()

    async def scenario():
        async with aclosing(iterate_in_thread(make)) as items:
            async for _ in items:
                break

    asyncio.run(scenario())
    assert stopped.wait(10)
    assert len(made) < 1_000_000


async def value(result):
    await asyncio.sleep(0)
    if isinstance(result, BaseException):
        raise result
    return result


def test_a_coroutine_runs_to_its_end_from_plain_code():
    assert run_sync(value(5)) == 5
    with pytest.raises(ValueError, match="odd"):
        run_sync(value(ValueError("odd")))


def test_a_coroutine_runs_to_its_end_inside_a_running_loop():
    async def notebook():
        return run_sync(value(5))

    assert asyncio.run(notebook()) == 5

    async def failing():
        run_sync(value(ValueError("odd")))

    with pytest.raises(ValueError, match="odd"):
        asyncio.run(failing())


def test_an_interrupt_inside_a_running_loop_lets_the_coroutine_clean_up(monkeypatch):
    cleaned = []
    working = threading.Event()

    async def work():
        try:
            working.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    real = threading.Thread.join
    interrupts = [KeyboardInterrupt()]

    def join(thread, timeout=None):
        if thread.name == "orbench-loop" and interrupts:
            working.wait(10)
            raise interrupts.pop()
        real(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", join)

    async def notebook():
        run_sync(work())

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(notebook())
    assert cleaned == [True]
