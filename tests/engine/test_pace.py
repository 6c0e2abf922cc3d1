"""`Pace`: when the next call may be sent, with a clock of our own."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

import orbench
from orbench.engine.calls import complete
from orbench.engine.limits import ConcurrencyLimit
from orbench.engine.pace import Pace
from orbench.engine.run_folder import read_config
from orbench.errors import UsageError
from orbench.models.rate_limits import RateLimits, read_rate_limits
from orbench.records import Completion, Message, Request, Sampling, Usage
from orbench.testing import LoopbackServer, ScriptedModel
from orbench.testing.server import chat_completion

ASKED = Request(id="1", messages=(Message("user", "How do I stop it?"),), sampling=Sampling(max_tokens=100))


class Clock:
    """A clock that stands still until somebody waits."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def sent(pace, clock, count, pause=0.0, usage=None):
    """Times at which so many calls are sent one after the other, each prepared `pause` seconds after the last."""
    times = []
    for _ in range(count):
        clock.now += pause
        clock.now += pace.delay_s(ASKED)
        times.append(clock.now - 1000.0)
        if usage is not None:
            pace.used(ASKED, usage)
    return times


def test_without_caps_nothing_waits():
    clock = Clock()
    assert sent(Pace(clock=clock), clock, 3) == [0, 0, 0]


@given(st.floats(1, 10_000), st.lists(st.floats(0, 30), min_size=2, max_size=60))
def test_no_minute_holds_more_requests_than_allowed(rpm, pauses):
    clock = Clock()
    pace = Pace(rpm=rpm, clock=clock)
    times = [sent(pace, clock, 1, pause)[0] for pause in pauses]
    for begin in times:
        inside = sum(begin <= time < begin + 60 for time in times)
        assert inside <= 1 + rpm * 60.1 / 60 + 1e-6


def test_requests_are_spaced_evenly_and_late_ones_do_not_bunch_up():
    clock = Clock()
    pace = Pace(rpm=60, clock=clock)
    assert sent(pace, clock, 3) == pytest.approx([0, 0.9, 1.9], abs=0.11)
    clock.now += 100
    first, _second, third = sent(pace, clock, 3)
    assert third - first >= 1.8
    assert pace.waited_s > 0


def test_tokens_are_paced_by_what_calls_really_take():
    clock = Clock()
    pace = Pace(tpm=6000, clock=clock)  # 100 a second
    times = sent(pace, clock, 21, usage=Usage(input_tokens=40, output_tokens=10))
    assert times[-1] == pytest.approx(20 * 0.5, abs=0.2)


def test_the_first_call_is_taken_for_the_longest_it_may_be():
    clock = Clock()
    pace = Pace(tpm=600, clock=clock)
    first, second = sent(pace, clock, 2)
    assert second - first >= 100 / 10 - 0.1


@pytest.mark.parametrize(
    "caps",
    [
        {"rpm": 0},
        {"tpm": -1},
        {"rpm": float("nan")},
        {"tpm": float("inf")},
        {"rpm": 1e-300},
        {"rpm": 1e-4},
        {"tpm": 1e-9},
    ],
)
def test_a_cap_that_is_none_is_wrong_usage(caps):
    with pytest.raises(UsageError):
        Pace(**caps)


def test_fifty_requests_a_day_may_be_meant():
    assert Pace(rpm=50 / (24 * 60), clock=Clock()).delay_s(ASKED) == 0


def test_tokens_a_minute_below_one_prompt_are_wrong_usage():
    with pytest.raises(UsageError, match=r"tpm is 2: the first prompt alone takes \d+ tokens; give a higher one"):
        Pace(tpm=2, clock=Clock()).delay_s(ASKED)
    pace = Pace(tpm=600, clock=Clock())
    pace.delay_s(ASKED)
    long = Request(id="2", messages=(Message("user", "word " * 2000),))
    assert pace.delay_s(long) > 0  # a long one among others waits, and ends nothing


# --- what the service says is left


def test_while_much_is_left_nothing_waits():
    pace = Pace(clock=Clock())
    pace.told(RateLimits(limit_requests=500, remaining_requests=400, reset_requests_s=12.0), 50)
    assert pace.delay_s(ASKED) == 0


