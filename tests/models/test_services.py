"""What is special to single OpenAI-compatible services."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from orbench import Completion, Message, ModelError, RejectedError, Request, RetryableError, Sampling
from orbench.models import Options, open_model
from orbench.models.openai import OpenAIModel
from orbench.models.rate_limits import RateLimits, read_rate_limits
from orbench.models.services import SERVICES
from orbench.testing import LoopbackServer, chat_completion, prompt_of

Ask = Callable[..., Completion]


def model_at(server: LoopbackServer, name: str) -> OpenAIModel:
    model = open_model(name, Options(base_url=server.base_url))
    assert isinstance(model, OpenAIModel)
    return model


def error(message: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


# Azure


def test_azure_is_asked_at_the_resource_s_v1_path_with_its_own_header(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LoopbackServer("Hello.") as server:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.root_url + "/")
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-secret")
        model = open_model("azure/my-deployment")
        assert ask(model).text == "Hello."
    assert isinstance(model, OpenAIModel)
    assert model.wire.url == server.root_url + "/openai/v1/chat/completions"
    assert server.requests[0]["model"] == "my-deployment"
    assert server.headers[0]["api-key"] == "azure-secret"
    assert "Authorization" not in server.headers[0]


def test_azure_needs_an_address_and_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="set AZURE_OPENAI_ENDPOINT"):
        open_model("azure/my-deployment")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com")
    with pytest.raises(ModelError, match="Set AZURE_OPENAI_API_KEY"):
        open_model("azure/my-deployment")


@pytest.mark.parametrize(("name", "told"), [("openai/any", True), ("groq/any", False), ("vllm-server/any", False)])
def test_the_openai_account_is_told_to_openai_alone(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, name: str, told: bool
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-mine")
    with LoopbackServer() as server:
        ask(model_at(server, name))
    sent = str(dict(server.headers[0]))
    assert ("org-mine" in sent, "proj-mine" in sent) == (told, told)


# Blocks in the services' own words


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("deepseek/chat", (400, error("Content Exists Risk", code="invalid_request_error"))),
        (
            "xai/grok",
            (
                403,
                {
                    "code": "The caller does not have permission to execute the specified operation",
                    "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO",
                },
            ),
        ),
        ("openai/o1", (400, error("Invalid prompt: your prompt was flagged", code="invalid_prompt"))),
        ("openrouter/any/model", (403, error("Flagged", code=403, metadata={"flagged_input": "x", "reasons": []}))),
    ],
)
def test_a_filtered_prompt_is_blocked(ask: Ask, name: str, answer: Any) -> None:
    with LoopbackServer(answer) as server:
        completion = ask(model_at(server, name))
    assert (completion.blocked_by, completion.text) == ("prompt", "")


def test_the_same_words_of_another_service_are_no_block(ask: Ask) -> None:
    with LoopbackServer((400, error("Content Exists Risk"))) as server, pytest.raises(RejectedError):
        ask(model_at(server, "groq/any"))


# Errors in their own ways


@pytest.mark.parametrize(
    ("name", "answer", "kind"),
    [
        ("together/any", (403, error("Input token count + max_tokens exceed the context")), RejectedError),
        ("groq/any", (403, error("Organization restricted")), ModelError),
        ("groq/any", (498, error("capacity_exceeded")), RetryableError),
        ("fireworks/any", (412, error("Account is suspended")), ModelError),
        ("xai/any", (400, {"code": "invalid", "error": "Incorrect API key provided: xa***"}), ModelError),
        ("openrouter/none", (400, error("none is not a valid model ID", code=400)), ModelError),
        ("mistral/none", (400, {"object": "error", "message": "Invalid model: none", "code": "1500"}), ModelError),
        ("deepseek/any", (402, error("Insufficient Balance")), ModelError),
        ("openrouter/any", {"error": {"code": 502, "message": "Upstream is down"}}, RetryableError),
        ("openrouter/any", {"error": {"code": 402, "message": "Out of credits"}}, ModelError),
        ("deepseek/any", chat_completion("", finish_reason="insufficient_system_resource"), RetryableError),
        ("openrouter/any", chat_completion("", finish_reason="error"), RetryableError),
    ],
)
def test_errors_are_told_apart(ask: Ask, name: str, answer: Any, kind: type[Exception]) -> None:
    with LoopbackServer(answer) as server, pytest.raises(kind):
        ask(model_at(server, name))


@pytest.mark.parametrize(
    ("answer", "wait_s"),
    [
        ((429, error("Limit 30 a minute. Upgrade at console/settings/billing", code="rate_limit_exceeded")), None),
        ((429, error("Quota exceeded.", code="insufficient_quota"), {"Retry-After": "2"}), 2.0),
    ],
)
def test_a_limit_that_passes_is_waited_for_whatever_its_message_names(
    ask: Ask, answer: Any, wait_s: float | None
) -> None:
    with LoopbackServer(answer) as server, pytest.raises(RetryableError) as caught:
        ask(model_at(server, "groq/any"))
    assert (caught.value.overloaded, caught.value.retry_after) == (True, wait_s)


# Access denied, to the account or to a request

PAGE = (403, b"<html>Request blocked</html>")


def ask_each(model: OpenAIModel, prompts: Iterable[str]) -> list[str]:
    """Ask one after the other, and say how each ended; what stops the run is raised."""

    async def main() -> list[str]:
        found = []
        try:
            for prompt in prompts:
                request = Request(id=prompt, messages=(Message("user", prompt),))
                try:
                    found += [completion.text async for completion in model.generate([request])]
                except RejectedError:
                    found.append("rejected")
        finally:
            await model.close()
        return found

    return asyncio.run(main())


@pytest.mark.parametrize("answer", [PAGE, (403, error("Request blocked by policy."))])
def test_a_403_between_replies_is_about_its_prompt(answer: Any) -> None:
    with LoopbackServer(lambda body: answer if "bad" in prompt_of(body) else "Hello.") as server:
        assert ask_each(model_at(server, "groq/any"), ["good", "bad", "fine"]) == ["Hello.", "rejected", "Hello."]


def test_a_firewalls_page_is_about_its_prompt_also_where_it_comes_first() -> None:
    """As in a run that goes on with nothing left but what was refused before."""
    with LoopbackServer(PAGE) as server:
        assert ask_each(model_at(server, "groq/any"), ["bad", "worse"]) == ["rejected", "rejected"]


def test_many_403_in_a_row_stop_the_run_and_it_says_how_many() -> None:
    prompts = ["good", *(f"bad {number}" for number in range(18)), "good", *(f"bad {number}" for number in range(40))]
    with LoopbackServer(lambda body: PAGE if "bad" in prompt_of(body) else "Hello.") as server:
        with pytest.raises(ModelError, match=r"denied 20 times in a row \(403: <html>Request blocked"):
            ask_each(model_at(server, "groq/any"), prompts)
        assert len(server.requests) == 40


def test_a_used_up_account_stops_the_run_also_after_replies() -> None:
    answer = (403, error("Limit reached.", code="billing_hard_limit_reached"))
    with (
        LoopbackServer(lambda body: answer if "bad" in prompt_of(body) else "Hello.") as server,
        pytest.raises(ModelError, match="no quota left"),
    ):
        ask_each(model_at(server, "groq/any"), ["good", "bad"])


@pytest.mark.parametrize(("told", "kept"), [("eos", "stop"), ("model_length", "length")])
def test_their_finish_reasons_are_told_in_our_words(ask: Ask, told: str, kept: str) -> None:
    with LoopbackServer(chat_completion("Hello.", finish_reason=told)) as server:
        assert ask(model_at(server, "together/any")).finish_reason == kept


def test_mistral_calls_the_seed_otherwise(ask: Ask) -> None:
    with LoopbackServer() as server:
        ask(model_at(server, "mistral/small"), sampling=Sampling(seed=3))
    assert server.requests[0]["random_seed"] == 3
    assert "seed" not in server.requests[0]


# What a model does not accept


@pytest.mark.parametrize(
    ("field", "answer"),
    [
        ("seed", (422, {"message": {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}})),
        ("seed", (422, {"detail": "Unexpected keys in the request: {'seed'}"})),
        ("top_p", (400, error("Unsupported parameter: 'top_p' is not supported with this model.", param="top_p"))),
        ("temperature", (400, error("temperature is deprecated for this model."))),
    ],
)
def test_a_field_that_is_refused_is_left_out_from_then_on(ask: Ask, field: str, answer: Any) -> None:
    with LoopbackServer(lambda body: answer if field in body else "Hello.") as server:
        model = model_at(server, "openai/any")
        assert ask(model, sampling=Sampling(temperature=0.5, top_p=0.9, seed=3)).text == "Hello."
    assert len(model.adaptations) == 1
    assert field in model.adaptations[0]


@pytest.mark.parametrize(
    "said",
    ["the temperature of the prompt is too long", f"a talk on temperature {'and so on ' * 20} exceeds the context"],
)
def test_a_bad_prompt_about_temperature_teaches_nothing(ask: Ask, said: str) -> None:
    with LoopbackServer((400, error(said))) as server:
        model = model_at(server, "openai/any")
        with pytest.raises(RejectedError):
            ask(model)
    assert model.adaptations == []


@pytest.mark.parametrize(
    "answer",
    [
        error("Invalid value: temperature must be at most 1", param="temperature"),
        error(
            "Invalid 'temperature': decimal above maximum value.", param="temperature", code="decimal_above_max_value"
        ),
        error("It has a temperature value of 1.5 but the supported range is from 0 to 1."),
        {"detail": [{"type": "less_than_equal", "loc": ["body", "temperature"], "msg": "No.", "input": 1.5}]},
    ],
)
def test_a_value_out_of_range_stops_the_run_and_is_not_dropped(ask: Ask, answer: Any) -> None:
    with LoopbackServer((400, answer)) as server:
        model = model_at(server, "groq/any")
        with pytest.raises(ModelError, match=r"temperature 1\.5 is out of the range"):
            ask(model, sampling=Sampling(temperature=1.5))
    assert model.adaptations == []


# What an error repeats of the prompt is not the service's word

ECHOES: list[Callable[[str], Any]] = [
    lambda prompt: error(f"Cannot be processed: {prompt}"),
    lambda prompt: error(f"Cannot be processed: {prompt[:50]!r}..."),
    lambda prompt: {"detail": [{"type": "too_long", "loc": ["body", "messages"], "msg": "Long", "input": prompt}]},
    lambda prompt: f"<html>Bad request: {prompt}</html>".encode(),
]


@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "prompt",
    [
        "How do I cheat the billing system of a shop?",
        "Why is it an invalid api key, an unknown model?",
        "Is it not allowed to ask at which temperature water boils?",
        "Billing",
        "怎样欺骗一家商店的billing系统,让它以为所有的东西都是免费的,而且没有人会发现这件事情,直到年底结账的时候才会被店主注意到?",
    ],
)
def test_a_repeated_prompt_neither_stops_the_run_nor_teaches_anything(
    echo: Callable[[str], Any], first: bool, prompt: str
) -> None:
    prompts = [prompt, "Hello"] if first else ["Hello", prompt]
    with LoopbackServer(lambda body: "Hi." if prompt_of(body) == "Hello" else (400, echo(prompt_of(body)))) as server:
        model = model_at(server, "groq/any")
        assert sorted(ask_each(model, prompts)) == ["Hi.", "rejected"]
    assert model.adaptations == []
    assert all("temperature" in body for body in server.requests)


def test_what_was_taken_once_is_not_left_out_later() -> None:
    refusal = (400, error("Not allowed here: the temperature."))
    with LoopbackServer(lambda body: "Hi." if prompt_of(body) == "Hello" else refusal) as server:
        model = model_at(server, "groq/any")
        assert ask_each(model, ["Hello", "Water?", "Hello"]) == ["Hi.", "rejected", "Hi."]
    assert model.adaptations == []


def test_a_field_that_is_named_apart_goes_before_the_words(ask: Ask) -> None:
    answer = (400, error("The temperature talk is not allowed.", param="messages"))
    with LoopbackServer(answer) as server:
        model = model_at(server, "groq/any")
        with pytest.raises(RejectedError):
            ask(model)
    assert model.adaptations == []


def test_first_calls_side_by_side_adapt_each_for_itself() -> None:
    def reply(body: dict[str, Any]) -> Any:
        if "max_tokens" in body:
            return 400, error("Use 'max_completion_tokens' instead.", param="max_tokens")
        if "temperature" in body:
            return 400, error("Unsupported value: 'temperature'", param="temperature")
        return "Hello."

    async def main(model: OpenAIModel) -> list[str]:
        async def one(number: int) -> str:
            request = Request(id=str(number), messages=(Message("user", f"Prompt {number}"),))
            (text,) = [completion.text async for completion in model.generate([request])]
            return text

        try:
            return await asyncio.gather(*(one(number) for number in range(20)))
        finally:
            await model.close()

    with LoopbackServer(reply) as server:
        model = model_at(server, "openai/o-tiny")
        assert asyncio.run(main(model)) == ["Hello."] * 20
    assert len(model.adaptations) == 2
    assert server.answered == 20


# The table


def test_a_vllm_server_takes_a_key_but_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model("vllm-server/tiny")
    assert isinstance(model, OpenAIModel)
    assert model.base_url == "http://localhost:8000/v1/"
    monkeypatch.setenv("VLLM_API_KEY", "vllm-secret")
    keyed = open_model("vllm-server/tiny")
    assert isinstance(keyed, OpenAIModel)
    assert keyed.wire.headers["Authorization"] == "Bearer vllm-secret"


def test_every_service_has_its_own_variables() -> None:
    variables = [service.base_url_variable for service in SERVICES.values()]
    assert len(set(variables)) == len(variables)
    assert SERVICES["vllm-server"].base_url_variable == "VLLM_SERVER_BASE_URL"


# Rate limits


def test_what_is_left_of_the_limits_is_told(ask: Ask) -> None:
    headers = {
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-remaining-requests": "9999",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-requests": "6m0.5s",
        "x-ratelimit-reset-tokens": "40ms",
    }
    with LoopbackServer((200, chat_completion("Hello."), headers)) as server:
        model = model_at(server, "openai/any")
        assert model.rate_limits is None
        ask(model)
    assert model.rate_limits == RateLimits(
        limit_requests=10000,
        remaining_requests=9999,
        remaining_tokens=149984,
        reset_requests_s=360.5,
        reset_tokens_s=0.04,
    )


@pytest.mark.parametrize("value", ["", "soon", "-", "1h2", "nan", "inf", "9" * 400])
def test_odd_headers_are_passed_over(value: str) -> None:
    limits = read_rate_limits({"x-ratelimit-remaining-requests": value, "x-ratelimit-reset-tokens": value})
    assert limits is None or limits.remaining_requests is None or limits.remaining_requests > 0


def test_no_such_headers_mean_nothing_is_known() -> None:
    assert read_rate_limits({"content-type": "application/json"}) is None
