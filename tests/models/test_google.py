"""Google's provider through both SDKs, over a real connection to its wire format on loopback."""

from __future__ import annotations

import asyncio
import importlib.util
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from orbench import (
    Completion,
    Message,
    Model,
    ModelError,
    OrbenchWarning,
    RejectedError,
    Request,
    RetryableError,
    Sampling,
)
from orbench.models import Options, google_legacy, open_model
from orbench.models.google import BLOCK_NUMBERS, FINISH_NUMBERS
from orbench.records import Usage
from orbench.testing import Faults, LoopbackServer, generated_content, prompt_of

Ask = Callable[..., Completion]
Open = Callable[..., Model]

has_legacy = importlib.util.find_spec("google.generativeai") is not None
legacy = pytest.param("legacy", marks=pytest.mark.skipif(not has_legacy, reason="needs the extra `google-legacy`"))


@pytest.fixture(params=["genai", legacy])
def sdk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(google_legacy, "_told", ["told"])
    return str(request.param)


@pytest.fixture
def model_at(sdk: str) -> Open:
    def open_at(server: LoopbackServer, **options: Any) -> Model:
        return open_model("google/gemini-2.5-pro", Options(base_url=server.root_url, google_sdk=sdk, **options))  # type: ignore[arg-type]

    return open_at


def error(status: int, text: str, details: list[Any] | None = None) -> dict[str, Any]:
    return {"error": {"code": status, "message": text, "status": "X", "details": details or []}}


def test_the_request_sets_the_adjustable_filters_to_block_none(ask: Ask, model_at: Open) -> None:
    with LoopbackServer("Hello.") as server:
        completion = ask(model_at(server), "Hi there", system="Be brief.")
    (body,) = server.requests
    assert body["contents"] == [{"role": "user", "parts": [{"text": "Hi there"}]}]
    assert body["systemInstruction"]["parts"] == [{"text": "Be brief."}]
    assert body["generationConfig"]["maxOutputTokens"] == 1000
    assert body["generationConfig"]["temperature"] == 0.0
    assert len(body["safetySettings"]) == 4
    assert {s["threshold"] for s in body["safetySettings"]} in ({"BLOCK_NONE"}, {4})  # the older SDK sends numbers
    assert completion == Completion(id="r1", text="Hello.", usage=Usage(input_tokens=10, output_tokens=1))


def test_the_vendor_s_own_filters_are_an_option(ask: Ask, model_at: Open) -> None:
    with LoopbackServer() as server:
        model = model_at(server, google_safety="vendor")
        ask(model)
    assert not server.requests[0].get("safetySettings")
    assert model.settings == {"safety": "vendor"}  # type: ignore[attr-defined]


def test_sampling_is_sent(ask: Ask, model_at: Open) -> None:
    with LoopbackServer() as server:
        ask(model_at(server), sampling=Sampling(temperature=0.5, top_p=0.5, max_tokens=5))
    assert server.requests[0]["generationConfig"] == {"temperature": 0.5, "topP": 0.5, "maxOutputTokens": 5}


@pytest.mark.parametrize("variable", ["GEMINI_API_KEY", "GOOGLE_API_KEY"])
def test_the_key_goes_into_the_header(ask: Ask, model_at: Open, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "goog-secret")
    with LoopbackServer() as server:
        ask(model_at(server))
    assert server.headers[0]["x-goog-api-key"] == "goog-secret"


def test_a_seed_is_sent_where_the_sdk_knows_it(ask: Ask, model_at: Open, sdk: str) -> None:
    with LoopbackServer("Hello.") as server:
        model = model_at(server)
        assert ask(model, sampling=Sampling(seed=3)).text == "Hello."
    assert server.requests[0]["generationConfig"].get("seed") == (3 if sdk == "genai" else None)
    assert bool(model.adaptations) == (sdk == "legacy")  # type: ignore[attr-defined]


def test_a_blocked_prompt_is_blocked_not_an_error(ask: Ask, model_at: Open) -> None:
    with LoopbackServer(generated_content(None, block_reason="PROHIBITED_CONTENT")) as server:
        completion = ask(model_at(server))
    assert (completion.text, completion.blocked_by, completion.finish_reason) == ("", "prompt", "content_filter")


