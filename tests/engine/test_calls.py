import asyncio
import itertools
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbench.engine import calls
from orbench.engine.calls import Retries, complete
from orbench.engine.limits import ConcurrencyLimit
from orbench.errors import ModelError, RunError
from orbench.models.base import RejectedError, RetryableError
from orbench.records import Completion, Message, Request
from orbench.testing import LoopbackServer, ScriptedModel

WAIT_S = Retries.wait_s
"""The real one, from before the fixture that makes waits zero."""
FOREVER = 1e9
"""A wait in seconds that no test waits for: it is cancelled in the end."""


def request(number):
    return Request(id=str(number), messages=(Message("user", f"Question {number}?"),))


def requests(count):
    return [request(number) for number in range(count)]


async def turn(times=200):
    """Let everything run that can."""
    for _ in range(times):
        await asyncio.sleep(0)


class Results(list):
    """Receives results and keeps them."""

    async def receive(self, result):
        self.append(result)

    @property
    def ids(self):
        return [result.request.id for result in self]

    @property
    def by_id(self):
        return {result.request.id: result for result in self}


def run(model, asked, **options):
    """Ask the model and return the results."""
    results = Results()
    asyncio.run(complete(model, asked, results.receive, **options))
    return results


class StepsModel:
    """Goes through steps given for each request: exceptions are raised, anything else is replied."""

    name = "steps/model"
    batch_size = 1
    max_concurrency = None

    def __init__(self, steps, pauses=0):
        self.steps = {key: iter(own) for key, own in steps.items()}
        self.pauses = pauses
        self.calls = Counter()
        self.order = []
        self.open = self.most_open = 0

    async def generate(self, asked):
        (one,) = asked
        self.calls[one.id] += 1
        self.order.append(one.id)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await turn(self.pauses)
            step = next(self.steps.get(one.id, iter(())), "Certainly.")
            if isinstance(step, Exception):
                raise step
            yield Completion(id=one.id, text=step)
        finally:
            self.open -= 1

    async def close(self):
        pass


# --- every request, exactly once


class Busy(RetryableError):
    def __init__(self):
        super().__init__("busy", overloaded=True)


STEP = st.sampled_from([Busy, lambda: RetryableError("lost"), lambda: RejectedError("bad"), ValueError, lambda: "Yes."])


@given(st.lists(st.lists(STEP, max_size=5), max_size=40), st.one_of(st.none(), st.integers(1, 8)), st.integers(0, 3))
def test_every_request_ends_in_exactly_one_result_whatever_fails(scripts, concurrency, pauses):
    steps = {str(number): [make() for make in script] for number, script in enumerate(scripts)}
    expected = {}
    for key, script in steps.items():
        ending = next((n for n, step in enumerate(script) if not isinstance(step, RetryableError)), len(script))
        given_up = ending >= 3
        last = script[ending] if ending < len(script) else "Certainly."
        expected[key] = (min(ending + 1, 3), None if given_up or isinstance(last, Exception) else last)
    model, results = StepsModel(steps, pauses), Results()
    limit = ConcurrencyLimit(concurrency)
    asked = requests(len(scripts))

    async def quickly():  # hypothesis does not take the fixture of each test
        retries = Instantly(attempts=3)
        await complete(model, asked, results.receive, limit=limit, retries=retries)

    asyncio.run(quickly())
    assert Counter(results.ids) == Counter(steps.keys())
    for key, (attempts, text) in expected.items():
        result = results.by_id[key]
        assert result.attempts == attempts == model.calls[key]
        assert (result.completion.text if result.completion else None) == text
        assert (result.error is None) == (text is not None)
    assert model.most_open <= limit.peak <= limit.maximum
    assert limit.open == 0


class Instantly(Retries, frozen=True):
    def wait_s(self, attempt, retry_after):
        return 0.0


def test_no_more_calls_are_open_than_the_limit_and_as_many_as_it_allows():
    model = StepsModel({}, pauses=5)
    assert len(run(model, requests(50), limit=ConcurrencyLimit(7))) == 50
    assert model.most_open == 7


def test_without_a_number_more_and_more_calls_are_opened():
    model = StepsModel({}, pauses=5)
    run(model, requests(600))
    assert model.most_open >= 64


def test_the_models_own_limit_holds_where_none_is_given():
    model = StepsModel({}, pauses=5)
    model.max_concurrency = 3
    run(model, requests(20))
    assert model.most_open == 3


