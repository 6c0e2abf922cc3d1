"""Bodies of OpenAI's Responses API: a request in, what comes back out."""

from __future__ import annotations

from typing import Any

import msgspec

from orbench.models.base import RetryableError
from orbench.models.reasoning import split_reasoning
from orbench.models.remote import decoded_reply, told_error
from orbench.models.wire import HttpError
from orbench.records import BlockedBy, Completion, FinishReason, Request, Usage


class _Details(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    output_tokens_details: _Details | None = None


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None
    refusal: str | None = None


class _Item(msgspec.Struct):
    type: str = ""
    content: list[_Part] | None = None
    summary: list[_Part] | None = None


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class _Reply(msgspec.Struct):
    output: list[_Item] | None = None
    status: str | None = None
    incomplete_details: _Incomplete | None = None
    usage: _Usage | None = None
    error: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(_Reply)


def response_body(model: str, request: Request, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """The body of `POST /responses`; the service is asked not to keep the conversation."""
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": model,
        "input": request.messages,
        "max_output_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "store": False,
    }
    if sampling.top_p is not None:
        body["top_p"] = sampling.top_p
    if schema is not None:
        body["text"] = {"format": {"type": "json_schema", "name": "reply", "strict": True, "schema": schema}}
    return body


def read_response(request_id: str, content: bytes) -> Completion:
    """Read a response: text, refusals and reasoning from its items, and why it is incomplete if it is.

    Raises:
        RetryableError: Malformed, or neither completed nor incomplete.
        HttpError: It failed with an error.
    """
    reply: _Reply = decoded_reply(_decoder, content)
    if reply.error:
        code = str(reply.error.get("code"))
        status = {"rate_limit_exceeded": 429, "server_error": 500}.get(code, 400)
        raise told_error({"code": status}, content) or HttpError(status, content, {})
    if reply.output is None or reply.status not in (None, "completed", "incomplete"):
        raise RetryableError(f"malformed reply: no output, status {reply.status}")
    parts = [part for item in reply.output if item.type == "message" for part in item.content or ()]
    thoughts = [
        part.text or ""
        for item in reply.output
        if item.type == "reasoning"
        for part in [*(item.content or ()), *(item.summary or ())]
    ]
    text, inner = split_reasoning("".join(part.text or "" for part in parts if part.type == "output_text"))
    refusal = "".join(part.refusal or "" for part in parts if part.type == "refusal")
    thought = any(item.type == "reasoning" for item in reply.output)
    usage = None
    if reply.usage is not None:
        usage = Usage(input_tokens=reply.usage.input_tokens, output_tokens=reply.usage.output_tokens)
        details = reply.usage.output_tokens_details
        thought = thought or bool(details is not None and details.reasoning_tokens)
    finish: FinishReason = "stop"
    blocked: BlockedBy | None = None
    if refusal:
        text, finish, blocked = refusal, "refusal", "output"
    elif reply.incomplete_details is not None or reply.status == "incomplete":
        reason = reply.incomplete_details.reason if reply.incomplete_details else None
        finish = {"max_output_tokens": "length", "content_filter": "content_filter"}.get(reason or "", "other")  # type: ignore[assignment]
        blocked = "output" if finish == "content_filter" else None
    return Completion(
        id=request_id,
        text=text,
        reasoning="\n".join(thoughts) if thought else inner,
        finish_reason=finish,
        blocked_by=blocked,
        usage=usage,
    )
