"""OpenAI's Batch API: a file of requests goes up, a file of replies comes down.

Its limits, from the vendor's guide and reference (platform.openai.com/docs/guides/batch), November 2026: 50,000
requests and 200 MB a file; one endpoint and one model a batch; done or expired within 24 hours; results in any order,
those that failed in a file of their own; input tokens that are queued at once are bounded for each model, and a batch
beyond that fails as a whole. Metadata hold 16 texts of up to 512 characters.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Set
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec

from orbench.models.base import RetryableError
from orbench.models.batch.api import NOT_THERE, BatchApi, Result, Status, no_batches
from orbench.models.batch.store import Batch
from orbench.models.openai import OpenAIModel
from orbench.models.remote import decoded
from orbench.models.wire import HttpError
from orbench.records import Request

_MARK = "orbench"
"""Key of the metadata that holds ours."""
_ENDED = ("completed", "expired", "cancelled", "failed")
_PAGE = 100


class _Error(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _Errors(msgspec.Struct):
    data: list[_Error] | None = None


class _Counts(msgspec.Struct):
    completed: int = 0
    failed: int = 0


class _Batch(msgspec.Struct):
    id: str
    status: str = "in_progress"
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: _Errors | None = None
    metadata: dict[str, Any] | None = None
    request_counts: _Counts | None = None


class _Page(msgspec.Struct):
    data: list[_Batch]
    has_more: bool = False


class _Response(msgspec.Struct):
    status_code: int = 0
    body: msgspec.Raw = msgspec.Raw(b"null")


class _Line(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: _Error | None = None


class _Sent(msgspec.Struct):
    url: str
    body: dict[str, Any]


class _File(msgspec.Struct):
    id: str


class OpenAIBatches(BatchApi):
    """OpenAI's Batch API, for chat completions and responses."""

    max_requests = 50_000
    max_bytes = 200_000_000
    model: OpenAIModel

    def __init__(self, model: OpenAIModel) -> None:
        """Nothing is sent."""
        super().__init__(model)
        self._batches = f"{model.root}/batches"
        self._files: dict[str, str] = {}
        """What this process has sent up already, by the batch's key."""

    def line(self, custom_id: str, request: Request) -> object:
        """A request with method and endpoint."""
        return {
            "custom_id": custom_id,
            "method": "POST",
            "url": self.model.endpoint,
            "body": self.model.body(request),
        }

    def sent_body(self, path: Path) -> dict[str, Any]:
        """The body of the first request."""
        return _first(path).body

    async def create(self, batch: Batch, path: Path) -> str:
        """Send the file, then create the batch, our key in its metadata."""
        if batch.key not in self._files:
            self._files[batch.key] = await self._upload(path)
        asked = {
            "input_file_id": self._files[batch.key],
            "endpoint": _first(path).url,
            "completion_window": "24h",
            "metadata": {_MARK: batch.key},
        }
        content = await self.model.wire.send("POST", self._batches, msgspec.json.encode(asked))
        made: _Batch = decoded(msgspec.json.Decoder(_Batch).decode, content)
        return made.id

    async def find(self, batch: Batch, known: Set[str]) -> tuple[str | None, bool]:
        """Look for our key in the metadata of all batches, the newest first."""
        after = ""
        while True:
            content = await self.model.wire.send("GET", f"{self._batches}?limit={_PAGE}{after}")
            page: _Page = decoded(msgspec.json.Decoder(_Page).decode, content)
            for one in page.data:
                if (one.metadata or {}).get(_MARK) == batch.key:
                    return one.id, False
            if not page.has_more or not page.data:
                return None, False
            after = f"&after={page.data[-1].id}"

    async def status(self, id: str) -> Status:
        """Where the batch is."""
        content = self.model.wire.without_key(await self.model.wire.send("GET", f"{self._batches}/{id}"))
        batch: _Batch = decoded(msgspec.json.Decoder(_Batch).decode, content)
        counts = batch.request_counts or _Counts()
        errors = (batch.errors.data if batch.errors else None) or []
        said = "; ".join(dict.fromkeys(f"{error.code}: {error.message}" for error in errors))
        files = tuple(file for file in (batch.output_file_id, batch.error_file_id) if file)
        if batch.status in _ENDED and not files and counts.completed:
            raise RetryableError(f"batch {id} is {batch.status}, and the file of its results is not there yet")
        return Status(
            ended=batch.status in _ENDED,
            said=batch.status,
            done=counts.completed + counts.failed,
            files=files,
            failed=(said or "no reason given") if batch.status == "failed" and not files else None,
            queue_is_full=any(error.code == "token_limit_exceeded" for error in errors),
        )

    async def results(self, id: str, status: Status) -> AsyncGenerator[Result, None]:
        """The replies, then the errors."""
        decode = msgspec.json.Decoder(_Line).decode
        for file in status.files:
            async with aclosing(self.model.wire.lines(f"{self.model.root}/files/{file}/content")) as lines:
                async for content in lines:
                    try:
                        line = decode(content)
                    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                        continue
                    yield _read(line)

    def prepare(self, path: Path) -> None:
        """A model that turned out to need the Responses API does so in the next process too."""
        self.model.use("responses" if _first(path).url.endswith("/responses") else "chat")

    async def _upload(self, path: Path) -> str:
        import aiohttp

        with path.open("rb") as file:
            form = aiohttp.FormData()
            form.add_field("purpose", "batch")
            form.add_field("file", file, filename=f"orbench-{path.name}", content_type="application/jsonl")
            try:
                content = await self.model.wire.send(
                    "POST", f"{self.model.root}/files", form, timeout_s=self.upload_timeout_s(path)
                )
            except HttpError as error:
                if error.status in NOT_THERE:
                    raise no_batches(self.model, error) from None
                raise
        made: _File = decoded(msgspec.json.Decoder(_File).decode, content)
        return made.id


def _first(path: Path) -> _Sent:
    """The first request of a file."""
    with path.open("rb") as file:
        return msgspec.json.decode(file.readline(), type=_Sent)


def _read(line: _Line) -> Result:
    if line.response is not None and line.response.status_code:
        return Result(line.custom_id, line.response.status_code, bytes(line.response.body))
    code = line.error.code if line.error is not None else None
    if code == "batch_expired":
        return Result(line.custom_id, 0, lost="expired")
    if code == "batch_cancelled":
        return Result(line.custom_id, 0, lost="cancelled")
    return Result(line.custom_id, 502, msgspec.json.encode({"error": line.error}))
