"""Chat completions and the Responses API, of OpenAI and of every service that speaks its formats."""

from __future__ import annotations

import os
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from orbench.errors import ModelError
from orbench.models.base import RejectedError, RetryableError
from orbench.models.keys import read_key
from orbench.models.reasoning import split_reasoning
from orbench.models.remote import RemoteModel, decoded_reply, silent_client, told_error, without_gc
from orbench.models.responses import read_response, response_body
from orbench.models.services import Service
from orbench.models.wire import HttpError, Wire, check_address
from orbench.records import BlockedBy, Completion, FinishReason, Request, Usage

Api = Literal["chat", "responses"]

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "model_length": "length",
    "content_filter": "content_filter",
}
_FAILED = ("error", "insufficient_system_resource")
"""Finish reasons of OpenRouter and DeepSeek for a generation that broke off on their side."""
_FILTERED = (
    "content_filter",
    "content_policy",
    "ResponsibleAIPolicyViolation",
    "invalid_prompt",
    "bio_policy",
    "misalignment_policy_violation",
)
_ACCOUNT_HEADERS = ("OpenAI-Organization", "OpenAI-Project")
_PATHS: dict[Api, str] = {"chat": "/chat/completions", "responses": "/responses"}


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
    error: dict[str, Any] | None = None


