"""Anthropic's Messages API."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from orbench.errors import ModelError
from orbench.models.base import RetryableError
from orbench.models.keys import read_key
from orbench.models.reasoning import split_reasoning
from orbench.models.remote import RemoteModel, decoded_reply, silent_client, told_error, without_gc
from orbench.models.wire import HttpError, Wire, check_address
from orbench.records import BlockedBy, Completion, FinishReason, Request, Usage

KEY_VARIABLE = "ANTHROPIC_API_KEY"
BASE_URL_VARIABLE = "ANTHROPIC_BASE_URL"
_HOST = "https://api.anthropic.com"
_FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
}
STATUS = {
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
    "api_error": 500,
    "invalid_request_error": 400,
    "request_too_large": 413,
}
"""Statuses of the error types, for errors that come in a batch's results, without a status of their own."""


class _Block(msgspec.Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _Reply(msgspec.Struct):
    content: list[_Block] | None = None
    stop_reason: str | None = None
    usage: _Usage | None = None
    error: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(_Reply)


class AnthropicModel(RemoteModel):
    """`anthropic/MODEL`.

    Its API takes no seed, and temperatures from 0 to 1; newer models take no temperature at all, which is then left
    out from the first refusal on (`adaptations`).
    """

    def __init__(self, model: str, base_url: str | None = None, *, timeout_s: float | None = None) -> None:
        """Prepare the client; nothing is sent.

        Raises:
            ModelError: No key, or an address that is none.
        """
        with without_gc():
            import anthropic

        name = f"anthropic/{model}"
        key = read_key((KEY_VARIABLE,), name)
        address = base_url or os.environ.get(BASE_URL_VARIABLE) or _HOST
        if not key and address.rstrip("/") == _HOST:
            raise ModelError(f"{name}: no key. Set {KEY_VARIABLE} in the environment")
        check_address(address, name, bool(key))
        sdk = anthropic.AsyncAnthropic(
            api_key=key or "no-key",
            base_url=address.rstrip("/").removesuffix("/v1"),
            http_client=silent_client(),
        )
        sent = {**sdk.default_headers, **sdk.auth_headers}
        headers = {header: value for header, value in sent.items() if isinstance(value, str)}
        super().__init__(
            name,
            Wire(str(sdk.base_url).rstrip("/") + "/v1/messages", headers, timeout_s),
            base_url=str(sdk.base_url),
            client=f"anthropic {anthropic.__version__}",
            key_variable=KEY_VARIABLE,
        )
        self._model = model

    def body(self, request: Request) -> dict[str, Any]:
        """The body of `POST /v1/messages`: the system prompt apart from the turns."""
        sampling = request.sampling
        if sampling.temperature > 1:
            raise ModelError(f"{self.name}: temperature is {sampling.temperature}: this service takes 0 to 1")
        body: dict[str, Any] = {
            "model": self._model,
            "max_tokens": sampling.max_tokens,
            "messages": [message for message in request.messages if message.role != "system"],
            "temperature": sampling.temperature,
        }
        if request.system_prompt is not None:
            body["system"] = request.system_prompt
        if sampling.top_p is not None:
            body["top_p"] = sampling.top_p
        if sampling.seed is not None:
            self.note("seed not sent: the service takes none")
        if schema := self.schema(request):
            body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        return self.without_refused(body)

    def read(self, request_id: str, content: bytes) -> Completion:
        """Read a message: its text blocks are the answer, its thinking blocks the reasoning."""
        reply: _Reply = decoded_reply(_decoder, content)
        if reply.content is None:
            if reply.error:
                raise HttpError(STATUS.get(str(reply.error.get("type")), 502), content, {})
            raise told_error(reply.error, content) or RetryableError("malformed reply: no content in it")
        if reply.stop_reason is None:
            raise RetryableError("malformed reply: no stop reason in it")
        text, inner = split_reasoning("".join(block.text or "" for block in reply.content if block.type == "text"))
        thoughts = [block.thinking or "" for block in reply.content if "thinking" in block.type]  # redacted ones too
        finish = _FINISH.get(reply.stop_reason, "other")
        return Completion(
            id=request_id,
            text=text,
            reasoning="\n".join(thoughts) if thoughts else inner,
            finish_reason=finish,
            blocked_by="output" if finish == "refusal" else None,
            usage=_usage(reply.usage),
        )

    def blocked_by(self, error: HttpError) -> BlockedBy | None:
        """The content filter over what the model writes ends the call with status 400."""
        return "output" if error.status == 400 and "content filtering policy" in error.words else None


def _usage(counted: _Usage | None) -> Usage | None:
    if counted is None:
        return None
    read = [counted.input_tokens, counted.cache_creation_input_tokens, counted.cache_read_input_tokens]
    known = [tokens for tokens in read if tokens is not None]
    return Usage(input_tokens=sum(known) if known else None, output_tokens=counted.output_tokens)
