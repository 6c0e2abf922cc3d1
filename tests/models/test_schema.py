"""A JSON schema of the reply: sent the vendor's way, and left out where a model does not take it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from orbench import Completion, Message, RejectedError, Request
from orbench.models import Options, open_model
from orbench.models.remote import RemoteModel
from orbench.testing import LoopbackServer

SCHEMA = {"type": "object", "properties": {"label": {"type": "string", "enum": ["yes", "no"]}}}
OPENAI = {"type": "json_schema", "name": "reply", "strict": True, "schema": SCHEMA}
SENT = {
    "openai": {
        "response_format": {"type": "json_schema", "json_schema": {k: OPENAI[k] for k in OPENAI if k != "type"}}
    },
    "responses": {"text": {"format": OPENAI}},
    "anthropic": {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    "google": {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA},
}
FORMATS = pytest.mark.parametrize("format", SENT)


def opened(format: str, server: LoopbackServer) -> RemoteModel:
    options = Options(base_url=server.root_url)
    if format == "responses":
        options = Options(base_url=server.base_url, api="responses")
    elif format == "openai":
        options = Options(base_url=server.base_url)
    model = open_model("openai/any" if format == "responses" else f"{format}/any", options)
    assert isinstance(model, RemoteModel)
    return model


def ask(model: RemoteModel, times: int = 1) -> list[Completion]:
    async def main() -> list[Completion]:
        request = Request(id="r", messages=(Message("user", "Yes or no?"),), schema=SCHEMA)
        found = []
        try:
            for _ in range(times):
                async with aclosing(model.generate([request])) as completions:
                    found += [completion async for completion in completions]
        finally:
            await model.close()
        return found

    return asyncio.run(main())


def schema_part(format: str, body: dict[str, Any]) -> dict[str, Any]:
    """What a body holds of the schema, at the place where it belongs."""
    place = body["generationConfig"] if format == "google" else body
    return {name: place[name] for name in SENT[format] if name in place}


@FORMATS
def test_the_schema_is_sent_as_the_vendor_wants_it(format: str) -> None:
    with LoopbackServer('{"label": "yes"}') as server:
        (completion,) = ask(opened(format, server))
    assert completion.text == '{"label": "yes"}'
    assert schema_part(format, server.requests[0]) == SENT[format]


@FORMATS
@pytest.mark.parametrize(
    "message",
    [
        "This response_format type is unavailable now",
        "Structured outputs are not supported by this model.",
        "JSON mode is not enabled for models/any",
        "output_config.format: Extra inputs are not permitted",
    ],
)
def test_a_model_that_takes_none_is_asked_without_from_then_on(format: str, message: str) -> None:
    def answer(body: dict[str, Any]) -> Any:
        if schema_part(format, body):
            return 400, {"error": {"message": message}}
        return "Yes."

    with LoopbackServer(answer) as server:
        model = opened(format, server)
        assert [completion.text for completion in ask(model, times=2)] == ["Yes.", "Yes."]
    assert [bool(schema_part(format, body)) for body in server.requests] == [True, False, False]
    assert model.adaptations == ["no schema of the reply, which it does not take: asked in words alone"]


def test_another_refusal_does_not_cost_the_schema() -> None:
    with LoopbackServer(lambda body: (400, {"error": {"message": "The prompt is too long."}})) as server:
        model = opened("openai", server)
        with pytest.raises(RejectedError, match="too long"):
            ask(model)
    assert len(server.requests) == 1
    assert model.adaptations == []
