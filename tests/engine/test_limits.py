import asyncio

from orbench.engine.limits import ConcurrencyLimit


async def turn():
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def fill(limit):
    """Take every free slot; returns what `acquire` said each time."""
    return [await limit.acquire() for _ in range(limit.limit - limit.open)]


async def good_round(limit):
    """One full round of calls, all good and all slots used."""
    await fill(limit)
    for _ in range(limit.limit):
        limit.succeeded()
    for _ in range(limit.open):
        limit.release()


def test_a_given_number_is_where_it_opens_and_never_exceeded():
    async def scenario():
        limit = ConcurrencyLimit(40)
        assert limit.limit == limit.maximum == 40
        for _ in range(3):
            await good_round(limit)
        assert limit.limit == 40

    asyncio.run(scenario())


def test_without_a_number_it_starts_small_and_doubles_up_to_the_maximum():
    async def scenario():
        limit = ConcurrencyLimit(maximum=100)
        sizes = [limit.limit]
        for _ in range(4):
            await good_round(limit)
            sizes.append(limit.limit)
        assert sizes == [16, 32, 64, 100, 100]

    asyncio.run(scenario())


def test_a_maximum_below_the_usual_start_is_the_start():
    assert ConcurrencyLimit(maximum=5).limit == 5


def test_a_limit_that_is_not_used_does_not_grow():
    async def scenario():
        limit = ConcurrencyLimit(maximum=100)
        for _ in range(500):
            await limit.acquire()
            limit.succeeded()
            limit.release()
        assert limit.limit == 16
        assert limit.peak == 1

    asyncio.run(scenario())


def test_it_grows_only_after_a_full_round_of_good_calls():
    async def scenario():
        limit = ConcurrencyLimit(maximum=100)
        await fill(limit)
        for _ in range(15):
            limit.succeeded()
        assert limit.limit == 16
        limit.succeeded()
        assert limit.limit == 32

    asyncio.run(scenario())


def test_a_burst_of_refusals_cuts_once():
    async def scenario():
        limit = ConcurrencyLimit(10)
        began = await fill(limit)
        for cuts in began:
            limit.overloaded(cuts)
        assert (limit.limit, limit.cuts) == (8, 1)

    asyncio.run(scenario())


def test_a_refusal_of_a_call_begun_after_the_cut_cuts_again():
    async def scenario():
        limit = ConcurrencyLimit(100)
        limit.overloaded(await limit.acquire())
        limit.overloaded(await limit.acquire())
        assert (limit.limit, limit.cuts) == (64, 2)

    asyncio.run(scenario())


def test_it_never_falls_below_one():
    async def scenario():
        limit = ConcurrencyLimit(3)
        for _ in range(10):
            limit.overloaded(await limit.acquire())
            limit.release()
        assert limit.limit == 1
        await limit.acquire()

    asyncio.run(scenario())


def test_a_low_limit_stays_where_the_service_refuses_a_part_of_the_calls_whatever_is_open():
    async def scenario():
        limit = ConcurrencyLimit(16)
        for number in range(1000):
            began = await limit.acquire()
            if number % 3:
                limit.succeeded()
            else:
                limit.overloaded(began)
            limit.release()
        assert (limit.limit, limit.cuts) == (16, 0)

    asyncio.run(scenario())


def test_a_low_limit_falls_where_most_calls_are_refused():
    async def scenario():
        limit = ConcurrencyLimit(16)
        for number in range(1000):
            began = await limit.acquire()
            if number % 3:
                limit.overloaded(began)
            else:
                limit.succeeded()
            limit.release()
        assert limit.limit <= 2

    asyncio.run(scenario())


def test_after_a_cut_it_grows_slowly():
    async def scenario():
        limit = ConcurrencyLimit(100)
        limit.overloaded(await limit.acquire())
        limit.release()
        sizes = [limit.limit]
        for _ in range(3):
            await good_round(limit)
            sizes.append(limit.limit)
        assert sizes == [80, 84, 88, 92]

    asyncio.run(scenario())


def test_good_calls_before_a_cut_do_not_count_towards_growth_after_it():
    async def scenario():
        limit = ConcurrencyLimit(20)
        await fill(limit)
        for _ in range(15):
            limit.succeeded()
        limit.overloaded(0)
        limit.succeeded()
        assert limit.limit == 16

    asyncio.run(scenario())


def test_those_who_wait_get_slots_in_the_order_in_which_they_came():
    async def scenario():
        limit = ConcurrencyLimit(1)
        await limit.acquire()
        got = []

        async def wait(name):
            await limit.acquire()
            got.append(name)

        waiting = [asyncio.create_task(wait(name)) for name in "abc"]
        await turn()
        for expected in ("a", "ab", "abc"):
            limit.release()
            late = asyncio.create_task(wait("late"))  # comes while the slot changes hands, and must not get it
            await turn()
            late.cancel()
            assert "".join(got) == expected
        await asyncio.gather(*waiting)

    asyncio.run(scenario())


def test_growth_wakes_all_who_have_room_now():
    async def scenario():
        limit = ConcurrencyLimit(maximum=32)
        await fill(limit)
        waiting = [asyncio.create_task(limit.acquire()) for _ in range(20)]
        await turn()
        for _ in range(16):
            limit.succeeded()
        await turn()
        assert sum(task.done() for task in waiting) == 16
        assert limit.open == 32
        for task in waiting:
            task.cancel()

    asyncio.run(scenario())


def test_a_cut_keeps_new_calls_out_until_enough_have_ended():
    async def scenario():
        limit = ConcurrencyLimit(20)
        await fill(limit)
        limit.overloaded(0)
        waiting = asyncio.create_task(limit.acquire())
        for _ in range(4):
            limit.release()
            await turn()
            assert not waiting.done()
        limit.release()
        await turn()
        assert waiting.done()

    asyncio.run(scenario())


def test_who_is_cancelled_while_waiting_takes_no_slot():
    async def scenario():
        limit = ConcurrencyLimit(1)
        await limit.acquire()
        gone, waiting = (asyncio.create_task(limit.acquire()) for _ in range(2))
        await turn()
        gone.cancel()
        await turn()
        limit.release()
        await turn()
        assert waiting.done()
        assert limit.open == 1

    asyncio.run(scenario())


def test_who_is_cancelled_in_the_moment_of_getting_a_slot_hands_it_on():
    async def scenario():
        limit = ConcurrencyLimit(1)
        await limit.acquire()
        gone, waiting = (asyncio.create_task(limit.acquire()) for _ in range(2))
        await turn()
        limit.release()  # the slot is for `gone`, which does not run before it is cancelled
        gone.cancel()
        await turn()
        assert gone.cancelled()
        assert waiting.done()
        limit.release()
        assert limit.open == 0

    asyncio.run(scenario())
