"""What a model is to orbench: one small protocol for remote calls and local engines alike.

A model takes a list of requests and yields a completion for each, in any order. `batch_size` says how long a
list it wants: 1 for a model behind a wire (the engine then keeps many such calls open at once), None for an
engine that schedules the whole work itself (vLLM, batched transformers, a batch API). A model that takes the whole
list gets the machine to itself, unless it says `needs_machine = False`.

What goes wrong is told with two exceptions, or with `Completion.error` for one request of a longer list:
`RetryableError` (try again later) and `RejectedError` (this request will never do). An `orbench.ModelError`
says that no request will do, and stops the run.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol, runtime_checkable

from orbench.records import Completion, Request


@runtime_checkable
class Model(Protocol):
    """Anything that answers requests."""

    @property
    def name(self) -> str:
        """`provider/name`, as on the command line."""
        ...

    @property
    def batch_size(self) -> int | None:
        """How many requests one `generate` call takes: 1, or None for all of them."""
        ...

    @property
    def max_concurrency(self) -> int | None:
        """How many `generate` calls may be open at once; None leaves it to the engine."""
        ...

    def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """Yield one completion for each request, in any order, each as soon as it is there.

        Raises:
            RetryableError: The requests not yet answered may be tried again.
            RejectedError: The requests not yet answered will never be accepted as they are.
            orbench.ModelError: The model cannot answer anything.
        """
        ...

    async def close(self) -> None:
        """Release connections, threads and memory."""
        ...


def note_answered(model: Model) -> None:
    """Tell a model that it has answered in this run before: then access that is denied is about one request.

    Models whose access can be denied have a method of that name; the others need not know.
    """
    note = getattr(model, "note_answered", None)
    if note is not None:
        note()


class CallError(Exception):
    """Base of what can go wrong with a single call."""


class RetryableError(CallError):
    """A failure that may pass: too many requests, an overloaded or broken server, a lost connection.

    Attributes:
        retry_after: Seconds that the server asked to wait, if it did.
        overloaded: The server wants fewer calls at once (429, 503, 529).
        unreachable: No connection was made at all; before any reply this ends the run.
    """

    def __init__(
        self, message: str, *, retry_after: float | None = None, overloaded: bool = False, unreachable: bool = False
    ) -> None:
        """Keep the message and what the engine needs to decide when to try again."""
        super().__init__(message)
        self.retry_after = retry_after
        self.overloaded = overloaded
        self.unreachable = unreachable


class RejectedError(CallError):
    """A request that will fail however often it is tried (bad request, a callable that raised)."""