@pytest.mark.parametrize("reason", ["SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "RECITATION"])
@pytest.mark.parametrize("partial", [None, "Well, fi"])
def test_a_blocked_output_keeps_what_there_was(ask: Ask, model_at: Open, reason: str, partial: str | None) -> None:
    with LoopbackServer(generated_content(partial, finish_reason=reason)) as server:
        completion = ask(model_at(server))
    assert (completion.text, completion.blocked_by) == (partial or "", "output")
    assert completion.finish_reason == "content_filter"


@pytest.mark.parametrize(("reason", "finish"), [("STOP", "stop"), ("MAX_TOKENS", "length"), ("OTHER", "other")])
def test_why_it_stopped_is_told_in_our_words(ask: Ask, model_at: Open, reason: str, finish: str) -> None:
    with LoopbackServer(generated_content("Hello.", finish_reason=reason)) as server:
        completion = ask(model_at(server))
    assert (completion.finish_reason, completion.blocked_by) == (finish, None)


def test_thoughts_are_kept_apart(ask: Ask, model_at: Open) -> None:
    with LoopbackServer(generated_content("Hello.", thought="They greet.")) as server:
        completion = ask(model_at(server))
    assert (completion.text, completion.reasoning) == ("Hello.", "They greet.")
    assert completion.usage == Usage(input_tokens=10, output_tokens=3)


def test_hidden_thoughts_leave_a_trace_when_the_answer_is_cut_off(ask: Ask, model_at: Open) -> None:
    body = generated_content(None, finish_reason="MAX_TOKENS")
    body["usageMetadata"]["thoughtsTokenCount"] = 1000
    with LoopbackServer(body) as server:
        completion = ask(model_at(server))
    assert (completion.text, completion.reasoning, completion.finish_reason) == ("", "", "length")


@pytest.mark.parametrize(
    ("status", "text", "details", "words"),
    [
        (400, "API key not valid. Please pass a valid API key.", [], ["key was refused", "GEMINI_API_KEY"]),
        (403, "Permission denied on resource", [], ["access denied", "the same command goes on"]),
        (404, "models/gemini is not found", [], ["not found"]),
        (400, "User location is not supported for the API use.", [], ["access denied", "the same command goes on"]),
    ],
)
def test_what_no_request_can_pass_stops_the_run(
    ask: Ask, model_at: Open, status: int, text: str, details: list[Any], words: list[str]
) -> None:
    with LoopbackServer((status, error(status, text, details))) as server, pytest.raises(ModelError) as caught:
        ask(model_at(server))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_daily_quota_that_is_used_up_stops_the_run(ask: Ask, model_at: Open) -> None:
    failure = {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}],
    }
    answer = (429, error(429, "You exceeded your current quota", [failure]))
    with (
        LoopbackServer(answer) as server,
        pytest.raises(ModelError, match=r"no quota left for today .*goes on tomorrow"),
    ):
        ask(model_at(server))


def test_the_wait_stands_in_the_body(ask: Ask, model_at: Open) -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}
    with LoopbackServer((429, error(429, "Per minute", [info]))) as server, pytest.raises(RetryableError) as caught:
        ask(model_at(server))
    assert (caught.value.retry_after, caught.value.overloaded) == (34.5, True)


def test_a_quota_a_minute_passes_although_the_message_speaks_of_billing(ask: Ask, model_at: Open) -> None:
    failure = {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "quotaValue": "15"}],
    }
    said = "You exceeded your current quota, please check your plan and billing details."
    with LoopbackServer((429, error(429, said, [failure]))) as server, pytest.raises(RetryableError) as caught:
        ask(model_at(server))
    assert caught.value.overloaded


@pytest.mark.parametrize(("status", "overloaded"), [(429, True), (500, False), (503, True), (504, False)])
def test_what_may_pass_is_tried_again_and_by_the_engine_alone(
    ask: Ask, model_at: Open, status: int, overloaded: bool
) -> None:
    with LoopbackServer((status, error(status, "The model is overloaded."))) as server:
        with pytest.raises(RetryableError, match="overloaded") as caught:
            ask(model_at(server))
        assert len(server.requests) == 1
    assert caught.value.overloaded == overloaded


def test_a_bad_request_concerns_this_prompt_alone(ask: Ask, model_at: Open) -> None:
    answer = (400, error(400, "The input token count exceeds the maximum"))
    with LoopbackServer(answer) as server, pytest.raises(RejectedError, match="token count"):
        ask(model_at(server))


@pytest.mark.parametrize("fault", ["dropped", "half", "malformed"])
def test_a_broken_reply_is_asked_for_again(ask: Ask, model_at: Open, fault: str) -> None:
    with LoopbackServer(faults=Faults(**{fault: 1.0})) as server, pytest.raises(RetryableError):
        ask(model_at(server))


