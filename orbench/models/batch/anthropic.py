"""Anthropic's Message Batches.

Its limits, from the vendor's guide and reference (platform.claude.com/docs/en/build-with-claude/batch-processing),
November 2026: 100,000 requests or 256 MB a batch; a `custom_id` of 1 to 64 letters, digits, `_` and `-`; done or
expired within 24 hours; results in any order, there for 29 days. A batch carries no metadata, so one whose id was not
saved is told by the names of its requests, which the vendor shows when it has ended.
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncGenerator, Set
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec

from orbench.errors import ModelError
from orbench.models.anthropic import STATUS, AnthropicModel
from orbench.models.base import RetryableError
from orbench.models.batch.api import BatchApi, Result, Status
from orbench.models.batch.store import Batch
from orbench.models.remote import decoded
from orbench.models.wire import HttpError
from orbench.records import Request

_PAGE = 100
_CLOCKS = datetime.timedelta(hours=1)
"""How far this machine's clock may be off the vendor's."""


class _Counts(msgspec.Struct):
    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0

    @property
    def done(self) -> int:
        return self.succeeded + self.errored + self.canceled + self.expired


class _Batch(msgspec.Struct):
    id: str
    processing_status: str = "in_progress"
    request_counts: _Counts = msgspec.field(default_factory=_Counts)
    created_at: datetime.datetime | None = None
    archived_at: str | None = None


class _Page(msgspec.Struct):
    data: list[_Batch]
    has_more: bool = False


class _Inner(msgspec.Struct):
    type: str = ""


class _Error(msgspec.Struct):
    error: _Inner = msgspec.field(default_factory=_Inner)


class _Result(msgspec.Struct):
    type: str
    message: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")


class _Sent(msgspec.Struct):
    params: dict[str, Any]


class _Line(msgspec.Struct):
    custom_id: str
    result: _Result


class AnthropicBatches(BatchApi):
    """Anthropic's Message Batches."""

    max_requests = 100_000
    max_bytes = 256_000_000
    head = b'{"requests":[\n'
    between = b",\n"
    tail = b"\n]}"
    model: AnthropicModel

    def line(self, custom_id: str, request: Request) -> object:
        """A request with its name."""
        return {"custom_id": custom_id, "params": self.model.body(request)}

    def sent_body(self, path: Path) -> dict[str, Any]:
        """The parameters of the first request."""
        with path.open("rb") as file:
            file.readline()
            return msgspec.json.decode(file.readline().strip(b",\n"), type=_Sent).params

    @property
    def _batches(self) -> str:
        return f"{self.model.wire.url}/batches"

    async def create(self, batch: Batch, path: Path) -> str:
        """Send the requests; they are the batch."""
        with path.open("rb") as file:
            try:
                content = await self.model.wire.send("POST", self._batches, file, timeout_s=self.upload_timeout_s(path))
            except HttpError as error:
                if error.status in (404, 405):
                    raise ModelError(
                        f"{self.model.name}: {self._batches} is no Message Batches API ({error}); leave --batch out"
                    ) from None
                raise
        made: _Batch = decoded(msgspec.json.Decoder(_Batch).decode, content)
        return made.id

    async def find(self, batch: Batch, known: Set[str]) -> tuple[str | None, bool]:
        """Look through the batches of that time and size; one that has not ended does not show whose it is."""
        since = datetime.datetime.fromisoformat(batch.at) - _CLOCKS
        after, later = "", False
        while True:
            content = await self.model.wire.send("GET", f"{self._batches}?limit={_PAGE}{after}")
            page: _Page = decoded(msgspec.json.Decoder(_Page).decode, content)
            for one in page.data:
                if one.created_at is not None and one.created_at < since:
                    return None, later
                counts = one.request_counts
                if one.id in known or one.archived_at or counts.processing + counts.done != batch.requests:
                    continue
                if one.processing_status != "ended":
                    later = True
                elif await self._first_name(one.id) == batch.key:
                    return one.id, False
            if not page.has_more or not page.data:
                return None, later
            after = f"&after_id={page.data[-1].id}"

    async def _first_name(self, id: str) -> str | None:
        try:
            async with aclosing(self.results(id, Status(ended=True, said="ended"))) as results:
                async for result in results:
                    return result.custom_id.partition("-")[0]
        except HttpError as error:
            if error.status == 404:  # somebody else's, deleted
                return None
            raise
        raise RetryableError(f"the results of batch {id} cannot be read")

    async def status(self, id: str) -> Status:
        """Where the batch is."""
        content = await self.model.wire.send("GET", f"{self._batches}/{id}")
        batch: _Batch = decoded(msgspec.json.Decoder(_Batch).decode, content)
        if batch.archived_at:
            raise ModelError(f"{self.model.name}: the results of batch {id} are gone since {batch.archived_at}")
        said = batch.processing_status
        return Status(ended=said == "ended", said=said, done=batch.request_counts.done)

    async def results(self, id: str, status: Status) -> AsyncGenerator[Result, None]:
        """What became of each request."""
        decode = msgspec.json.Decoder(_Line).decode
        async with aclosing(self.model.wire.lines(f"{self._batches}/{id}/results")) as lines:
            async for content in lines:
                try:
                    result = _read(decode(content))
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    continue
                yield result


def _read(line: _Line) -> Result:
    kind = line.result.type
    if kind == "succeeded":
        return Result(line.custom_id, 200, bytes(line.result.message))
    if kind == "expired":
        return Result(line.custom_id, 0, lost="expired")
    if kind == "canceled":
        return Result(line.custom_id, 0, lost="cancelled")
    error = msgspec.json.decode(line.result.error, type=_Error)
    return Result(line.custom_id, STATUS.get(error.error.type, 502), bytes(line.result.error))