def test_requests_may_come_from_an_asynchronous_source():
    async def source():
        for each in requests(5):
            await asyncio.sleep(0)
            yield each

    assert sorted(run(ScriptedModel("Yes."), source()).ids) == list("01234")


def test_requests_are_drawn_only_as_slots_become_free():
    drawn = itertools.count()
    model = ScriptedModel("Yes.")

    async def scenario():
        stop = asyncio.Event()

        class Waiting(StepsModel):
            async def generate(self, asked):
                await stop.wait()
                yield Completion(id=asked[0].id, text="")

        endless = (request(next(drawn)) for _ in itertools.repeat(None))
        working = asyncio.create_task(
            complete(Waiting({}), endless, Results().receive, limit=ConcurrencyLimit(4)),
        )
        await turn()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    asyncio.run(scenario())
    assert 4 <= next(drawn) <= 4 + 2
    assert model.requests == []


def test_the_number_of_requests_that_wait_for_another_attempt_is_bounded(monkeypatch):
    monkeypatch.setattr(Retries, "wait_s", lambda *_: FOREVER)
    drawn = itertools.count()

    async def scenario():
        endless = (request(next(drawn)) for _ in itertools.repeat(None))
        model = ScriptedModel(lambda _: RetryableError("busy"))
        working = asyncio.create_task(
            complete(
                model,
                endless,
                Results().receive,
                limit=ConcurrencyLimit(10),
                retries=Retries(budget_s=2 * FOREVER),
            )
        )
        await turn(20_000)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    asyncio.run(scenario())
    assert 1000 <= next(drawn) <= 1100


def test_a_slow_receiver_holds_no_slot_and_bounds_what_is_drawn():
    drawn = itertools.count()

    async def scenario():
        async def never(result):
            await asyncio.Event().wait()

        endless = (request(next(drawn)) for _ in itertools.repeat(None))
        limit = ConcurrencyLimit(3)
        working = asyncio.create_task(complete(ScriptedModel("Yes."), endless, never, limit=limit))
        await turn(20_000)
        assert limit.open == 0
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    asyncio.run(scenario())
    assert next(drawn) <= 1100


# --- trying again


def test_a_success_after_failures_counts_its_attempts():
    model = StepsModel({"0": [RetryableError("busy"), RetryableError("lost"), "Yes."]})
    (result,) = run(model, requests(1))
    assert (result.completion.text, result.error, result.attempts) == ("Yes.", None, 3)


def test_a_request_is_given_up_after_its_attempts_and_keeps_the_last_error():
    model = ScriptedModel([RetryableError(f"busy {n}") for n in range(9)])
    (result,) = run(model, requests(1))
    assert (result.completion, result.error, result.attempts) == (None, "busy 7", 8)


def test_what_the_server_asked_to_wait_reaches_the_wait(monkeypatch):
    asked = []
    monkeypatch.setattr(
        Retries, "wait_s", lambda self, attempt, retry_after: asked.append((attempt, retry_after)) or 0.0
    )
    run(ScriptedModel([RetryableError("busy", retry_after=3.5), RetryableError("lost"), "Yes."]), requests(1))
    assert asked == [(1, 3.5), (2, None)]


def test_the_servers_wish_is_kept_and_hardly_lengthened():
    assert all(3.0 <= WAIT_S(Retries(), 1, 3.0) <= 3.3 for _ in range(100))
    assert WAIT_S(Retries(), 1, -5.0) == 0


def test_waits_double_up_to_a_minute_and_are_spread():
    for attempt, longest in [(1, 0.5), (2, 1.0), (5, 8.0), (9, 60.0), (1000, 60.0)]:
        waits = [WAIT_S(Retries(), attempt, None) for _ in range(100)]
        assert longest / 2 <= min(waits) < max(waits) <= longest