def test_a_stalled_call_is_given_up(ask: Ask, model_at: Open) -> None:
    with LoopbackServer(faults=Faults(stalled=1.0)) as server, pytest.raises(RetryableError, match="no reply within"):
        ask(model_at(server, timeout_s=0.05))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"candidates": []},
        {"candidates": [], "promptFeedback": {}},
        {"candidates": [], "promptFeedback": {"blockReason": "BLOCK_REASON_UNSPECIFIED"}},
        {"candidates": [], "promptFeedback": {"blockReason": 0}},
        {"candidates": "none"},
        {"candidates": [7]},
        {"candidates": [{"content": {"parts": [{"text": 7}]}}]},
        generated_content("x", finish_reason="MALFORMED_RESPONSE"),
        b"[]",
        b'"Hello."',
    ],
)
def test_a_reply_without_candidate_and_reason_is_asked_for_again(ask: Ask, model_at: Open, body: Any) -> None:
    with LoopbackServer(lambda asked: (200, body)) as server, pytest.raises(RetryableError):
        ask(model_at(server))


@pytest.mark.parametrize(
    "candidate",
    [
        {"finishReason": "STOP"},
        {"finishReason": "STOP", "content": None},
        {"finishReason": "STOP", "content": {}},
        {"finishReason": "STOP", "content": {"role": "model"}},
        {"finishReason": "STOP", "content": {"parts": []}},
        {"finishReason": "STOP", "content": {"parts": [{}]}},
        {"content": {"parts": [{"text": ""}]}},
    ],
)
def test_a_candidate_without_text_is_an_empty_answer(ask: Ask, model_at: Open, candidate: Any) -> None:
    with LoopbackServer({"candidates": [candidate]}) as server:
        completion = ask(model_at(server))
    assert (completion.text, completion.finish_reason, completion.blocked_by) == ("", "stop", None)


@pytest.mark.parametrize("reason", ["SAFETY", 1, "1", 4, "JAILBREAK", "SOMETHING_NEW", 99])
def test_a_prompt_is_blocked_whatever_the_reason_is_called_and_whatever_is_beside_it(
    ask: Ask, model_at: Open, reason: str | int
) -> None:
    body = {**generated_content("Well"), "promptFeedback": {"blockReason": reason, "safetyRatings": [{"odd": 1}]}}
    with LoopbackServer(body) as server:
        completion = ask(model_at(server))
    assert (completion.text, completion.blocked_by, completion.finish_reason) == ("", "prompt", "content_filter")


@pytest.mark.parametrize(
    ("reason", "finish", "blocked"),
    [
        (1, "stop", None),
        (2, "length", None),
        (3, "content_filter", "output"),
        ("3", "content_filter", "output"),
        (8, "content_filter", "output"),
        (5, "other", None),
        ("MODEL_ARMOR", "content_filter", "output"),
        ("ESCALATION", "content_filter", "output"),
        ("SOMETHING_NEW", "other", None),
        (99, "other", None),
        (-1, "other", None),
    ],
)
def test_reasons_are_read_by_name_and_by_number_known_to_the_sdk_or_not(
    ask: Ask, model_at: Open, reason: str | int, finish: str, blocked: str | None
) -> None:
    """The older SDK asks Google for numbers, and would drop names that are newer than itself."""
    body = generated_content("Well, fi")
    body["candidates"][0]["finishReason"] = reason
    with LoopbackServer(body) as server:
        completion = ask(model_at(server))
    assert (completion.text, completion.finish_reason, completion.blocked_by) == ("Well, fi", finish, blocked)


@pytest.mark.skipif(not has_legacy, reason="needs the extra `google-legacy`")
def test_the_numbers_are_those_of_google_s_protocol_buffers() -> None:
    from google.ai.generativelanguage import Candidate, GenerateContentResponse

    for numbers, reasons in (
        (FINISH_NUMBERS, Candidate.FinishReason),
        (BLOCK_NUMBERS, GenerateContentResponse.PromptFeedback.BlockReason),
    ):
        assert {reason.value: reason.name for reason in reasons} == dict(enumerate(numbers))


def test_what_is_odd_beside_an_answer_does_not_cost_it(ask: Ask, model_at: Open) -> None:
    body = {**generated_content("Hello."), "usageMetadata": {"promptTokenCount": 10.0, "candidatesTokenCount": "1"}}
    with LoopbackServer({**body, "error": "", "modelVersion": ["?"]}) as server:
        completion = ask(model_at(server))
        assert len(server.requests) == 1
    assert (completion.text, completion.usage) == ("Hello.", Usage(input_tokens=10, output_tokens=1))


