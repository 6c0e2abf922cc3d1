"""A service on loopback that speaks the vendors' wire formats, for tests of whole pipelines without a network."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import msgspec

from orbench.testing.server.allowance import Allowance
from orbench.testing.server.batches import Batches
from orbench.testing.server.faults import REFUSALS, Fault, Faults
from orbench.testing.server.formats import Body, Format, blocked, chat_completion, error_body, prompt_of, reply_body

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["Answer", "Body", "Faults", "LoopbackServer", "chat_completion", "prompt_of"]

Answer = str | Body | bytes | tuple[int, Body | bytes] | tuple[int, Body | bytes, Mapping[str, str]]
"""A text, a whole body (bytes are sent as they are), or a status with a body and perhaps headers."""

Moment = Literal["before", "during", "after"]

_JSON = "application/json"
_WORDS = {
    400: "This is no request that can be answered.",
    401: "Incorrect key.",
    403: "This is not allowed.",
    404: "Not found.",
    429: "Rate limit reached.",
    500: "Server error.",
}


class LoopbackServer:
    """An HTTP server in a thread of its own, on 127.0.0.1, that speaks the formats of OpenAI, Anthropic and Google.

        with LoopbackServer("Certainly.", faults=Faults(server_error=0.2)) as server:
            result = orbench.evaluate("openai/any", base_url=server.base_url, splits="sample", out=folder)
        assert sum(server.answers.values()) == result.prompts

    A text is answered in the format of the endpoint that was asked: chat completions and all services like it, OpenAI's
    Responses API, Anthropic's Messages, Gemini's generateContent, and the batch APIs of the first three. Entered
    again after it was left, it serves on the same port. `python -m orbench.testing.server` runs one as a process.

    Attributes:
        requests: Bodies of all requests in the order of arrival.
        headers: Their headers.
        answered: How many were answered with status 200, not counting faults.
        answers: The same for each prompt by its text.
        fault_counts: How often each fault struck.
        served_s: Seconds from the first such request to the last such answer.
        batches: State of the batch APIs.
    """

    def __init__(
        self,
        reply: Answer | Callable[[Body], Answer] = "Certainly.",
        *,
        latency_s: float = 0.0,
        faults: Faults | None = None,
        capacity: int | None = None,
        rpm: float | None = None,
        batch_polls: int = 1,
        batch_queue: int | None = None,
        on_batch: Callable[[Moment, str, str], None] | None = None,
        port: int = 0,
        log: str | Path | None = None,
        keep_requests: bool = True,
    ) -> None:
        """Say what is answered.

        Args:
            reply: The answer to every request, or a function of the request's body.
            latency_s: Seconds between request and answer.
            faults: Which calls fail.
            capacity: Calls open at once; those beyond are turned away with status 429 at once.
            rpm: Requests a minute, of which ten seconds' worth may come at once; those beyond get status 429. Every
                reply says in its headers how much is left, the vendor's way.
            batch_polls: Times a batch is asked about before it is done.
            batch_queue: Requests that OpenAI's batches may have under way at once; a batch beyond them fails.
            on_batch: Told of every call of the batch APIs, its method and path: before the work is done, after it and
                before the answer, and halfway through a download. For tests that end the client just there.
            port: 0 for a free one.
            log: File to which each answered prompt is appended as a JSON line; what it holds already is counted in, so
                that a server which was killed and started again goes on where it was.
            keep_requests: False keeps `requests` and `headers` empty, for long runs.
        """
        self._reply = reply
        self._latency_s = latency_s
        self._faults = faults = faults or Faults()
        self._capacity = capacity
        self._allowance = Allowance(rpm) if rpm else None
        self._log = Path(log) if log is not None else None
        self._keep = keep_requests
        self._open = 0
        self._attempts: Counter[str] = Counter()
        self.requests: list[Body] = []
        self.headers: list[Mapping[str, str]] = []
        self.answered = 0
        self.answers: Counter[str] = Counter()
        self.fault_counts: Counter[str] = Counter()
        self.served_s = 0.0
        self._first_at: float | None = None
        self.batches = Batches(self._respond_counted, self._attempt, faults, batch_polls, batch_queue)
        self._on_batch = on_batch or (lambda moment, method, path: None)
        self.port = port
        if self._log is not None and self._log.exists():
            for line in self._log.read_bytes().splitlines():
                counted = msgspec.json.decode(line)
                self._count(counted["prompt"], counted["by"])

    @property
    def base_url(self) -> str:
        """For `--base-url` of every provider; Anthropic's and Google's leave the version off."""
        return f"{self.root_url}/v1"

    @property
    def root_url(self) -> str:
        """The address without a path."""
        return f"http://127.0.0.1:{self.port}"

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
        self._open = 0
        self._appended: BinaryIO | None = None
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        # open requests are dropped; a time-out of 0 would wait for them without end
        runner = web.ServerRunner(server, shutdown_timeout=0.01)
        await runner.setup()
        try:
            if self._log is not None:
                self._appended = self._log.open("ab", buffering=0)
            await web.TCPSite(runner, "127.0.0.1", self.port, backlog=1024).start()
            self.port = runner.addresses[0][1]
            started.set_result(None)
            await self._stop.wait()
        except OSError as error:
            started.set_exception(error)
        finally:
            await runner.cleanup()
            if self._appended is not None:
                self._appended.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        format = _format_of(request.path)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        if format is None or request.method != "POST":
            return await self._other(request)
        if self._capacity is not None and self._open >= self._capacity:
            self.fault_counts["over_capacity"] += 1
            return _refusal(format, 429, {"Retry-After": f"{self._faults.retry_after_s:g}"})
        told = {}
        if self._allowance is not None:
            taken = self._allowance.take()
            told = self._allowance.headers(format)
            if not taken:
                self.fault_counts["over_rpm"] += 1
                return _refusal(format, 429, {**told, "Retry-After": f"{60 / self._allowance.rpm:g}"})
        self._open += 1
        try:
            return await self._ask(request, format, told)
        finally:
            self._open -= 1

    async def _ask(self, request: web.BaseRequest, format: Format, told: Mapping[str, str]) -> web.StreamResponse:
        try:
            body = msgspec.json.decode(await request.content.read())
            prompt = prompt_of(body)
        except (msgspec.MsgspecError, AttributeError, IndexError):
            return _refusal(format, 400)
        if self._keep:
            self.requests.append(body)
            self.headers.append(request.headers)
        if self._first_at is None:
            self._first_at = time.monotonic()
        fault = self._faults.fault(prompt, self._attempt(prompt))
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        if fault is not None:
            self.fault_counts[fault] += 1
            return await self._fail(request, format, fault, body)
        status, content, headers = self._respond(format, body)
        answer = _response(status, content, {**told, **(headers or {})})
        if status != 200:
            return answer
        self._record(prompt, 1)  # before it is sent: whoever has an answer is counted, wherever we are killed
        try:
            await answer.prepare(request)
            await answer.write_eof()
        except BaseException:  # whoever hung up has none
            self._record(prompt, -1)
            raise
        self.served_s = time.monotonic() - self._first_at
        return answer

    def _respond(self, format: Format, body: Body) -> tuple[int, bytes, Mapping[str, str] | None]:
        if refusal := self._faults.refuses(prompt_of(body)):
            self.fault_counts[refusal] += 1
            status = REFUSALS[refusal]
            return status, msgspec.json.encode(error_body(format, status, _WORDS[status])), None
        if side := self._faults.blocks(prompt_of(body)):
            self.fault_counts[f"blocked_{side}"] += 1
            status, told = blocked(format, side)
            return status, msgspec.json.encode(told), None
        answer = self._reply(body) if callable(self._reply) else self._reply
        status, content, *headers = answer if isinstance(answer, tuple) else (200, answer)
        if isinstance(content, str):
            content = reply_body(format, content)
        if isinstance(content, dict):
            content = msgspec.json.encode(content)
        return status, content, headers[0] if headers else None

    def _respond_counted(self, format: Format, body: Body) -> tuple[int, bytes]:
        """For a batch."""
        status, content, _ = self._respond(format, body)
        if status == 200:
            self._count(prompt_of(body))
        return status, content

    async def _fail(self, request: web.BaseRequest, format: Format, fault: Fault, body: Body) -> web.StreamResponse:
        if fault == "rate_limited":
            return _refusal(format, 429, {"Retry-After": f"{self._faults.retry_after_s:g}"})
        if fault == "overloaded":
            return _refusal(format, 529 if format == "anthropic" else 503)
        if fault == "server_error":
            return _refusal(format, 500)
        _, content, _ = self._respond(format, body)
        return await self._spoil(request, fault, content)

    async def _spoil(self, request: web.BaseRequest, fault: Fault, content: bytes) -> web.StreamResponse:
        """Send an answer so that it does not arrive."""
        if fault == "malformed":
            torn = len(content) % 2 == 0
            return _response(200, content[: len(content) // 2] if torn else b"<html>Bad gateway</html>")
        if fault == "stalled":
            await asyncio.sleep(self._faults.stall_s)
        answer: web.StreamResponse = _response(200, content)
        if fault == "half":
            from aiohttp import web

            answer = web.StreamResponse(headers={"Content-Type": _JSON, "Content-Length": str(len(content))})
            await answer.prepare(request)
            await answer.write(content[: len(content) // 2])
        if request.transport is not None:
            request.transport.close()
        return answer

    async def _other(self, request: web.BaseRequest) -> web.StreamResponse:
        """Batches and their files, and what the server has counted."""
        path = request.path
        if path.startswith("/orbench/"):
            counted = {"answered": self.answered, "faults": self.fault_counts, "batches": self.batches.created}
            told = {"/orbench/stats": counted, "/orbench/answers": self.answers}.get(path)
            return _refusal("chat", 404) if told is None else _response(200, msgspec.json.encode(told))
        if path.startswith(("/v1/files", "/v1/batches", "/v1/messages/batches")):
            return await self._batch_call(request)
        return _refusal("chat", 404)

    async def _batch_call(self, request: web.BaseRequest) -> web.StreamResponse:
        """A call of a batch API; what can go wrong does so after the work is done, where the fault is in the answer."""
        method, path = request.method, request.path
        format: Format = "anthropic" if path.startswith("/v1/messages") else "chat"
        self.batches.calls.append((method, path))
        self._on_batch("before", method, path)
        call = f"{method} {path}"
        fault = self._faults.fault(call, self._attempt(call))
        if fault is not None:
            self.fault_counts[fault] += 1
        if fault in ("rate_limited", "overloaded", "server_error"):
            await request.content.read()
            status = {"rate_limited": 429, "overloaded": 529 if format == "anthropic" else 503}.get(fault, 500)
            return _refusal(
                format, status, {"Retry-After": f"{self._faults.retry_after_s:g}"} if status == 429 else None
            )
        found: tuple[int, Body | bytes] | None = None
        if path == "/v1/files" and request.method == "POST":
            name, content = "", b""
            async for part in await request.multipart():
                if getattr(part, "name", None) == "file":
                    name, content = part.filename or "", await _whole(part)  # type: ignore[union-attr]
            found = self.batches.add_file(name, content)
        else:
            raw = await request.content.read()
            found = self.batches.handle(method, path, request.query, raw, self.root_url)
        if found is None:
            return _refusal(format, 404)
        status, told = found
        content = told if isinstance(told, bytes) else msgspec.json.encode(told)
        self._on_batch("after", method, path)
        if fault is not None:
            return await self._spoil(request, fault, content)
        if not path.endswith(("/content", "/results")):
            return _response(status, content)
        from aiohttp import web

        answer = web.StreamResponse(status=status, headers={"Content-Type": "application/jsonl"})
        answer.content_length = len(content)
        await answer.prepare(request)
        await answer.write(content[: len(content) // 2])
        self._on_batch("during", method, path)
        await answer.write(content[len(content) // 2 :])
        return answer

    def _attempt(self, prompt: str) -> int:
        self._attempts[prompt] += 1
        return self._attempts[prompt]

    def _record(self, prompt: str, by: int) -> None:
        self._count(prompt, by)
        if self._appended is not None:
            self._appended.write(msgspec.json.encode({"prompt": prompt, "by": by}) + b"\n")

    def _count(self, prompt: str, by: int = 1) -> None:
        self.answered += by
        self.answers[prompt] += by


async def _whole(part: Any) -> bytes:
    """A file of any size; aiohttp's own `read` refuses those over a megabyte."""
    chunks = []
    while chunk := await part.read_chunk(1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)


def _format_of(path: str) -> Format | None:
    if path.endswith("/chat/completions"):
        return "chat"
    if path.endswith("/responses"):
        return "responses"
    if path.endswith("/messages"):
        return "anthropic"
    return "google" if path.endswith(":generateContent") else None


def _refusal(format: Format, status: int, headers: Mapping[str, str] | None = None) -> web.Response:
    return _response(
        status, msgspec.json.encode(error_body(format, status, _WORDS.get(status, "Overloaded."))), headers
    )


def _response(status: int, content: bytes, headers: Mapping[str, str] | None = None) -> web.Response:
    from aiohttp import web

    return web.Response(body=content, status=status, headers=headers, content_type=_JSON)
