"""Google's provider through both SDKs, over a real connection to its wire format on loopback."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from orbench import Completion, Model, ModelError, OrbenchWarning, RejectedError, RetryableError, Sampling
from orbench.models import Options, google_legacy, open_model
from orbench.records import Usage
from orbench.testing import Faults, LoopbackServer, generated_content

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


def test_thoughts_are_kept_apart(ask: Ask) -> None:
    with LoopbackServer(generated_content("Hello.", thought="They greet.")) as server:
        completion = ask(open_model("google/gemini", Options(base_url=server.root_url)))
    assert (completion.text, completion.reasoning) == ("Hello.", "They greet.")
    assert completion.usage == Usage(input_tokens=10, output_tokens=3)


def test_hidden_thoughts_leave_a_trace_when_the_answer_is_cut_off(ask: Ask) -> None:
    body = generated_content(None, finish_reason="MAX_TOKENS")
    body["usageMetadata"]["thoughtsTokenCount"] = 1000
    with LoopbackServer(body) as server:
        completion = ask(open_model("google/gemini", Options(base_url=server.root_url)))
    assert (completion.text, completion.reasoning, completion.finish_reason) == ("", "", "length")


@pytest.mark.parametrize(
    ("status", "text", "details", "words"),
    [
        (400, "API key not valid. Please pass a valid API key.", [], ["key was refused", "GEMINI_API_KEY"]),
        (403, "Permission denied on resource", [], ["access denied"]),
        (404, "models/gemini is not found", [], ["not found"]),
        (400, "User location is not supported for the API use.", [], ["access denied"]),
    ],
)
def test_what_no_request_can_pass_stops_the_run(
    ask: Ask, model_at: Open, status: int, text: str, details: list[Any], words: list[str]
) -> None:
    with LoopbackServer((status, error(status, text, details))) as server, pytest.raises(ModelError) as caught:
        ask(model_at(server))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_daily_quota_that_is_used_up_stops_the_run(ask: Ask) -> None:
    failure = {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}],
    }
    answer = (429, error(429, "You exceeded your current quota", [failure]))
    with LoopbackServer(answer) as server, pytest.raises(ModelError, match="no quota left for today"):
        ask(open_model("google/gemini", Options(base_url=server.root_url)))


def test_the_wait_stands_in_the_body(ask: Ask) -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}
    with LoopbackServer((429, error(429, "Per minute", [info]))) as server, pytest.raises(RetryableError) as caught:
        ask(open_model("google/gemini", Options(base_url=server.root_url)))
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


@pytest.mark.parametrize("body", [{}, {"candidates": []}, generated_content("x", finish_reason="MALFORMED_RESPONSE")])
def test_a_reply_without_candidate_and_reason_is_asked_for_again(ask: Ask, body: dict[str, Any]) -> None:
    with LoopbackServer(body) as server, pytest.raises(RetryableError):
        ask(open_model("google/gemini", Options(base_url=server.root_url)))


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