def test_an_error_that_comes_as_a_reply_is_one(ask: Ask, model_at: Open) -> None:
    with LoopbackServer((200, error(400, "Bad."))) as server, pytest.raises(RejectedError, match="Bad"):
        ask(model_at(server))


PAGE = (403, b"<html>Request blocked</html>")
DENIED = (403, error(403, "This request is blocked."))


def ask_each(model: Model, prompts: Iterable[str]) -> list[str]:
    """Ask one after the other, and say how each ended; what stops the run is raised."""

    async def main() -> list[str]:
        found = []
        try:
            for prompt in prompts:
                try:
                    request = Request(id=prompt, messages=(Message("user", prompt),))
                    found += [completion.text async for completion in model.generate([request])]
                except RejectedError:
                    found.append("rejected")
        finally:
            await model.close()
        return found

    return asyncio.run(main())


@pytest.mark.parametrize("answer", [PAGE, DENIED])
def test_a_403_between_replies_is_about_its_prompt(model_at: Open, answer: Any) -> None:
    with LoopbackServer(lambda body: answer if "bad" in prompt_of(body) else "Hello.") as server:
        assert ask_each(model_at(server), ["good", "bad", "fine"]) == ["Hello.", "rejected", "Hello."]


def test_a_firewalls_page_is_about_its_prompt_also_where_it_comes_first(model_at: Open) -> None:
    with LoopbackServer(PAGE) as server:
        assert ask_each(model_at(server), ["bad", "worse"]) == ["rejected", "rejected"]


@pytest.mark.parametrize("answer", [PAGE, DENIED])
def test_many_403_in_a_row_stop_the_run(model_at: Open, answer: Any) -> None:
    with LoopbackServer(lambda body: answer if "bad" in prompt_of(body) else "Hello.") as server:
        with pytest.raises(ModelError, match="denied 20 times in a row"):
            ask_each(model_at(server), ["good", *(f"bad {number}" for number in range(30))])
        assert len(server.requests) == 21


@pytest.mark.parametrize("status", [400, 403])
@pytest.mark.parametrize(
    "prompt", ["billing", "API key not valid. Please pass a valid API key.", "User location is not supported here"]
)
def test_what_an_error_repeats_of_the_prompt_is_not_the_service_s_word(
    model_at: Open, prompt: str, status: int
) -> None:
    def answer(body: dict[str, Any]) -> Any:
        asked = prompt_of(body)
        return "Hello." if asked == "Hi" else (status, error(status, f"Cannot process: {asked!r}"))

    with LoopbackServer(answer) as server:
        assert ask_each(model_at(server), ["Hi", prompt, "Hi"]) == ["Hello.", "rejected", "Hello."]


def test_a_parameter_that_is_refused_is_left_out_from_then_on(ask: Ask, model_at: Open) -> None:
    answer = (400, error(400, "temperature is not supported by this model."))
    with LoopbackServer(lambda b: answer if "temperature" in b["generationConfig"] else "Hello.") as server:
        model = model_at(server)
        assert ask(model, sampling=Sampling(temperature=0.5)).text == "Hello."
    assert model.adaptations == ["temperature left to the model, which accepts no other"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("body", [b'[{"error": {"message": "Bad."}}]', b'"Bad."', b"Bad.", b'{"error": "Bad."}'])
def test_an_error_in_any_shape_is_told(ask: Ask, model_at: Open, body: bytes) -> None:
    with LoopbackServer((400, body)) as server, pytest.raises(RejectedError, match="Bad"):
        ask(model_at(server))


def test_a_redirect_is_not_followed(ask: Ask, model_at: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "goog-secret")
    with LoopbackServer() as elsewhere:
        target = elsewhere.root_url + "/v1beta/models/x:generateContent"
        with LoopbackServer((307, {}, {"Location": target})) as server, pytest.raises(ModelError, match="redirects"):
            ask(model_at(server))
        assert elsewhere.headers == []


def test_a_missing_key_names_its_variables() -> None:
    with pytest.raises(ModelError, match="Set GOOGLE_API_KEY or GEMINI_API_KEY"):
        open_model("google/gemini-2.5-pro")


@pytest.mark.skipif(not has_legacy, reason="needs the extra `google-legacy`")
def test_the_end_of_support_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(google_legacy, "_told", [])
    options = Options(base_url="http://127.0.0.1:1", google_sdk="legacy")
    with pytest.warns(OrbenchWarning, match="ended support on 2025-11-30"):
        open_model("google/gemini", options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_model("google/gemini", options)
