"""One JSON request over a vendor's transport, and what its failure means.

The vendors' SDKs resolve addresses, keys and headers and bring the HTTP client with its aiohttp transport; their
own request builders and response models cost more than the wire does (docs/performance.md), so the request goes
straight through the SDK's client and is read by us.
"""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from orbench.errors import ModelError
from orbench.models.base import CallError, RejectedError, RetryableError

TIMEOUT_S = 300.0
"""Seconds after which one call is given up and tried again: beyond what 1000 tokens take anywhere."""
MAX_REPLY_BYTES = 32 * 1024 * 1024
"""Longest body that is read; a reply that never ends is cut there."""
_KEY_HEADERS = ("authorization", "x-api-key", "x-goog-api-key", "api-key")


class HttpError(CallError):
    """A status other than 200, before the provider has said what it means."""

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Keep what came."""
        self.status = status
        self.body = body
        self.headers = headers
        super().__init__(f"HTTP {status}: {self.message}")

    @property
    def error(self) -> dict[str, Any]:
        """The body's `error` object; empty if it has none."""
        try:
            content = msgspec.json.decode(self.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return {}
        if isinstance(content, list) and content:
            content = content[0]
        error = content.get("error", content) if isinstance(content, dict) else content
        return error if isinstance(error, dict) else {"message": str(error)}

    @property
    def codes(self) -> str:
        """Everything in the body that names the kind of error: `code` and `type`, the inner error's code too."""
        inner = self.error.get("innererror")
        named = [self.error.get("code"), self.error.get("type"), inner.get("code") if isinstance(inner, dict) else None]
        return " ".join(str(code) for code in named if code)

    @property
    def message(self) -> str:
        """What the service says was wrong, in one line."""
        text = str(self.error.get("message") or self.body[:300].decode("utf-8", "replace"))
        return " ".join(text.split())[:300]


async def post(client: Any, url: str, headers: Mapping[str, str], body: object, timeout_s: float = TIMEOUT_S) -> bytes:
    """Send a JSON body and return that of a reply with status 200.

    Args:
        client: The `DefaultAioHttpClient` of a vendor's SDK.
        url: Absolute address.
        headers: Those of the SDK, the key among them.
        body: Anything msgspec encodes.
        timeout_s: Seconds for the whole exchange.

    Raises:
        HttpError: Another status. A key that the body repeats is taken out of it.
        RejectedError: The body cannot be sent, or the reply is too long to be read.
        RetryableError: No whole reply came: connection lost or refused, time over.
        ModelError: The address cannot be used.
    """
    import aiohttp
    import httpx2

    try:
        encoded = msgspec.json.encode(body)
    except UnicodeEncodeError as error:
        raise RejectedError(f"the prompt holds what UTF-8 cannot carry: {error.reason}") from None
    try:
        async with asyncio.timeout(timeout_s):
            request = client.build_request("POST", url, content=encoded, headers=headers)
            response = await client.send(request, stream=True)
            try:
                content = await _read(response)
            finally:
                await response.aclose()
    except (httpx2.UnsupportedProtocol, httpx2.InvalidURL, ValueError) as error:
        raise ModelError(f"{url}: not an address that can be asked ({error})") from None
    except TimeoutError:
        raise RetryableError(f"no reply within {timeout_s:.0f} s") from None
    except (httpx2.HTTPError, aiohttp.ClientError, OSError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, aiohttp.ClientConnectorError):
            why = cause.os_error.strerror or str(cause.os_error)
            raise RetryableError(f"cannot reach {url}: {why}", unreachable=True) from None
        raise RetryableError(f"connection failed: {type(cause).__name__}: {cause}") from None
    if response.status_code != 200:
        raise HttpError(response.status_code, _without_key(content, headers), response.headers)
    return content


def _without_key(content: bytes, headers: Mapping[str, str]) -> bytes:
    """Some services repeat a refused key in full; error messages end in files and terminals."""
    for name, value in headers.items():
        key = value.removeprefix("Bearer ").encode()
        if name.lower() in _KEY_HEADERS and key:
            content = content.replace(key, b"[key]")
    return content


async def _read(response: Any) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_bytes():
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_REPLY_BYTES:
            raise RejectedError(f"the reply is longer than {MAX_REPLY_BYTES >> 20} MB")
    return b"".join(chunks)


def meaning(error: HttpError, model: str, key_variable: str | None, url: str) -> Exception:
    """The error to raise for a status, the same for all services; what is special to one is told apart before.

    Wrong key, no access, no quota and unknown model stop the run; a service that is busy or broken is asked
    again; anything else concerns this request alone.
    """
    status = error.status
    if status == 401:
        key = f"; check {key_variable}" if key_variable else ""
        return ModelError(f"{model}: the key was refused (401: {error.message}){key}")
    if status == 402 or "insufficient_quota" in error.codes or "billing" in error.codes:
        return ModelError(f"{model}: no quota left ({status}: {error.message})")
    if status == 403:
        return ModelError(f"{model}: access denied (403: {error.message})")
    if status == 404:
        return ModelError(f"{model}: not found at {url} (404: {error.message}); check the model's name and --base-url")
    if status in (408, 409, 425, 429) or status >= 500:
        return RetryableError(str(error), retry_after=retry_after(error.headers), overloaded=status in (429, 503, 529))
    if 300 <= status < 400:
        return ModelError(f"{url} redirects elsewhere ({status}); give the final address with --base-url")
    return RejectedError(str(error))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the service asks to wait, from `retry-after-ms` or `retry-after` (seconds or a date)."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return max(0.0, float(milliseconds) / 1000)
        value = headers.get("retry-after")
        if value is None:
            return None
        try:
            return max(0.0, float(value))
        except ValueError:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
