"""Google's Gemini API through the older `google-generativeai`, for those who must compare with what they ran on it.

Its vendor ended support on 2025-11-30 and its asynchronous calls fail on REST, so it runs in threads. It builds and
sends the requests; what comes back is read as it came, as with the newer SDK: the older one drops what it does not
know, such as a newer reason why a reply was blocked.
"""

from __future__ import annotations

import threading
import warnings
from typing import Any

from orbench.engine.threads import WorkerThreads
from orbench.errors import ModelError, OrbenchWarning
from orbench.models.base import RejectedError, RetryableError
from orbench.models.google import GeminiModel, Safety, key_and_address
from orbench.models.wire import HttpError, Wire
from orbench.records import Request

_THREADS = 16
_told: list[str] = []


class GoogleLegacyModel(GeminiModel):
    """`google/MODEL` with `--google-sdk legacy`; the same requests and the same reading of replies."""

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
        if not _told:
            _told.append("told")
            warnings.warn(
                "google-generativeai: its vendor ended support on 2025-11-30; google-genai is its successor",
                OrbenchWarning,
                stacklevel=2,
            )
        name = f"google/{model}"
        key, address = key_and_address(name, base_url)
        threads = concurrency or _THREADS
        wire = LegacyWire(model if "/" in model else f"models/{model}", key, address, timeout_s, threads)
        client = f"google-generativeai {genai.__version__}"
        super().__init__(name, wire, base_url=address, client=client, safety=safety)
        self.max_concurrency = threads
        self._left_out.add("seed")
        self._takes_schema = False

    def body(self, request: Request) -> dict[str, Any]:
        """The body of `generateContent`, without what the older SDK does not know."""
        if request.sampling.seed is not None:
            self.note("seed not sent: the older SDK knows none")
        if request.schema is not None:
            self.note("no schema of the reply, which the older SDK does not know: asked in words alone")
        return super().body(request)


class LegacyWire(Wire):
    """The older SDK's client for one model, in threads."""

    def __init__(self, model: str, key: str, address: str, timeout_s: float | None, threads: int) -> None:
        """Prepare the client; nothing is sent.

        Args:
            model: `models/NAME`.
            key: Empty if there is none.
            address: Of the service, without a version path.
            timeout_s: Seconds that nothing may come for.
            threads: Calls that are open at once at most.
        """
        from google.ai.generativelanguage import GenerativeServiceClient
        from google.generativeai import protos

        super().__init__(f"{address}/v1beta/{model}:generateContent", {"x-goog-api-key": key}, timeout_s)
        self._model = model
        self._request: Any = protos.GenerateContentRequest
        # A client of its own: `genai.configure` would be shared by all models of the process.
        self._client = GenerativeServiceClient(
            transport="rest",
            client_options={"api_key": key or "no-key", "api_endpoint": address.removeprefix("https://")},
        )
        session = self._client.transport._session
        session.max_redirects = 0  # the key does not travel on
        session.hooks["response"].append(self._came)
        self._threads = WorkerThreads(threads)
        self._thread = threading.local()

    async def post(self, body: object) -> bytes:
        """Send a body and return the reply's, as `Wire.post` does."""
        return await self._threads.call(self._post, body)

    async def close(self) -> None:
        """Close the connections and let the threads go."""
        self._threads.close()
        self._client.transport.close()

    def _came(self, response: Any, **options: object) -> None:
        """Keep what came for the thread that has asked."""
        self._thread.response = response

    def _post(self, body: dict[str, Any]) -> bytes:
        import requests
        from google.protobuf import json_format

        try:
            asked = self._request()
            json_format.ParseDict({**body, "model": self._model}, asked._pb)
        except (json_format.ParseError, ValueError) as error:
            raise RejectedError(f"the request cannot be built: {error}") from None
        self._thread.response = None
        try:
            self._client.generate_content(asked, timeout=self.timeout_s, retry=None)
        except requests.TooManyRedirects:
            raise ModelError(f"{self.url} redirects elsewhere; give the final address with --base-url") from None
        except requests.ConnectionError as error:
            refused = "NewConnectionError" in repr(error) or "NameResolutionError" in repr(error)
            raise RetryableError(f"connection failed: {type(error).__name__}", unreachable=refused) from None
        except requests.Timeout:
            raise RetryableError(f"no reply within {self.timeout_s:g} s") from None
        except requests.RequestException as error:
            raise RetryableError(f"malformed reply: {type(error).__name__}") from None
        except Exception:  # whatever it makes of what came: that is read by those who ask
            if self._thread.response is None:
                raise
        response, self._thread.response = self._thread.response, None
        self._answered = response.headers
        content: bytes = response.content
        if response.status_code != 200:
            raise HttpError(response.status_code, self.without_key(content), response.headers)
        return content
