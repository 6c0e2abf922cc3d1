"""Anthropic's provider, over a real connection to its wire format on loopback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orbench import Completion, Model, ModelError, RejectedError, RetryableError, Sampling
from orbench.models import Options, open_model
from orbench.models.remote import RemoteModel
from orbench.records import Usage
from orbench.testing import Faults, LoopbackServer, message

Ask = Callable[..., Completion]


def model_at(server: LoopbackServer, **options: Any) -> Model:
    return open_model("anthropic/claude", Options(base_url=server.root_url, **options))


def error(kind: str, text: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_1"}


def test_the_system_prompt_stands_apart_from_the_turns(ask: Ask) -> None:
    with LoopbackServer("Hello.") as server:
        completion = ask(model_at(server), "Hi there", system="Be brief.")
    assert server.requests == [
        {
            "model": "claude",
            "max_tokens": 1000,
            "messages": [{"role": "user", "content": "Hi there"}],
            "temperature": 0.0,
            "system": "Be brief.",
        }
    ]
    assert completion == Completion(id="r1", text="Hello.", usage=Usage(input_tokens=10, output_tokens=1))


def test_the_sdk_s_headers_are_sent_with_the_key(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-secret")
    with LoopbackServer() as server:
        ask(model_at(server))
    headers = server.headers[0]
    assert headers["anthropic-version"]
    assert "Anthropic" in headers["User-Agent"]
    assert "sk-ant-secret" in str(dict(headers))


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_address_may_come_with_or_without_the_version(ask: Ask, suffix: str) -> None:
    with LoopbackServer("Hello.") as server:
        model = open_model("anthropic/claude", Options(base_url=server.root_url + suffix))
        assert ask(model).text == "Hello."


def test_a_seed_is_not_sent_and_that_is_said(ask: Ask) -> None:
    with LoopbackServer() as server:
        model = model_at(server)
        ask(model, sampling=Sampling(temperature=0.5, seed=3, top_p=0.9))
    assert "seed" not in server.requests[0]
    assert server.requests[0]["top_p"] == 0.9
    assert isinstance(model, RemoteModel)
    assert model.adaptations == ["seed not sent: the service takes none"]


def test_a_temperature_that_the_service_does_not_know_stops_the_run(ask: Ask) -> None:
    with LoopbackServer() as server, pytest.raises(ModelError, match="takes 0 to 1"):
        ask(model_at(server), sampling=Sampling(temperature=1.5))


def test_a_model_without_temperature_is_asked_without(ask: Ask) -> None:
    def reply(body: dict[str, Any]) -> Any:
        if "temperature" in body:
            return 400, error("invalid_request_error", "`temperature` is deprecated for this model.")
        return "Hello."

    with LoopbackServer(reply) as server:
        model = model_at(server)
        assert ask(model).text == "Hello."
    assert isinstance(model, RemoteModel)
    assert model.adaptations == ["temperature left to the model, which accepts no other"]


def test_thinking_is_kept_apart(ask: Ask) -> None:
    with LoopbackServer(message("Hello.", thinking="They greet.")) as server:
        completion = ask(model_at(server))
    assert (completion.text, completion.reasoning) == ("Hello.", "They greet.")


def test_redacted_thinking_leaves_a_trace(ask: Ask) -> None:
    body = message(None, stop_reason="max_tokens")
    body["content"] = [{"type": "redacted_thinking", "data": "xyz"}]
    with LoopbackServer(body) as server:
        completion = ask(model_at(server))
    assert (completion.text, completion.reasoning, completion.finish_reason) == ("", "", "length")


@pytest.mark.parametrize(
    ("stop_reason", "finish", "side"),
    [
        ("end_turn", "stop", None),
        ("stop_sequence", "stop", None),
        ("max_tokens", "length", None),
        ("model_context_window_exceeded", "length", None),
        ("pause_turn", "other", None),
        ("something_new", "other", None),
        ("refusal", "refusal", "output"),
    ],
)
def test_why_it_stopped_is_told_in_our_words(ask: Ask, stop_reason: str, finish: str, side: str | None) -> None:
    with LoopbackServer(message("Well, fi", stop_reason=stop_reason)) as server:
        completion = ask(model_at(server))
    assert (completion.text, completion.finish_reason, completion.blocked_by) == ("Well, fi", finish, side)


def test_a_reply_without_content_is_empty_not_an_error(ask: Ask) -> None:
    with LoopbackServer(message(None)) as server:
        completion = ask(model_at(server))
    assert (completion.text, completion.blocked_by) == ("", None)


def test_cached_tokens_count_as_input(ask: Ask) -> None:
    body = message("Hello.")
    body["usage"] |= {"cache_creation_input_tokens": 5, "cache_read_input_tokens": 7}
    with LoopbackServer(body) as server:
        assert ask(model_at(server)).usage == Usage(input_tokens=22, output_tokens=1)


def test_the_filter_over_the_output_is_a_block(ask: Ask) -> None:
    answer = (400, error("invalid_request_error", "Output blocked by content filtering policy"))
    with LoopbackServer(answer) as server:
        completion = ask(model_at(server))
    assert (completion.text, completion.blocked_by) == ("", "output")


@pytest.mark.parametrize(
    ("status", "kind", "text", "words"),
    [
        (401, "authentication_error", "invalid x-api-key", ["401", "ANTHROPIC_API_KEY"]),
        (400, "invalid_request_error", "Your credit balance is too low to access the API", ["no quota"]),
        (403, "permission_error", "Not yours", ["access denied"]),
        (404, "not_found_error", "model: claude", ["not found", "--base-url"]),
    ],
)
def test_what_no_request_can_pass_stops_the_run(ask: Ask, status: int, kind: str, text: str, words: list[str]) -> None:
    with LoopbackServer((status, error(kind, text))) as server, pytest.raises(ModelError) as caught:
        ask(model_at(server))
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("status", "overloaded"), [(429, True), (500, False), (504, False), (529, True)])
def test_what_may_pass_is_tried_again(ask: Ask, status: int, overloaded: bool) -> None:
    answer = (status, error("overloaded_error", "Overloaded"), {"Retry-After": "2"})
    with LoopbackServer(answer) as server, pytest.raises(RetryableError, match="Overloaded") as caught:
        ask(model_at(server))
    assert (caught.value.overloaded, caught.value.retry_after) == (overloaded, 2.0)


@pytest.mark.parametrize("status", [400, 413])
def test_a_bad_request_concerns_this_prompt_alone(ask: Ask, status: int) -> None:
    answer = (status, error("invalid_request_error", "prompt is too long: 200001 tokens"))
    with LoopbackServer(answer) as server, pytest.raises(RejectedError, match="prompt is too long"):
        ask(model_at(server))


def test_an_error_with_status_200_is_still_one(ask: Ask) -> None:
    with LoopbackServer(error("overloaded_error", "Overloaded")) as server, pytest.raises(RetryableError) as caught:
        ask(model_at(server))
    assert caught.value.overloaded


@pytest.mark.parametrize("fault", ["dropped", "half", "malformed"])
def test_a_broken_reply_is_asked_for_again(ask: Ask, fault: str) -> None:
    with LoopbackServer(faults=Faults(**{fault: 1.0})) as server, pytest.raises(RetryableError):
        ask(model_at(server))


def test_what_is_left_of_the_limits_is_told(ask: Ask) -> None:
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2020-01-01T00:00:00Z",
        "anthropic-ratelimit-tokens-remaining": "40000",
    }
    with LoopbackServer((200, message("Hello."), headers)) as server:
        model = model_at(server)
        ask(model)
    assert isinstance(model, RemoteModel)
    limits = model.rate_limits
    assert limits is not None
    assert (limits.limit_requests, limits.remaining_requests, limits.reset_requests_s) == (50, 49, 0.0)
    assert limits.remaining_tokens == 40000


def test_a_missing_key_names_its_variable() -> None:
    with pytest.raises(ModelError, match="Set ANTHROPIC_API_KEY"):
        open_model("anthropic/claude")
