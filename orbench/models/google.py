"""Google's Gemini API, through `google-genai`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from orbench.errors import ModelError
from orbench.models.base import RetryableError
from orbench.models.keys import read_key
from orbench.models.reasoning import split_reasoning
from orbench.models.remote import RemoteModel, decoded_reply, told_error, without_gc
from orbench.models.wire import ALLOWED, HttpError, Wire, check_address, meaning
from orbench.records import BlockedBy, Completion, FinishReason, Request, Usage

Safety = Literal["block-none", "vendor"]
"""`block-none` sets the four adjustable filters to BLOCK_NONE, as OR-Bench's code did; `vendor` leaves them alone."""

KEY_VARIABLES = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
BASE_URL_VARIABLE = "GOOGLE_GEMINI_BASE_URL"
HOST = "https://generativelanguage.googleapis.com"
CATEGORIES = (
    "HARM_CATEGORY_HARASSMENT",
    "HARM_CATEGORY_HATE_SPEECH",
    "HARM_CATEGORY_SEXUALLY_EXPLICIT",
    "HARM_CATEGORY_DANGEROUS_CONTENT",
)
"""The filters that a customer can adjust; others, such as for PROHIBITED_CONTENT, always hold."""
_BLOCK_NONE = [{"category": category, "threshold": "BLOCK_NONE"} for category in CATEGORIES]

_FINISH: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    **dict.fromkeys(
        ("SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "RECITATION", "MODEL_ARMOR", "ESCALATION"),
        "content_filter",
    ),
}
FINISH_NUMBERS = (
    "FINISH_REASON_UNSPECIFIED",
    "STOP",
    "MAX_TOKENS",
    "SAFETY",
    "RECITATION",
    "OTHER",
    "LANGUAGE",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "MALFORMED_FUNCTION_CALL",
    "IMAGE_SAFETY",
)
"""Reasons by their number in Google's protocol buffers: the older SDK asks for numbers, and gateways may send them."""
BLOCK_NUMBERS = (
    "BLOCK_REASON_UNSPECIFIED",
    "SAFETY",
    "OTHER",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "IMAGE_SAFETY",
)
"""Likewise, why a prompt was blocked."""
_FAILED = ("FINISH_REASON_UNSPECIFIED", "MALFORMED_RESPONSE")


class _Part(msgspec.Struct):
    text: str | None = None
    thought: bool | None = None


class _Content(msgspec.Struct):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: str | int | None = None


class _Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | int | None = None


class _Counts(msgspec.Struct, rename="camel"):
    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None


class _Reply(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: _Counts | None = None
    error: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(_Reply)


class GeminiModel(RemoteModel):
    """What both SDKs have in common: the body of `generateContent`, and what a reply or an error means."""

    optional = ("temperature", "topP", "seed")

    def __init__(self, name: str, wire: Wire, *, base_url: str, client: str, safety: Safety) -> None:
        """Nothing is sent."""
        super().__init__(name, wire, base_url=base_url, client=client, key_variable=" or ".join(KEY_VARIABLES))
        self.settings["safety"] = safety
        self._safety = safety

    def body(self, request: Request) -> dict[str, Any]:
        """The body of `generateContent`."""
        return request_body(request, self._safety, self._left_out, self.schema(request))

    def _fields(self, body: dict[str, Any]) -> dict[str, Any]:
        """Sampling stands one level deeper here."""
        config: dict[str, Any] = body["generationConfig"]
        return config

    def read(self, request_id: str, content: bytes) -> Completion:
        """Read a reply of `generateContent`."""
        return read_reply(self.name, request_id, content)

    def meaning(self, error: HttpError) -> Exception:
        """As for all services, with Google's own words for how long to wait and for a daily quota."""
        return google_meaning(error, self.name, self.wire.url)


class GoogleModel(GeminiModel):
    """`google/MODEL`, asked over the session that `google-genai` would open, with the address and headers it builds."""

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        safety: Safety = "block-none",
        timeout_s: float | None = None,
    ) -> None:
        """Prepare the client; nothing is sent.

        Raises:
            ModelError: No key, or an address that is none.
        """
        with without_gc():
            from google import genai

        name = f"google/{model}"
        key, address = key_and_address(name, base_url)
        url, headers = _probe(model, key or "no-key", address)
        wire = Wire(url, headers, timeout_s)
        super().__init__(name, wire, base_url=address, client=f"google-genai {genai.__version__}", safety=safety)


def key_and_address(name: str, base_url: str | None) -> tuple[str, str]:
    """The key and the address without a version path.

    Raises:
        ModelError: No key where Google itself is asked, or an address that is none.
    """
    key = read_key(KEY_VARIABLES, name)
    address = (base_url or os.environ.get(BASE_URL_VARIABLE) or HOST).rstrip("/")
    address = address.removesuffix("/v1beta").removesuffix("/v1")
    if not key and address == HOST:
        raise ModelError(f"{name}: no key. Set {' or '.join(KEY_VARIABLES)} in the environment")
    check_address(address, name, bool(key))
    return key, address