def test_when_no_more_is_left_than_is_open_calls_go_at_the_speed_of_refilling():
    clock = Clock()
    pace = Pace(clock=clock)
    pace.told(RateLimits(limit_requests=600, remaining_requests=20, reset_requests_s=58.0), 20)  # 10 a second
    assert sent(pace, clock, 4) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert pace.slowed == 4
    pace.told(RateLimits(limit_requests=600, remaining_requests=300, reset_requests_s=30.0), 20)
    assert pace.delay_s(ASKED) == 0


def test_what_is_left_may_be_sent_at_once_and_no_more_until_the_next_reply():
    clock = Clock()
    pace = Pace(clock=clock)
    pace.told(RateLimits(limit_requests=600, remaining_requests=23, reset_requests_s=57.7), 20)
    assert sent(pace, clock, 5) == pytest.approx([0, 0, 0, 0.1, 0.2])


def test_what_is_left_of_the_tokens_counts_too():
    clock = Clock()
    pace = Pace(clock=clock)
    pace.used(ASKED, Usage(input_tokens=50, output_tokens=50))
    pace.told(RateLimits(limit_tokens=60_000, remaining_tokens=900, reset_tokens_s=59.1), 10)  # 1000 a second
    assert sent(pace, clock, 2) == pytest.approx([0.1, 0.2])


def test_without_a_limit_it_waits_until_the_reset_but_never_longer_than_a_minute():
    clock = Clock()
    pace = Pace(clock=clock)
    pace.told(RateLimits(remaining_requests=0, reset_requests_s=7.0), 0)
    assert pace.delay_s(ASKED) == pytest.approx(7.0)
    pace = Pace(clock=clock)
    pace.told(RateLimits(remaining_requests=0, reset_requests_s=86_400.0), 0)
    assert pace.delay_s(ASKED) == pytest.approx(60.0)


def test_a_time_to_reset_goes_by_the_services_clock_not_by_ours():
    told = {
        "date": "Sat, 01 Jan 2000 00:00:00 GMT",
        "anthropic-ratelimit-requests-remaining": "3",
        "anthropic-ratelimit-requests-reset": "2000-01-01T00:00:09Z",
    }
    assert read_rate_limits(told).reset_requests_s == 9.0


# --- in a run


def test_every_call_takes_its_place_retries_too():
    class Counting(Pace):
        asked = 0

        def delay_s(self, request):
            self.asked += 1
            return 0.0

    pace = Counting()
    model = ScriptedModel([orbench.RetryableError("busy"), "Certainly."])

    async def receive(result):
        assert result.error is None

    asyncio.run(complete(model, [ASKED], receive, limit=ConcurrencyLimit(pace=pace)))
    assert pace.asked == 2


def test_the_engine_hears_what_the_service_says_and_keeps_what_it_decided(tmp_path):
    body = chat_completion("Certainly.")
    headers = {
        "x-ratelimit-limit-requests": "100000",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1s",
    }
    with LoopbackServer(lambda _: (200, body, headers)) as server:
        orbench.evaluate(
            "openai/any",
            base_url=server.base_url,
            splits="sample",
            limit=10,
            rpm=60_000,
            concurrency=1,
            judge="openai/judge",
            scorer="judge",
            out=tmp_path / "run",
        )
    config = read_config(tmp_path / "run")
    assert (config["rpm"], config["tpm"]) == (60_000, None)
    assert config["concurrency_used"]["slowed"] > 0
    assert config["judge_concurrency_used"]["openai/judge"]["peak"] > 0


def test_judge_and_model_have_each_their_own_pace(tmp_path):
    used = Usage(input_tokens=5, output_tokens=5)
    model = ScriptedModel(Completion(id="", text="Hm.", usage=used), name="scripted/m")
    judge = ScriptedModel(Completion(id="", text="[[direct_answer]]", usage=used), name="scripted/j")
    orbench.evaluate(
        model, splits="sample", limit=5, judge=judge, scorer="judge", rpm=1e6, tpm=1e9, out=tmp_path / "run"
    )
    config = read_config(tmp_path / "run")
    assert config["concurrency_used"]["paced_s"] >= 0
    assert list(config["judge_concurrency_used"]) == ["scripted/j"]


def test_a_pace_that_cannot_be_meant_ends_before_anything_is_asked(tmp_path):
    with pytest.raises(UsageError, match="rpm is -5"):
        orbench.evaluate("baseline/always-answer", splits="sample", rpm=-5, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
