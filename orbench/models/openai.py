"""Chat completions of OpenAI and of every service that speaks its format."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from orbench.errors import ModelError, OrbenchWarning
from orbench.models import wire
from orbench.models.base import RetryableError
from orbench.models.reasoning import split_reasoning
from orbench.models.services import Service
from orbench.records import Completion, FinishReason, Request, Usage

_FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length", "content_filter": "content_filter"}
_PLACEHOLDER_KEY = "no-key"


class _Details(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    completion_tokens_details: _Details | None = None


class _Message(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Reply(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Reply).decode


class OpenAIModel:
    """A model behind an OpenAI-compatible chat completions endpoint.

    Parameters that a model does not accept (`max_tokens` and a fixed temperature of reasoning models) are left out
    from the first refusal on; `adaptations` says which.
    """

    batch_size = 1
    max_concurrency: int | None = None

    def __init__(self, service: Service, model: str, base_url: str | None = None) -> None:
        """Prepare the client; nothing is sent.

        Raises:
            ModelError: No key where the service needs one, or an address that is none.
        """
        import openai

        self.name = f"{service.name}/{model}"
        self.adaptations: list[str] = []
        self._model = model
        self._key_variable = service.key_variable
        base_url = base_url or os.environ.get(service.base_url_variable) or service.base_url
        key = os.environ.get(service.key_variable or "", "").strip()
        if base_url is None:
            raise ModelError(f"{self.name}: no address. Give --base-url or set {service.base_url_variable}")
        if not key and service.key_variable and base_url.rstrip("/") == service.base_url:
            raise ModelError(f"{self.name}: no key. Set {service.key_variable} in the environment")
        if not (key.isascii() and key.isprintable()):
            raise ModelError(f"{self.name}: {service.key_variable} holds characters that no key has; set it again")
        _check_address(base_url, self.name, bool(key))
        self._client = openai.DefaultAioHttpClient(follow_redirects=False, timeout=wire.TIMEOUT_S)
        sdk = openai.AsyncOpenAI(
            api_key=key or _PLACEHOLDER_KEY, base_url=base_url, http_client=self._client, max_retries=0
        )
        self.base_url = str(sdk.base_url)
        self._url = self.base_url.rstrip("/") + "/chat/completions"
        headers = {**sdk.default_headers, **sdk.auth_headers}
        self._headers = {name: value for name, value in headers.items() if isinstance(value, str)}
        self._max_tokens_name = "max_tokens"
        self._send_temperature = True

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """Ask each request in turn."""
        for request in requests:
            yield await self._complete(request)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _complete(self, request: Request) -> Completion:
        body = self._body(request)
        while True:
            try:
                content = await wire.post(self._client, self._url, self._headers, body)
                break
            except wire.HttpError as error:
                if _is_filtered(error):
                    return Completion(id=request.id, text="", finish_reason="content_filter", blocked_by="prompt")
                adapted = self._adapt(error, body)
                if adapted is None:
                    raise wire.meaning(error, self.name, self._key_variable, self._url) from None
                body = adapted
        try:
            reply = _decode(content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RetryableError(f"malformed reply: {error}") from None
        if not reply.choices:  # some services report an error with status 200
            told = (reply.error or {}).get("message")
            raise RetryableError(f"no choice in the reply: {told}" if told else "malformed reply: no choice in it")
        return _completion(request.id, reply.choices[0], reply.usage)

    def _body(self, request: Request) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._model,
            "messages": request.messages,
            self._max_tokens_name: sampling.max_tokens,
        }
        if self._send_temperature:
            body["temperature"] = sampling.temperature
        if sampling.top_p is not None:
            body["top_p"] = sampling.top_p
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        return body

    def _adapt(self, error: wire.HttpError, body: dict[str, Any]) -> dict[str, Any] | None:
        """The body without what the model has just refused; None if that was not the trouble."""
        if error.status not in (400, 422):
            return None
        refused, text = str(error.error.get("param") or ""), error.message
        if "max_tokens" in body and "max_completion_tokens" in text:
            self._max_tokens_name = "max_completion_tokens"
            self._note("max_completion_tokens instead of max_tokens")
            return {**{k: v for k, v in body.items() if k != "max_tokens"}, "max_completion_tokens": body["max_tokens"]}
        if "temperature" in body and (refused == "temperature" or "'temperature'" in text):
            self._send_temperature = False
            self._note("temperature left to the model, which accepts no other")
            return {k: v for k, v in body.items() if k != "temperature"}
        return None

    def _note(self, adaptation: str) -> None:
        if adaptation not in self.adaptations:
            self.adaptations.append(adaptation)


def _completion(request_id: str, choice: _Choice, counted: _Usage | None) -> Completion:
    message = choice.message
    text, inner = split_reasoning(_text(message.content, "text"))
    reasoning = message.reasoning_content or message.reasoning or _text(message.content, "thinking") or inner
    usage = None
    if counted is not None:
        usage = Usage(input_tokens=counted.prompt_tokens, output_tokens=counted.completion_tokens)
        details = counted.completion_tokens_details
        if reasoning is None and details is not None and details.reasoning_tokens:
            reasoning = ""  # there was some, and the service keeps it to itself
    finish = _FINISH.get(choice.finish_reason or "stop", "other")
    if message.refusal:
        return Completion(
            id=request_id,
            text=message.refusal,
            reasoning=reasoning,
            finish_reason="refusal",
            blocked_by="output",
            usage=usage,
        )
    return Completion(
        id=request_id,
        text=text,
        reasoning=reasoning,
        finish_reason=finish,
        blocked_by="output" if finish == "content_filter" else None,
        usage=usage,
    )


def _text(content: str | list[dict[str, Any]] | None, part: str) -> Any:
    """The text of a message, or of its parts of one type; some services send a list of typed parts."""
    if isinstance(content, list):
        found = [p.get(part) for p in content if p.get("type") == part]
        texts = [f if isinstance(f, str) else _text(f, "text") for f in found]
        return "".join(texts) if texts or part == "text" else None
    return (content or "") if part == "text" else None


def _is_filtered(error: wire.HttpError) -> bool:
    """Azure and others answer a filtered prompt with an error instead of a reply."""
    if error.status == 400:
        return any(code in error.codes for code in ("content_filter", "content_policy", "ResponsibleAIPolicyViolation"))
    metadata = error.error.get("metadata")
    return error.status == 403 and isinstance(metadata, dict) and "flagged_input" in metadata


def _check_address(base_url: str, model: str, has_key: bool) -> None:
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets that do not close
        usable = False
    if not usable:
        raise ModelError(f"{model}: {base_url!r} is no address; write it as http://host:port/v1")
    if parts.username or parts.password or parts.query or parts.fragment:  # they would be saved with the run
        raise ModelError(f"{model}: the base URL holds more than http://host:port/path; a key goes into its variable")
    assert parts.hostname is not None
    local = parts.hostname in ("localhost", "::1") or parts.hostname.startswith("127.")
    if parts.scheme == "http" and not local and has_key:
        import warnings

        warnings.warn(
            f"{model}: {parts.hostname} is asked without encryption, key included", OrbenchWarning, stacklevel=2
        )