def _probe(model: str, key: str, address: str) -> tuple[str, dict[str, str]]:
    """URL and headers of the request that the SDK builds for this model; it is kept instead of sent."""
    import httpx2
    from google import genai
    from google.genai import types

    built: list[httpx2.Request] = []

    def keep(request: httpx2.Request) -> httpx2.Response:
        built.append(request)
        return httpx2.Response(200, json={})

    transport = httpx2.MockTransport(keep)
    options = types.HttpOptions(
        base_url=address,
        httpx_client=httpx2.Client(transport=transport),
        httpx_async_client=httpx2.AsyncClient(transport=transport),
    )
    client = genai.Client(vertexai=False, api_key=key, http_options=options)
    try:
        client.models.generate_content(model=model, contents="probe")
    except ValueError as error:
        raise ModelError(f"google/{model}: {error}") from None
    (request,) = built
    of_this_request = ("host", "connection", "content-length", "accept-encoding")
    headers = {name: value for name, value in request.headers.items() if name not in of_this_request}
    return str(request.url), headers


def request_body(
    request: Request,
    safety: Safety,
    left_out: set[str] | frozenset[str] = frozenset(),
    schema: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The body of `generateContent`, as the SDK would write it."""
    sampling = request.sampling
    config: dict[str, Any] = {"temperature": sampling.temperature, "maxOutputTokens": sampling.max_tokens}
    if sampling.top_p is not None:
        config["topP"] = sampling.top_p
    if sampling.seed is not None:
        config["seed"] = sampling.seed
    if schema is not None:
        config["responseMimeType"] = "application/json"
        config["responseJsonSchema"] = schema
    body: dict[str, Any] = {
        "contents": [
            {"role": "model" if message.role == "assistant" else "user", "parts": [{"text": message.content}]}
            for message in request.messages
            if message.role != "system"
        ],
        "generationConfig": {name: value for name, value in config.items() if name not in left_out},
    }
    if request.system_prompt is not None:
        body["systemInstruction"] = {"parts": [{"text": request.system_prompt}], "role": "user"}
    if safety == "block-none":
        body["safetySettings"] = _BLOCK_NONE
    return body


def read_reply(name: str, request_id: str, content: bytes) -> Completion:
    """Read a reply: blocked prompts and outputs, thoughts apart from the answer.

    Raises:
        RetryableError: Malformed, or without candidate and reason.
        HttpError: An error where a reply should be.
        ModelError: The account was shut for what it asked.
    """
    reply: _Reply = decoded_reply(_decoder, content)
    usage, thought = _usage(reply.usage_metadata)
    reason = _named(reply.prompt_feedback.block_reason if reply.prompt_feedback else None, BLOCK_NUMBERS)
    if reason and reason not in ("BLOCK_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED"):
        return Completion(id=request_id, text="", finish_reason="content_filter", blocked_by="prompt", usage=usage)
    if not reply.candidates:
        raise told_error(reply.error, content) or RetryableError("malformed reply: no candidate in it")
    candidate = reply.candidates[0]
    ended = _named(candidate.finish_reason, FINISH_NUMBERS) or "STOP"
    if ended in _FAILED:
        raise RetryableError(f"the service broke off: {ended}")
    if ended == "PUP_LIMITED_DISABLED":
        raise ModelError(f"{name}: Google has limited this account for violations of its usage policy ({ended})")
    parts = (candidate.content.parts if candidate.content else None) or []
    thoughts = [part.text or "" for part in parts if part.thought]
    text, inner = split_reasoning("".join(part.text or "" for part in parts if not part.thought))
    finish = _FINISH.get(ended, "other")
    blocked: BlockedBy | None = "output" if finish == "content_filter" else None
    return Completion(
        id=request_id,
        text=text,
        reasoning="".join(thoughts) if thoughts else inner if inner is not None else "" if thought else None,
        finish_reason=finish,
        blocked_by=blocked,
        usage=usage,
    )


def _named(reason: str | int | None, numbers: Sequence[str]) -> str | None:
    """A reason by its name; one that is newer than our list keeps its number."""
    if isinstance(reason, str) and reason.isdecimal():
        reason = int(reason)
    if isinstance(reason, int):
        return numbers[reason] if 0 <= reason < len(numbers) else str(reason)
    return reason


def google_meaning(error: HttpError, name: str, url: str) -> Exception:
    """The error to raise: a daily quota ends the run, and the wait stands in the body instead of a header."""
    details = error.error.get("details")
    found = [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []
    if error.status == 429 and "PerDay" in str([detail.get("violations") for detail in found]):
        return ModelError(f"{name}: no quota left for today (429: {error.message}); the same command goes on tomorrow")
    if error.status == 400 and "location is not supported" in error.words:
        return ModelError(f"{name}: access denied (400: {error.message}); {ALLOWED}")
    delays = [str(detail.get("retryDelay") or "") for detail in found]
    wait_s = next((_seconds(delay) for delay in delays if delay), None)
    return meaning(error, name, " or ".join(KEY_VARIABLES), url, wait_s)


def _seconds(delay: str) -> float | None:
    try:
        return max(0.0, float(delay.removesuffix("s")))
    except ValueError:
        return None


def _usage(counted: _Counts | None) -> tuple[Usage | None, bool]:
    """Tokens in and out, and whether there were thoughts."""
    if counted is None:
        return None, False
    out = [tokens for tokens in (counted.candidates_token_count, counted.thoughts_token_count) if tokens is not None]
    usage = Usage(input_tokens=counted.prompt_token_count, output_tokens=sum(out) if out else None)
    return usage, bool(counted.thoughts_token_count)
