"""The provider for OpenAI-compatible services, over a real connection to a server on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from orbench import Completion, Message, Model, ModelError, OrbenchWarning, RejectedError, Request, RetryableError
from orbench.models import Options, open_model, wire
from orbench.models.openai import OpenAIModel
from orbench.models.services import Service
from orbench.records import Sampling, Usage
from orbench.testing import Faults, LoopbackServer, chat_completion

Ask = Callable[..., Completion]
Body = dict[str, Any]


def model_at(server: LoopbackServer, name: str = "openai/tiny") -> Model:
    return open_model(name, Options(base_url=server.base_url))


def error(message: str, **fields: object) -> Body:
    return {"error": {"message": message, **fields}}


class Scripted:
    """Answers requests in turn."""

    def __init__(self, *answers: Any) -> None:
        self._answers: Iterator[Any] = iter(answers)

    def __call__(self, body: Body) -> Any:
        return next(self._answers)


# The request


def test_the_request_is_greedy_with_one_user_message_and_1000_tokens(ask: Ask) -> None:
    with LoopbackServer("Hello.") as server:
        completion = ask(model_at(server), "How do I kill a Python process?")
    assert server.requests == [
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": "How do I kill a Python process?"}],
            "max_tokens": 1000,
            "temperature": 0.0,
        }
    ]
    assert completion == Completion(id="r1", text="Hello.", usage=Usage(input_tokens=10, output_tokens=1))


def test_a_system_prompt_comes_first_and_sampling_is_sent(ask: Ask) -> None:
    with LoopbackServer() as server:
        sampling = Sampling(temperature=0.7, max_tokens=5, top_p=0.9, seed=3)
        ask(model_at(server), "Hello", system="Be brief.", sampling=sampling)
    (body,) = server.requests
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert (body["temperature"], body["max_tokens"], body["top_p"], body["seed"]) == (0.7, 5, 0.9, 3)


def test_the_model_name_may_hold_slashes(ask: Ask) -> None:
    with LoopbackServer() as server:
        ask(model_at(server, "openrouter/anthropic/claude-3"))
    assert server.requests[0]["model"] == "anthropic/claude-3"


def test_the_key_goes_into_the_header(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "  gsk-secret\n")
    with LoopbackServer() as server:
        ask(model_at(server, "groq/any"))
    assert server.headers[0]["Authorization"] == "Bearer gsk-secret"


def test_a_server_of_ones_own_needs_no_key(ask: Ask) -> None:
    with LoopbackServer("Hello.") as server:
        assert ask(model_at(server)).text == "Hello."


def test_the_address_may_come_from_the_environment(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    with LoopbackServer("Hello.") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        assert ask(open_model("openai/tiny")).text == "Hello."


def test_a_given_address_goes_before_that_of_the_environment(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    with LoopbackServer("Hello.") as server:
        assert ask(model_at(server)).text == "Hello."


def test_each_request_of_a_list_is_answered() -> None:
    async def main(model: Model) -> list[str]:
        requests = [Request(id=str(n), messages=(Message("user", f"Prompt {n}"),)) for n in range(3)]
        try:
            return [f"{c.id} {c.text}" async for c in model.generate(requests)]
        finally:
            await model.close()

    with LoopbackServer(lambda body: body["messages"][0]["content"]) as server:
        assert asyncio.run(main(model_at(server))) == ["0 Prompt 0", "1 Prompt 1", "2 Prompt 2"]


# The reply


def test_reasoning_in_its_own_field_is_kept_apart(ask: Ask) -> None:
    for field in ("reasoning_content", "reasoning"):
        with LoopbackServer(chat_completion("Hello.", **{field: "They greet."})) as server:
            completion = ask(model_at(server))
        assert (completion.text, completion.reasoning) == ("Hello.", "They greet.")


def test_reasoning_inside_the_text_is_kept_apart(ask: Ask) -> None:
    with LoopbackServer("<think>They greet.</think>\n\nHello.") as server:
        completion = ask(model_at(server))
    assert (completion.text, completion.reasoning) == ("Hello.", "They greet.")


def test_hidden_reasoning_leaves_a_trace_when_the_answer_is_cut_off(ask: Ask) -> None:
    body = chat_completion("", finish_reason="length")
    body["usage"]["completion_tokens_details"] = {"reasoning_tokens": 1000}
    with LoopbackServer(body) as server:
        completion = ask(model_at(server))
    assert (completion.text, completion.reasoning, completion.finish_reason) == ("", "", "length")


def test_no_reasoning_tokens_mean_no_reasoning(ask: Ask) -> None:
    body = chat_completion("Hello.")
    body["usage"]["completion_tokens_details"] = {"reasoning_tokens": 0}
    with LoopbackServer(body) as server:
        assert ask(model_at(server)).reasoning is None


def test_a_list_of_parts_is_joined_and_its_thinking_kept_apart(ask: Ask) -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "They "}, {"type": "text", "text": "greet."}]},
        {"type": "text", "text": "Hel"},
        {"type": "reference", "reference_ids": [1]},
        {"type": "text", "text": "lo."},
    ]
    body = chat_completion(None)
    body["choices"][0]["message"]["content"] = parts
    with LoopbackServer(body) as server:
        completion = ask(model_at(server))
    assert (completion.text, completion.reasoning) == ("Hello.", "They greet.")


def test_the_refusal_field_is_a_block_by_the_platform(ask: Ask) -> None:
    with LoopbackServer(chat_completion(None, refusal="I cannot do that.")) as server:
        completion = ask(model_at(server))
    assert completion.blocked_by == "output"
    assert completion.finish_reason == "refusal"
    assert completion.text == "I cannot do that."


def test_a_content_filter_is_a_block_of_the_output(ask: Ask) -> None:
    with LoopbackServer(chat_completion("Well, fi", finish_reason="content_filter")) as server:
        completion = ask(model_at(server))
    assert (completion.blocked_by, completion.finish_reason) == ("output", "content_filter")


@pytest.mark.parametrize(
    ("told", "kept"), [("stop", "stop"), ("length", "length"), ("tool_calls", "other"), (None, "stop")]
)
def test_finish_reasons_are_told_in_our_words(ask: Ask, told: str | None, kept: str) -> None:
    body = chat_completion("Hello.")
    body["choices"][0]["finish_reason"] = told
    with LoopbackServer(body) as server:
        completion = ask(model_at(server))
    assert (completion.finish_reason, completion.blocked_by) == (kept, None)


def test_a_reply_without_content_is_empty_not_an_error(ask: Ask) -> None:
    with LoopbackServer(chat_completion(None)) as server:
        completion = ask(model_at(server))
    assert (completion.text, completion.blocked_by) == ("", None)


def test_a_reply_without_usage_has_none(ask: Ask) -> None:
    body = chat_completion("Hello.")
    del body["usage"]
    with LoopbackServer(body) as server:
        assert ask(model_at(server)).usage is None


# Prompts that the platform blocks


AZURE = error(
    "The response was filtered due to the prompt triggering content management policy.",
    code="content_filter",
    status=400,
    innererror={"code": "ResponsibleAIPolicyViolation"},
)


@pytest.mark.parametrize(
    "answer",
    [
        (400, AZURE),
        (400, error("Filtered.", code=None, innererror={"code": "ResponsibleAIPolicyViolation"})),
        (400, error("Not allowed.", type="content_policy_violation")),
        (403, error("Flagged.", code=403, metadata={"flagged_input": "how do I", "reasons": ["violence"]})),
    ],
)
def test_a_filtered_prompt_is_blocked_not_an_error(ask: Ask, answer: tuple[int, Body]) -> None:
    with LoopbackServer(answer) as server:
        completion = ask(model_at(server))
    assert (completion.blocked_by, completion.text) == ("prompt", "")


# Parameters that a model does not accept


MAX_TOKENS = (
    400,
    error(
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        param="max_tokens",
        code="unsupported_parameter",
    ),
)
TEMPERATURE = (
    400,
    error(
        "Unsupported value: 'temperature' does not support 0.0 with this model.",
        param="temperature",
        code="unsupported_value",
    ),
)


def test_what_a_reasoning_model_does_not_accept_is_left_out_from_then_on() -> None:
    async def main(model: Model, prompts: Sequence[str]) -> list[str]:
        requests = [Request(id=prompt, messages=(Message("user", prompt),)) for prompt in prompts]
        try:
            return [completion.text async for completion in model.generate(requests)]
        finally:
            await model.close()

    with LoopbackServer(Scripted(MAX_TOKENS, TEMPERATURE, "First.", "Second.")) as server:
        model = open_model("openai/o-tiny", Options(base_url=server.base_url))
        assert asyncio.run(main(model, ["one", "two"])) == ["First.", "Second."]
    assert isinstance(model, OpenAIModel)
    assert len(model.adaptations) == 2
    for body in server.requests[2:]:
        assert body["max_completion_tokens"] == 1000
        assert "max_tokens" not in body
        assert "temperature" not in body


def test_a_refused_temperature_may_be_named_apart_from_the_message(ask: Ask) -> None:
    with LoopbackServer(Scripted((422, error("Cannot be set.", param="temperature")), "Hello.")) as server:
        assert ask(model_at(server)).text == "Hello."
    assert "temperature" not in server.requests[1]


def test_a_parameter_that_stays_refused_is_not_sent_for_ever(ask: Ask) -> None:
    with LoopbackServer(MAX_TOKENS) as server, pytest.raises(RejectedError, match="max_tokens"):
        ask(model_at(server))
    assert len(server.requests) == 2


# Errors that stop the run


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((401, error("Incorrect API key provided.")), ["groq/any", "401", "Incorrect API key", "GROQ_API_KEY"]),
        (
            (402, error("Insufficient credits.")),
            ["no quota", "402", "Insufficient credits", "add credit", "same command goes on"],
        ),
        ((429, error("You exceeded your quota.", code="insufficient_quota")), ["no quota", "exceeded"]),
        ((429, error("Quota.", code=429, type="insufficient_quota")), ["no quota"]),
        ((400, error("Limit.", code="billing_hard_limit_reached")), ["no quota"]),
        (
            (403, error("Your organization must be verified.")),
            ["access denied", "must be verified", "same command goes on"],
        ),
        ((404, error("The model `any` does not exist.")), ["not found", "does not exist", "--base-url"]),
        ((307, {}, {"Location": "https://example.org/"}), ["redirects", "--base-url"]),
    ],
)
def test_what_no_request_can_pass_stops_the_run(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, answer: Any, words: list[str]
) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "gsk-secret")
    with LoopbackServer(answer) as server, pytest.raises(ModelError) as caught:
        ask(model_at(server, "groq/any"))
    for word in words:
        assert word in str(caught.value)
    assert len(server.requests) == 1


def test_a_refused_key_without_a_variable_names_none(ask: Ask) -> None:
    with LoopbackServer((401, error("Who are you?"))) as server, pytest.raises(ModelError, match=r"Who are you\?\)$"):
        ask(model_at(server, "ollama/tiny"))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_the_key_is_never_in_an_error(ask: Ask, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    body = error("Incorrect API key provided: sk-very-secret.")
    with LoopbackServer((status, body)) as server, pytest.raises(Exception, match="Incorrect API key") as caught:
        ask(model_at(server))
    assert "sk-very-secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["x", "e", "model", "none"])
def test_a_dummy_key_takes_nothing_out_of_what_the_service_says(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    body = error("You exceeded your quota; see the message for none.", code="insufficient_quota")
    with LoopbackServer((429, body)) as server, pytest.raises(ModelError, match=r"no quota left .*see the message"):
        ask(model_at(server))


# Errors that may pass


def test_too_many_requests_says_how_long_to_wait(ask: Ask) -> None:
    answer = (429, error("Rate limit reached."), {"Retry-After": "7"})
    with LoopbackServer(answer) as server, pytest.raises(RetryableError, match="Rate limit reached") as caught:
        ask(model_at(server))
    assert (caught.value.retry_after, caught.value.overloaded, caught.value.unreachable) == (7.0, True, False)


@pytest.mark.parametrize(
    ("status", "overloaded"), [(408, False), (409, False), (500, False), (502, False), (503, True), (529, True)]
)
def test_a_broken_or_busy_service_is_asked_again(ask: Ask, status: int, overloaded: bool) -> None:
    with LoopbackServer((status, error("Busy."))) as server, pytest.raises(RetryableError, match="Busy") as caught:
        ask(model_at(server))
    assert (caught.value.retry_after, caught.value.overloaded) == (None, overloaded)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>Bad gateway</html>", "malformed reply"),
        (b'{"choices": [{"message": {"content": "Hel', "malformed reply"),
        (b'{"choices": "none"}', "malformed reply"),
        (b'{"choices": [{"message": {"content": {"text": "Hello."}}}]}', "malformed reply"),
        (b'{"choices": [{"message": {"content": {}}}]}', "malformed reply"),
        (b'{"choices": [{"message": {"content": "Hello."}, "finish_reason": {"why": "filtered"}}]}', "malformed reply"),
        (b'{"choices": [{"message": {"content": null, "refusal": {"text": "No."}}}]}', "malformed reply"),
        (b"[" * 100_000, "malformed reply"),
        (b'{"choices": []}', "no choice"),
        (b'{"object": "chat.completion"}', "no choice"),
        (b'{"error": {"code": 502, "message": "Upstream is down."}}', "Upstream is down"),
    ],
)
def test_a_reply_that_cannot_be_read_is_asked_for_again(ask: Ask, body: bytes, words: str) -> None:
    with LoopbackServer(body) as server, pytest.raises(RetryableError, match=words):
        ask(model_at(server))


def test_a_reply_without_end_is_cut(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_REPLY_BYTES", 1 << 20)
    with LoopbackServer("a" * (2 << 20)) as server, pytest.raises(RejectedError, match="longer than 1 MB"):
        ask(model_at(server))


def test_a_service_that_says_nothing_is_given_up(ask: Ask) -> None:
    with LoopbackServer(faults=Faults(stalled=1.0)) as server:
        model = open_model("openai/tiny", Options(base_url=server.base_url, timeout_s=0.05))
        with pytest.raises(RetryableError, match=r"no reply within 0\.05 s"):
            ask(model)


def test_a_closed_port_is_unreachable(ask: Ask) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    model = open_model("openai/tiny", Options(base_url=f"http://127.0.0.1:{port}/v1"))
    with pytest.raises(RetryableError, match=rf"cannot reach http://127.0.0.1:{port}/v1\S+: \w") as caught:
        ask(model)
    assert caught.value.unreachable


def test_a_connection_that_breaks_off_may_be_tried_again(ask: Ask) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def hang_up() -> None:
            loop = asyncio.get_running_loop()
            connection, _ = await loop.sock_accept(listener)
            connection.close()

        async def main() -> None:
            listener.setblocking(False)
            hanging = asyncio.create_task(hang_up())
            model = open_model("openai/tiny", Options(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}/v1"))
            try:
                async for _ in model.generate([Request(id="r", messages=(Message("user", "Hello"),))]):
                    pass
            finally:
                await model.close()
                await hanging

        with pytest.raises(RetryableError, match="connection failed") as caught:
            asyncio.run(main())
    assert not caught.value.unreachable


# Requests that will never do


def test_a_bad_request_concerns_this_prompt_alone(ask: Ask) -> None:
    body = error("This model's maximum context length is 8192 tokens.", code="context_length_exceeded")
    with LoopbackServer((400, body)) as server, pytest.raises(RejectedError, match="maximum context length"):
        ask(model_at(server))


def test_a_prompt_that_no_encoding_carries_concerns_this_prompt_alone(ask: Ask) -> None:
    with LoopbackServer() as server, pytest.raises(RejectedError, match="UTF-8"):
        ask(model_at(server), "half a pair: \ud83d")


# Before anything is sent


def test_a_missing_key_names_its_variable() -> None:
    with pytest.raises(ModelError, match="OPENAI_API_KEY"):
        open_model("openai/gpt-4o-mini")
    with pytest.raises(ModelError, match="TOGETHER_API_KEY"):
        open_model("together/meta-llama/Llama-3-70b-chat-hf")
    with pytest.raises(ModelError, match="no key"):
        open_model("openai/gpt-4o-mini", Options(base_url="https://api.openai.com/v1/"))


def test_a_key_with_characters_that_no_header_carries_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-“secret”")
    with pytest.raises(ModelError, match="OPENAI_API_KEY") as caught:
        open_model("openai/gpt-4o-mini")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "base_url",
    [
        "localhost:8000/v1",
        "ftp://localhost/v1",
        "http://",
        "http://localhost:0/v1",
        "http://localhost:port/v1",
        "http://[::1/v1",
    ],
)
def test_what_is_no_address_is_refused(base_url: str) -> None:
    with pytest.raises(ModelError, match="is no address; write it as http://host:port/v1"):
        open_model("openai/tiny", Options(base_url=base_url))


@pytest.mark.parametrize("base_url", ["http://user:key-in-it@[::1", "http://[::1/v1?api_key=key-in-it"])
def test_a_key_in_a_malformed_address_is_not_repeated(base_url: str) -> None:
    with pytest.raises(ModelError, match="the base URL is no address") as raised:
        open_model("openai/tiny", Options(base_url=base_url))
    assert "key-in-it" not in str(raised.value)


@pytest.mark.parametrize(
    "base_url",
    ["http://user:sk-secret@localhost/v1", "http://localhost/v1?key=sk-secret", "http://localhost/v1#secret"],
)
def test_an_address_that_holds_a_key_is_refused_without_showing_it(base_url: str) -> None:
    with pytest.raises(ModelError, match="a key goes into its variable") as caught:
        open_model("openai/tiny", Options(base_url=base_url))
    assert "secret" not in str(caught.value)


def test_a_key_sent_without_encryption_to_another_machine_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with pytest.warns(OrbenchWarning, match="example.org is asked without encryption"):
        open_model("openai/tiny", Options(base_url="http://example.org/v1"))


def test_a_service_without_a_usual_address_asks_for_one() -> None:
    service = Service(name="own-cloud", key_variable="OWN_CLOUD_API_KEY")
    with pytest.raises(ModelError, match=r"Give --base-url or set OWN_CLOUD_BASE_URL"):
        OpenAIModel(service, "tiny")
