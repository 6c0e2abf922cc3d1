"""A service on loopback that speaks the vendors' wire formats, for tests of whole pipelines without a network."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from aiohttp import web

Body = dict[str, Any]
Answer = str | Body | bytes | tuple[int, Body | bytes] | tuple[int, Body | bytes, Mapping[str, str]]
"""A text, a whole body (bytes are sent as they are), or a status with a body and perhaps headers."""


class LoopbackServer:
    """An HTTP server in a thread of its own, on a free port of 127.0.0.1.

        with LoopbackServer(reply="Certainly.") as server:
            result = orbench.evaluate("openai/any", base_url=server.base_url, splits="sample", out=folder)
        assert server.answered == result.prompts

    Entered again after it was left, it serves on the same port.

    Attributes:
        requests: Bodies of all requests in the order of arrival.
        headers: Their headers.
        answered: How many were answered with status 200.
    """

    def __init__(self, reply: Answer | Callable[[Body], Answer] = "Certainly.", *, latency_s: float = 0.0) -> None:
        """Say what is answered.

        Args:
            reply: The answer to every request, or a function of the request's body.
            latency_s: Seconds between request and answer.
        """
        self._reply = reply
        self._latency_s = latency_s
        self.requests: list[Body] = []
        self.headers: list[Mapping[str, str]] = []
        self.answered = 0
        self.port = 0

    @property
    def base_url(self) -> str:
        """For `--base-url` of OpenAI-compatible providers."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> LoopbackServer:
        """Start serving."""
        started: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), daemon=True)
        self._thread.start()
        started.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving; open requests are dropped."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self, started: Future[None]) -> None:
        from aiohttp import web

        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/v1/chat/completions", self._chat)
        # open requests are dropped; a time-out of 0 would wait for them without end
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.01)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self.port, backlog=1024).start()
            self.port = runner.addresses[0][1]
            started.set_result(None)
            await self._stop.wait()
        except OSError as error:
            started.set_exception(error)
        finally:
            await runner.cleanup()

    async def _chat(self, request: web.Request) -> web.Response:
        from aiohttp import web

        body = await request.json()
        self.requests.append(body)
        self.headers.append(request.headers)
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        answer = self._reply(body) if callable(self._reply) else self._reply
        status, content, *headers = answer if isinstance(answer, tuple) else (200, answer)
        if isinstance(content, str):
            content = chat_completion(content)
        if isinstance(content, dict):
            content = msgspec.json.encode(content)
        self.answered += status == 200
        return web.Response(
            body=content, status=status, headers=headers[0] if headers else None, content_type="application/json"
        )


def chat_completion(text: str | None, *, finish_reason: str = "stop", **message: Any) -> Body:
    """The body of a chat completion; further arguments become fields of its message."""
    words = len((text or "").split())
    return {
        "id": "chatcmpl-loopback",
        "object": "chat.completion",
        "model": "loopback",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **message},
                "finish_reason": finish_reason,
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": words, "total_tokens": 10 + words},
    }