class _Reply(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(_Reply)


class OpenAIModel(RemoteModel):
    """A model behind an OpenAI-compatible endpoint.

    Parameters that a model does not accept (`max_tokens` and a fixed temperature of reasoning models) are left out
    from the first refusal on, and a model that is only served by the Responses API is asked there; `adaptations`
    says which.
    """

    def __init__(
        self,
        service: Service,
        model: str,
        base_url: str | None = None,
        *,
        api: Api | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Prepare the client; nothing is sent.

        Args:
            service: Its row of the table.
            model: The name behind the slash.
            base_url: Instead of the service's address.
            api: `chat` or `responses`; by default chat completions, or what the model turns out to need.
            timeout_s: Seconds for one call.

        Raises:
            ModelError: No key where the service needs one, or an address that is none.
        """
        with without_gc():
            import openai

        name = f"{service.name}/{model}"
        key = read_key((service.key_variable,) if service.key_variable else (), name)
        address = _address(service, name, base_url, key)
        sdk = openai.AsyncOpenAI(api_key=key or "no-key", base_url=address, http_client=silent_client())
        sent = {**sdk.default_headers, **sdk.auth_headers}
        headers = {header: value for header, value in sent.items() if isinstance(value, str)}
        if service.name != "openai":  # the SDK takes them from OPENAI_ORG_ID and OPENAI_PROJECT_ID, whoever is asked
            headers = {header: value for header, value in headers.items() if header not in _ACCOUNT_HEADERS}
        if service.key_header != "Authorization":
            headers.pop("Authorization", None)
            headers[service.key_header] = key or "no-key"
        self._api: Api = api or "chat"
        self._given_api = api
        self.root = str(sdk.base_url).rstrip("/")
        super().__init__(
            name,
            Wire(self.root + _PATHS[self._api], headers, timeout_s),
            base_url=str(sdk.base_url),
            client=f"openai {openai.__version__}",
            key_variable=service.key_variable,
        )
        if api == "responses":
            self.settings["api"] = api
        self.service = service
        self._model = model
        self._max_tokens_name = "max_tokens"

    @property
    def endpoint(self) -> str:
        """Path of the endpoint, as the Batch API names it."""
        return "/v1" + _PATHS[self._api]

    def use(self, api: Api) -> None:
        """Ask in this format from now on."""
        self._api = api
        self.wire.url = self.root + _PATHS[api]

    def body(self, request: Request) -> dict[str, Any]:
        """The body of a chat completion or a response; nothing in it that is not needed."""
        if self._api == "responses":
            if request.sampling.seed is not None:
                self.note("seed not sent: the Responses API takes none")
            return self.without_refused(response_body(self._model, request, self.schema(request)))
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._model,
            "messages": request.messages,
            self._max_tokens_name: sampling.max_tokens,
            "temperature": sampling.temperature,
        }
        if sampling.top_p is not None:
            body["top_p"] = sampling.top_p
        if sampling.seed is not None:
            body[self.service.seed_field] = sampling.seed
        if schema := self.schema(request):
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "reply", "strict": True, "schema": schema},
            }
        return self.without_refused(body)

    def read(self, request_id: str, content: bytes) -> Completion:
        """Read a chat completion, or a response."""
        if self._api == "responses":
            return read_response(request_id, content)
        reply: _Reply = decoded_reply(_decoder, content)
        if not reply.choices:  # some services report an error with status 200
            raise told_error(reply.error, content) or RetryableError("malformed reply: no choice in it")
        choice = reply.choices[0]
        if choice.finish_reason in _FAILED:
            told = str((choice.error or {}).get("message") or choice.finish_reason)
            told = self.wire.without_key(told.encode("utf-8", "replace")).decode()
            raise RetryableError(f"the service broke off: {told}", overloaded=choice.finish_reason == _FAILED[1])
        return _completion(request_id, choice, reply.usage)

    def blocked_by(self, error: HttpError) -> BlockedBy | None:
        """Azure and others answer a filtered prompt with an error instead of a reply."""
        if error.status not in (400, 403):
            return None
        metadata = error.error.get("metadata")
        flagged = isinstance(metadata, dict) and "flagged_input" in metadata  # OpenRouter
        if flagged or any(word in error.words for word in self.service.blocked_words):
            return "prompt"
        return "prompt" if error.status == 400 and any(code in error.codes for code in _FILTERED) else None

    def _learns(self, error: HttpError, fields: dict[str, Any], accepted: set[str]) -> bool:
        """Besides what every model may refuse: the name of max_tokens, and chat completions altogether."""
        if "max_tokens" in fields and error.status in (400, 422) and "max_completion_tokens" in error.words:
            if "max_tokens" in accepted:
                return False
            self._max_tokens_name = "max_completion_tokens"
            self.note("max_completion_tokens instead of max_tokens")
            return True
        if "messages" in fields and error.status in (400, 404) and self._given_api is None:
            only_responses = "v1/responses" in error.words or "not a chat model" in error.words
            if only_responses and "messages" not in accepted:
                self.use("responses")
                self.note("asked through the Responses API, the only one that serves it")
                return True
        return super()._learns(error, fields, accepted)

    def meaning(self, error: HttpError) -> Exception:
        """As for all services, but for one whose 403 is about the request."""
        if error.status == 403 and self.service.forbidden_is_request:
            return RejectedError(str(error))
        return super().meaning(error)


def _address(service: Service, name: str, base_url: str | None, key: str) -> str:
    address = base_url or os.environ.get(service.base_url_variable) or service.base_url
    if address is None:
        raise ModelError(f"{name}: no address. Give --base-url or set {service.base_url_variable}")
    # A server of one's own may do without a key; the service itself, wherever its customers' hosts are, does not.
    own = base_url is not None or (service.base_url is not None and address.rstrip("/") != service.base_url)
    if not key and service.key_variable and service.needs_key and not (own and address.rstrip("/") != service.base_url):
        raise ModelError(f"{name}: no key. Set {service.key_variable} in the environment")
    check_address(address, name, bool(key))
    if service.path and urlsplit(address).path in ("", "/"):
        address = address.rstrip("/") + service.path
    return address


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
        text, finish = message.refusal, "refusal"
    return Completion(
        id=request_id,
        text=text,
        reasoning=reasoning,
        finish_reason=finish,
        blocked_by="output" if finish in ("content_filter", "refusal") else None,
        usage=usage,
    )


def _text(content: str | list[dict[str, Any]] | None, part: str) -> Any:
    """The text of a message, or of its parts of one type; some services send a list of typed parts."""
    if isinstance(content, list):
        found = [p.get(part) for p in content if p.get("type") == part]
        texts = [f if isinstance(f, str) else _text(f, "text") for f in found]
        return "".join(texts) if texts or part == "text" else None
    return (content or "") if part == "text" else None
