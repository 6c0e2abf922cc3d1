"""OpenAI's Responses API, over a real connection to its wire format on loopback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orbench import Completion, Model, ModelError, RejectedError, RetryableError, Sampling
from orbench.models import Options, open_model
from orbench.models.openai import OpenAIModel
from orbench.records import Usage
from orbench.testing import LoopbackServer, response

Ask = Callable[..., Completion]


def model_at(server: LoopbackServer) -> Model:
    return open_model("openai/pro", Options(base_url=server.base_url, api="responses"))


def test_the_request_is_not_kept_by_the_service(ask: Ask) -> None:
    with LoopbackServer("Hello.") as server:
        completion = ask(model_at(server), "Hi there", system="Be brief.", sampling=Sampling(top_p=0.9, seed=3))
    assert server.requests == [
        {
            "model": "pro",
            "input": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi there"}],
            "max_output_tokens": 1000,
            "temperature": 0.0,
            "top_p": 0.9,
            "store": False,
        }
    ]
    assert completion == Completion(id="r1", text="Hello.", usage=Usage(input_tokens=10, output_tokens=1))


@pytest.mark.parametrize(
    ("seed", "noted"), [(3, ["seed not sent: the Responses API takes none"]), (None, [])], ids=["seed", "none"]
)
def test_a_seed_that_is_not_sent_is_noted(ask: Ask, seed: int | None, noted: list[str]) -> None:
    with LoopbackServer("Hello.") as server:
        model = model_at(server)
        ask(model, sampling=Sampling(seed=seed))
    assert isinstance(model, OpenAIModel)
    assert model.adaptations == noted


@pytest.mark.parametrize(("reasoning", "kept"), [("They greet.", "They greet."), ("", ""), (None, None)])
def test_reasoning_items_are_kept_apart(ask: Ask, reasoning: str | None, kept: str | None) -> None:
    with LoopbackServer(response("Hello.", reasoning=reasoning)) as server:
        completion = ask(model_at(server))
    assert (completion.text, completion.reasoning) == ("Hello.", kept)


def test_running_out_inside_the_reasoning_leaves_a_trace(ask: Ask) -> None:
    with LoopbackServer(response(None, reasoning="", incomplete="max_output_tokens")) as server:
        completion = ask(model_at(server))
    assert (completion.text, completion.reasoning, completion.finish_reason) == ("", "", "length")


@pytest.mark.parametrize(
    ("reason", "finish", "side"),
    [("max_output_tokens", "length", None), ("content_filter", "content_filter", "output"), ("new", "other", None)],
)
def test_an_incomplete_response_says_why(ask: Ask, reason: str, finish: str, side: str | None) -> None:
    with LoopbackServer(response("Well, fi", incomplete=reason)) as server:
        completion = ask(model_at(server))
    assert (completion.text, completion.finish_reason, completion.blocked_by) == ("Well, fi", finish, side)


def test_a_refusal_part_is_a_block_by_the_platform(ask: Ask) -> None:
    with LoopbackServer(response(None, refusal="I cannot do that.")) as server:
        completion = ask(model_at(server))
    assert (completion.text, completion.finish_reason) == ("I cannot do that.", "refusal")
    assert completion.blocked_by == "output"


def failed(code: str) -> dict[str, Any]:
    return {**response(None), "status": "failed", "error": {"code": code, "message": "It failed."}}


def test_a_response_that_failed_for_the_prompt_s_content_is_a_block(ask: Ask) -> None:
    for code in ("invalid_prompt", "bio_policy"):
        with LoopbackServer(failed(code)) as server:
            assert ask(model_at(server)).blocked_by == "prompt"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (failed("server_error"), RetryableError),
        (failed("rate_limit_exceeded"), RetryableError),
        (failed("invalid_image"), RejectedError),
        ({**response("x"), "status": "cancelled"}, RetryableError),
        ({"object": "response"}, RetryableError),
        (b'{"output": [{"type"', RetryableError),
    ],
)
def test_a_response_that_failed_otherwise_is_an_error(ask: Ask, body: Any, kind: type[Exception]) -> None:
    with LoopbackServer(body) as server, pytest.raises(kind):
        ask(model_at(server))


NOT_CHAT = (
    404,
    {
        "error": {
            "message": "This is not a chat model and thus not supported in the v1/chat/completions endpoint.",
            "type": "invalid_request_error",
            "param": "model",
            "code": None,
        }
    },
)


def test_a_model_that_chat_completions_do_not_serve_is_asked_here(ask: Ask) -> None:
    with LoopbackServer(lambda body: NOT_CHAT if "messages" in body else "Hello.") as server:
        model = open_model("openai/pro", Options(base_url=server.base_url))
        assert ask(model).text == "Hello."
    assert isinstance(model, OpenAIModel)
    assert model.adaptations == ["asked through the Responses API, the only one that serves it"]
    assert model.endpoint == "/v1/responses"


def test_a_model_that_neither_serves_stops_the_run(ask: Ask) -> None:
    with LoopbackServer(NOT_CHAT) as server, pytest.raises(ModelError, match="not a chat model"):
        ask(open_model("openai/none", Options(base_url=server.base_url)))
    assert len(server.requests) == 2


def test_chat_completions_that_were_asked_for_are_kept_to(ask: Ask) -> None:
    with LoopbackServer(NOT_CHAT) as server, pytest.raises(ModelError):
        ask(open_model("openai/pro", Options(base_url=server.base_url, api="chat")))
    assert len(server.requests) == 1