def test_no_attempt_is_begun_after_the_budget(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(calls, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def slow(_):
        clock.now += 250.0
        return RetryableError("lost")

    (result,) = run(ScriptedModel(slow), requests(1))
    assert result.attempts == 3


def test_a_wait_beyond_the_budget_is_not_begun(monkeypatch):
    monkeypatch.setattr(Retries, "wait_s", lambda *_: 601.0)
    (result,) = run(ScriptedModel(RetryableError("come back tomorrow", retry_after=601.0)), requests(1))
    assert (result.attempts, result.error) == (1, "come back tomorrow")


@pytest.mark.parametrize("batch_size", [1, None])
@pytest.mark.parametrize("seconds", [601.0, 3600.0, 1e300, float("inf")])
def test_a_service_that_is_closed_for_long_stops_the_run_and_it_says_until_when(batch_size, seconds):
    model = ScriptedModel(RetryableError("HTTP 429: Daily limit.", overloaded=True, retry_after=seconds))
    model.batch_size = batch_size
    results = Results()
    with pytest.raises(
        ModelError, match=r"Daily limit.*asks to wait.*is kept: run the same command again (after 20|an)"
    ):
        asyncio.run(complete(model, requests(1000), results.receive))
    assert results == []


def test_what_was_answered_before_the_service_closed_is_received():
    closed = RetryableError("HTTP 429: Daily limit.", overloaded=True, retry_after=3600.0)
    results = Results()
    with pytest.raises(ModelError):
        asyncio.run(
            complete(ScriptedModel(["Yes.", "No.", closed]), requests(9), results.receive, limit=ConcurrencyLimit(1))
        )
    assert [result.completion.text for result in results] == ["Yes.", "No."]


@pytest.mark.parametrize("answered", [True, False])
def test_waits_that_add_up_beyond_the_budget_stop_the_run_where_nobody_was_answered(monkeypatch, answered):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(calls, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def reply(asked):
        clock.now += 350.0
        if answered and asked.id == "1":
            return "Yes."
        return RetryableError("busy", overloaded=True, retry_after=300.0)

    limit = ConcurrencyLimit(2)
    if answered:
        results = run(ScriptedModel(reply), requests(2), limit=limit)
        assert {id: result.error for id, result in results.by_id.items()} == {"0": "busy", "1": None}
    else:
        with pytest.raises(ModelError, match="asks to wait 300 s"):
            run(ScriptedModel(reply), requests(2), limit=limit)


def test_time_spent_waiting_for_a_slot_does_not_use_up_the_budget(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(calls, "time", SimpleNamespace(monotonic=lambda: clock.now))
    failed = set()

    def reply(asked):
        clock.now += 100.0
        if asked.id == "19" and asked.id not in failed:
            failed.add(asked.id)
            return RetryableError("lost")
        return "Yes."

    results = run(ScriptedModel(reply), requests(20), limit=ConcurrencyLimit(1))
    assert results.by_id["19"].attempts == 2
    assert all(result.error is None for result in results)


def test_a_request_that_waits_for_its_next_attempt_holds_no_slot(monkeypatch):
    monkeypatch.setattr(Retries, "wait_s", lambda *_: FOREVER)

    async def scenario():
        results = Results()
        model = StepsModel({"0": [RetryableError("busy")]})
        retries = Retries(budget_s=2 * FOREVER)
        working = asyncio.create_task(
            complete(model, requests(6), results.receive, limit=ConcurrencyLimit(1), retries=retries)
        )
        await turn()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        return results

    assert asyncio.run(scenario()).ids == list("12345")


def test_a_request_that_comes_back_stands_in_line_before_those_still_to_come():
    model = StepsModel({"0": [RetryableError("busy")]}, pauses=3)
    run(model, requests(100), limit=ConcurrencyLimit(1))
    assert model.order.index("0", 1) <= 5


def test_overload_cuts_the_limit_and_other_failures_do_not():
    for error, cuts in [(RetryableError("lost"), 0), (RetryableError("busy", overloaded=True), 1)]:
        limit = ConcurrencyLimit(20)
        run(StepsModel({"0": [error]}), requests(20), limit=limit)
        assert limit.cuts == cuts


def test_a_call_waits_less_where_others_are_answered_meanwhile(monkeypatch):
    waits, sleep = [], asyncio.sleep

    async def no_sleep(seconds):
        if seconds:
            waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr(Retries, "wait_s", lambda self, attempt, retry_after: 60.0)
    monkeypatch.setattr(calls.asyncio, "sleep", no_sleep)
    lost = [RetryableError("lost") for _ in range(3)]
    run(StepsModel({"0": list(lost)}, pauses=1), requests(200), limit=ConcurrencyLimit(2))
    assert waits[-1] == 4.0
    waits.clear()
    run(StepsModel({"0": list(lost)}), requests(1))
    assert waits == [60.0] * 3
    waits.clear()
    asked = RetryableError("busy", retry_after=60.0)
    run(StepsModel({"0": [asked] * 3}, pauses=1), requests(200), limit=ConcurrencyLimit(2))
    assert waits == [60.0] * 3


# --- errors of one request


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RejectedError("too long"), "too long"),
        (ValueError("no such thing"), "ValueError: no such thing"),
        (KeyError(), "KeyError"),
        (RuntimeError("several\n\n lines"), "RuntimeError: several lines"),
        (ValueError("x" * 1000), "ValueError: " + "x" * 488),
    ],
)
def test_an_error_of_one_request_is_its_result_and_the_run_goes_on(error, text):
    results = run(StepsModel({"1": [error]}), requests(3))
    assert {key: result.error for key, result in results.by_id.items()} == {"0": None, "1": text, "2": None}
    assert results.by_id["1"].attempts == 1
    assert results.by_id["1"].completion is None


def test_an_error_within_a_completion_is_the_requests_error():
    (result,) = run(ScriptedModel(Completion(id="", text="", error="out of memory")), requests(1))
    assert result.error == "out of memory"


def test_a_model_that_gives_no_completion_has_failed_that_request():
    class Silent(StepsModel):
        async def generate(self, asked):
            for never in ():
                yield never

    assert [result.error for result in run(Silent({}), requests(2))] == ["the model gave no completion"] * 2


def test_a_model_that_cancels_itself_has_failed_that_request():
    class Odd(StepsModel):
        async def generate(self, asked):
            if asked[0].id == "1":
                raise asyncio.CancelledError
            yield Completion(id=asked[0].id, text="Yes.")

    results = run(Odd({}), requests(3))
    assert {key: result.error for key, result in results.by_id.items()} == {"0": None, "1": "CancelledError", "2": None}


# --- errors that end the run


def ending(error):
    """A model whose fourth call fails for good while the three before never end, and what became of them."""
    cancelled = []

    class Ending(StepsModel):
        async def generate(self, asked):
            self.calls["all"] += 1
            if asked[0].id == "3":
                raise error
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(asked[0].id)
                raise
            yield

    return Ending({}), cancelled


def test_a_model_that_cannot_be_used_stops_at_once_and_open_calls_are_cancelled():
    model, cancelled = ending(ModelError("wrong key"))
    limit = ConcurrencyLimit(4)
    with pytest.raises(ModelError, match="wrong key"):
        run(model, requests(1000), limit=limit)
    assert sorted(cancelled) == list("012")
    assert model.calls["all"] == 4
    assert limit.open == 0


def test_a_receiver_that_fails_ends_the_run():
    async def full_disk(result):
        raise RunError("disk full")

    model = ScriptedModel("Yes.")
    with pytest.raises(RunError, match="disk full"):
        asyncio.run(complete(model, requests(1000), full_disk))
    assert len(model.requests) <= 20


def test_a_source_of_requests_that_fails_ends_the_run():
    def source():
        yield request(0)
        raise RunError("damaged")

    with pytest.raises(RunError, match="damaged"):
        run(ScriptedModel("Yes."), source())


def test_an_error_ends_the_run_also_while_it_waits_for_the_next_request():
    async def source():
        yield request(0)
        await asyncio.Event().wait()

    with pytest.raises(ModelError, match="wrong key"):
        run(ScriptedModel(ModelError("wrong key")), source())


def test_cancelling_leaves_no_slot_taken():
    async def scenario():
        limit = ConcurrencyLimit(5)
        model = StepsModel({}, pauses=50)
        working = asyncio.create_task(complete(model, requests(100), Results().receive, limit=limit))
        await turn(7)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        assert model.open == 0
        assert limit.open == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("batch_size", [1, None])
def test_a_service_that_was_never_reached_is_given_up_soon(batch_size):
    model = ScriptedModel(RetryableError("cannot reach http://x", unreachable=True), batch_size=batch_size)
    with pytest.raises(ModelError, match="scripted/model: cannot reach http://x"):
        run(model, requests(1000), limit=ConcurrencyLimit(10))
    assert len(model.requests) <= 3 * 10


def test_no_other_request_tries_while_a_service_was_never_reached(monkeypatch):
    monkeypatch.setattr(Retries, "wait_s", lambda *_: FOREVER)

    async def scenario():
        model = ScriptedModel(RetryableError("cannot reach it", unreachable=True))
        retries = Retries(budget_s=2 * FOREVER)
        limit = ConcurrencyLimit(4)
        working = asyncio.create_task(complete(model, requests(100), Results().receive, limit=limit, retries=retries))
        await turn()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        assert len(model.requests) == 4
        assert limit.open == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("first", ["Yes.", ValueError("odd"), RetryableError("busy")])
def test_a_service_that_was_reached_once_is_tried_to_the_end(first):
    gone = [RetryableError("cannot reach it", unreachable=True)] * 6
    model = ScriptedModel([first, *gone], default="Yes.")
    results = run(model, requests(2), limit=ConcurrencyLimit(1))
    assert sum(result.attempts for result in results) == len(model.requests) >= 8
    assert results[-1].error is None


def test_a_refused_key_stops_after_at_most_the_calls_that_were_open():
    refused = (401, {"error": {"message": "no such key"}})
    with LoopbackServer(refused, latency_s=0.01) as server:
        from orbench.models import Options, open_model

        async def scenario():
            model = open_model("openai/any", Options(server.base_url))
            try:
                await complete(model, requests(2000), Results().receive)
            finally:
                await model.close()

        with pytest.raises(ModelError, match="key was refused"):
            asyncio.run(scenario())
        assert 1 <= len(server.requests) <= 16


# --- models that take the whole list


def whole_list(*rounds):
    """A model that, in each call, yields some of the requests and then raises or ends; and the ids of each call."""
    asked_ids = []

    class ListModel:
        name = "list/model"
        batch_size = None
        max_concurrency = 1

        async def generate(self, asked):
            asked_ids.append([each.id for each in asked])
            count, end = rounds[len(asked_ids) - 1]
            for each in asked[:count]:
                yield Completion(id=each.id, text="Yes.")
            if end is not None:
                raise end

        async def close(self):
            pass

    return ListModel(), asked_ids


def test_a_list_is_given_whole():
    model, asked = whole_list((5, None))
    assert run(model, iter(requests(5))).ids == list("01234")
    assert asked == [list("01234")]


def test_only_the_rest_of_a_list_is_asked_again():
    model, asked = whole_list((3, RetryableError("lost")), (1, RetryableError("lost")), (1, None))
    results = run(model, requests(5))
    assert asked == [list("01234"), list("34"), ["4"]]
    assert [(result.request.id, result.attempts, result.error) for result in results] == [
        ("0", 1, None),
        ("1", 1, None),
        ("2", 1, None),
        ("3", 2, None),
        ("4", 3, None),
    ]


def test_a_failure_after_the_whole_list_was_answered_is_none_and_nothing_waits(monkeypatch):
    monkeypatch.setattr(Retries, "wait_s", lambda *_: FOREVER)
    model, asked = whole_list((2, RetryableError("lost at the end")))
    results = run(model, requests(2), retries=Retries(budget_s=2 * FOREVER))
    assert [result.error for result in results] == [None, None]
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (RejectedError("too long"), "too long"),
        (ValueError("odd"), "ValueError: odd"),
        (None, "the model gave no completion"),
    ],
)
def test_a_failure_that_stays_is_the_error_of_the_rest_of_the_list(end, text):
    model, asked = whole_list((1, end))
    assert [result.error for result in run(model, requests(3))] == [None, text, text]
    assert len(asked) == 1


