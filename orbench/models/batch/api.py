"""What a vendor's batch API has to tell: four calls, each in its own words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Set
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec

from orbench.errors import ModelError
from orbench.models.batch.store import Batch
from orbench.models.remote import RemoteModel
from orbench.models.wire import HttpError
from orbench.records import Request

UPLOAD_BYTES_PER_S = 100_000
"""A slower upload is given up and begun again."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Where a batch is."""

    ended: bool
    said: str
    """The vendor's own word for it."""
    done: int = 0
    """Requests that are through, as far as the vendor says."""
    files: tuple[str, ...] = ()
    """Where its results are, if it ended."""
    failed: str | None = None
    """Why nothing of it was done at all."""
    queue_is_full: bool = False
    """It failed because more is queued than the account may have."""


class Result(msgspec.Struct, frozen=True):
    """What became of one request: a status with its body, or none because the vendor did not get to it."""

    custom_id: str
    status: int
    """200 for a reply; 0 where there is none."""
    body: bytes = b""
    lost: Literal["expired", "cancelled", None] = None


class BatchApi(ABC):
    """A vendor's batch API for one model.

    Attributes:
        model: The model; its bodies go into a batch, and it reads what comes out.
    """

    max_requests: ClassVar[int]
    """Requests in one batch."""
    max_bytes: ClassVar[int]
    """Bytes of one batch, as it is sent."""
    head: ClassVar[bytes] = b""
    between: ClassVar[bytes] = b"\n"
    tail: ClassVar[bytes] = b"\n"
    """What stands before, between and after the requests in the file that is sent."""

    def __init__(self, model: RemoteModel) -> None:
        """Nothing is sent."""
        self.model = model

    @abstractmethod
    def line(self, custom_id: str, request: Request) -> object:
        """One request as it stands in the file."""

    @abstractmethod
    def sent_body(self, path: Path) -> dict[str, Any]:
        """The body of a file's first request: what fields were sent, in every request the same."""

    @abstractmethod
    async def create(self, batch: Batch, path: Path) -> str:
        """Send the file, make a batch of it, and return its id."""

    @abstractmethod
    async def find(self, batch: Batch, known: Set[str]) -> tuple[str | None, bool]:
        """The id of a batch that may have been created without our knowing.

        Args:
            batch: What was sent, perhaps.
            known: Ids that belong to other batches.

        Returns:
            The id, None if it is not there; and whether only time can tell.
        """

    @abstractmethod
    async def status(self, id: str) -> Status:
        """Where a batch is."""

    @abstractmethod
    def results(self, id: str, status: Status) -> AsyncGenerator[Result, None]:
        """What became of the requests of a batch that ended, in any order; what cannot be read is left out."""

    def prepare(self, path: Path) -> None:  # noqa: B027 - most have nothing to set
        """Set the model to read what this file asks for, where it might be set otherwise."""

    def upload_timeout_s(self, path: Path) -> float:
        """Seconds that sending the file may take."""
        return self.model.wire.timeout_s + path.stat().st_size / UPLOAD_BYTES_PER_S


NOT_THERE = (404, 405)
"""Statuses of a server that has ordinary calls alone, to all that is asked about batches."""


def no_batches(model: RemoteModel, error: HttpError) -> ModelError:
    """What to raise where such a server answered so."""
    return ModelError(
        f"{model.name}: {model.base_url} has no Batch API ({error}); leave --batch out, or, if it has one, give its "
        "whole address with --base-url, such as http://host:port/v1"
    )
