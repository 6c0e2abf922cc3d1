"""Google's Gemini API through the older `google-generativeai`, for those who must compare with what they ran on it.

Its vendor ended support on 2025-11-30 and its asynchronous calls fail on REST, so it runs in threads.
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from orbench.engine.threads import WorkerThreads
from orbench.errors import ModelError, OrbenchWarning
from orbench.models.base import RejectedError, RetryableError
from orbench.models.google import Safety, google_meaning, key_and_address, read_reply, request_body
from orbench.models.wire import TIMEOUT_S, HttpError, hide
from orbench.records import Completion, Request

_THREADS = 16
_told: list[str] = []


class GoogleLegacyModel:
    """`google/MODEL` with `--google-sdk legacy`; the same requests and the same reading of replies."""

    batch_size = 1

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        safety: Safety = "block-none",
        timeout_s: float | None = None,
        concurrency: int | None = None,
    ) -> None:
        """Prepare the client; nothing is sent.

        Raises:
            ModelError: No key, or an address that is none.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # said below, once, in one line
            warnings.simplefilter("ignore", DeprecationWarning)
            import google.generativeai as genai
            from google.ai.generativelanguage import GenerativeServiceClient
            from google.generativeai import protos
        if not _told:
            _told.append("told")
            warnings.warn(
                "google-generativeai: its vendor ended support on 2025-11-30; google-genai is its successor",
                OrbenchWarning,
                stacklevel=2,
            )
        self.name = f"google/{model}"
        key, self.base_url = key_and_address(self.name, base_url)
        self.client = f"google-generativeai {genai.__version__}"
        self.settings: dict[str, str] = {"safety": safety}
        self.adaptations: list[str] = []
        self.max_concurrency: int | None = concurrency or _THREADS
        self._model = model if "/" in model else f"models/{model}"
        self._url = f"{self.base_url}/v1beta/{self._model}:generateContent"
        self._key = key
        self._safety = safety
        self._timeout_s = timeout_s or TIMEOUT_S
        self._request: Any = protos.GenerateContentRequest
        # A client of its own: `genai.configure` would be shared by all models of the process.
        self._client = GenerativeServiceClient(
            transport="rest",
            client_options={"api_key": key or "no-key", "api_endpoint": self.base_url.removeprefix("https://")},
        )
        session = self._client.transport._session
        session.max_redirects = 0  # the key does not travel on
        self._threads = WorkerThreads(self.max_concurrency or _THREADS)

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """Ask each request in turn, in a thread."""
        for request in requests:
            content = await self._threads.call(self._ask, request)
            try:
                yield read_reply(self.name, request.id, content)
            except HttpError as error:
                raise google_meaning(error, self.name, self._url) from None

    async def close(self) -> None:
        """Close the connections and let the threads go."""
        self._threads.close()
        self._client.transport.close()

    def _ask(self, request: Request) -> bytes:
        """Ask, and give the reply as JSON."""
        import requests
        from google.api_core.exceptions import GoogleAPICallError
        from google.protobuf import json_format

        if request.sampling.seed is not None and not self.adaptations:
            self.adaptations.append("seed not sent: the older SDK knows none")
        body = {**request_body(request, self._safety, {"seed"}), "model": self._model}
        try:
            asked = self._request()
            json_format.ParseDict(body, asked._pb)
        except json_format.ParseError as error:
            raise RejectedError(f"the request cannot be built: {error}") from None
        try:
            reply = self._client.generate_content(asked, timeout=self._timeout_s, retry=None)
            content: bytes = json_format.MessageToJson(reply._pb, indent=None).encode()
            return content
        except GoogleAPICallError as error:
            told = {"message": error.message, "details": [_plain(detail) for detail in error.details]}
            content = hide(self._key, msgspec.json.encode({"error": told}))
            headers = getattr(error.response, "headers", {})
            raise google_meaning(HttpError(int(error.code or 500), content, headers), self.name, self._url) from None
        except requests.TooManyRedirects:
            raise ModelError(f"{self._url} redirects elsewhere; give the final address with --base-url") from None
        except requests.ConnectionError as error:
            refused = "NewConnectionError" in repr(error) or "NameResolutionError" in repr(error)
            raise RetryableError(f"connection failed: {type(error).__name__}", unreachable=refused) from None
        except requests.Timeout:
            raise RetryableError(f"no reply within {self._timeout_s:g} s") from None
        except (requests.RequestException, json_format.ParseError, ValueError) as error:
            raise RetryableError(f"malformed reply: {type(error).__name__}") from None


def _plain(detail: object) -> object:
    if isinstance(detail, (dict, str)):
        return detail
    from google.protobuf import json_format

    try:
        found: object = json_format.MessageToDict(detail)
        return found
    except (AttributeError, TypeError):
        return str(detail)