def test_a_list_model_that_cannot_be_used_stops_the_run():
    model, asked = whole_list((1, ModelError("does not fit into memory")))
    with pytest.raises(ModelError, match="does not fit into memory"):
        run(model, requests(3))
    assert len(asked) == 1


def test_a_list_is_given_up_after_as_many_failures_in_a_row():
    model, asked = whole_list(*[(0, RetryableError(f"lost {n}")) for n in range(20)])
    assert [result.error for result in run(model, requests(2))] == ["lost 7", "lost 7"]
    assert len(asked) == 8


def test_a_list_that_gets_on_is_not_given_up(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(calls, "time", SimpleNamespace(monotonic=lambda: clock.now))
    model, asked = whole_list(*[(1, RetryableError("lost"))] * 19, (1, None))
    results = Results()

    async def receive(result):
        clock.now += 500.0
        results.append(result)

    asyncio.run(complete(model, requests(20), receive))
    assert [result.error for result in results] == [None] * 20
    assert len(asked) == 20


def test_what_receives_a_list_may_fail_and_that_is_no_error_of_the_model():
    async def broken(result):
        raise ValueError("bug")

    model, _ = whole_list((2, None))
    with pytest.raises(ValueError, match="bug"):
        asyncio.run(complete(model, requests(2), broken))


@pytest.mark.parametrize("odd", ["unknown", "0"])
def test_a_completion_that_was_not_asked_for_stops_the_run(odd):
    class Odd:
        name = "list/odd"
        batch_size = None
        max_concurrency = None

        async def generate(self, asked):
            yield Completion(id="0", text="Yes.")
            yield Completion(id=odd, text="Yes.")

        async def close(self):
            pass

    with pytest.raises(ModelError, match="list/odd: gave a completion"):
        run(Odd(), requests(2))
