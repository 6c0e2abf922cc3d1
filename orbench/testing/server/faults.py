"""Which call fails, and how: drawn from the prompt and the number of the attempt, never from the clock."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Literal, TypeVar

import msgspec

from orbench.testing.server.formats import Body, Side, prompt_of

T = TypeVar("T", bound=str)
Fault = Literal["rate_limited", "overloaded", "server_error", "dropped", "half", "malformed", "stalled"]

FAULTS: tuple[Fault, ...] = ("rate_limited", "overloaded", "server_error", "dropped", "half", "malformed", "stalled")


Refusal = Literal["bad_request", "unauthorized", "forbidden", "not_found"]
REFUSALS: dict[Refusal, int] = {"bad_request": 400, "unauthorized": 401, "forbidden": 403, "not_found": 404}
"""How a request is refused for good, and the status that says so."""

LineFault = Literal["batch_missing", "batch_garbled", "batch_repeated"]
LINES: tuple[LineFault, ...] = ("batch_missing", "batch_garbled", "batch_repeated")


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of the calls that fail, 0 to 1, together at most 1; the same prompt fails at the same attempts again.

    Calls of the batch APIs (uploading, creating, asking, fetching) fail like calls for prompts: whatever breaks off or
    garbles the answer strikes after the work was done, so that a batch may be created without its id being told.

    Faults(rate_limited=0.2, server_error=0.1, attempts=5)
    """

    rate_limited: float = 0.0
    """Status 429 with Retry-After."""
    overloaded: float = 0.0
    """Status 529 at Anthropic, 503 elsewhere."""
    server_error: float = 0.0
    """Status 500."""
    dropped: float = 0.0
    """The connection is closed before a byte is sent."""
    half: float = 0.0
    """The connection is closed in the middle of the body."""
    malformed: float = 0.0
    """Status 200 with a body that is a torn JSON or no JSON at all."""
    stalled: float = 0.0
    """Nothing is sent for `stall_s`, then the connection is closed."""
    blocked_prompt: float = 0.0
    """Share of the prompts (not calls) that the platform blocks, the vendor's way."""
    blocked_output: float = 0.0
    """Share of the prompts whose answer it cuts off, the vendor's way, with partial text."""
    bad_request: float = 0.0
    """Share of the prompts that are refused with status 400, at every attempt."""
    unauthorized: float = 0.0
    """Share that are refused with status 401, as a wrong key is."""
    forbidden: float = 0.0
    """Share that are refused with status 403."""
    not_found: float = 0.0
    """Share that are refused with status 404, as an unknown model is."""
    batch_failed: float = 0.0
    """Share of the requests in a batch that end in an error of their own."""
    batch_expired: float = 0.0
    """Share of the requests in a batch that it does not get to in time."""
    batch_missing: float = 0.0
    """Share of the results of a batch that are not in its file."""
    batch_garbled: float = 0.0
    """Share whose line is no JSON."""
    batch_repeated: float = 0.0
    """Share whose line is there twice."""
    batch_cut: float = 0.0
    """Share of the downloads of results that end in the middle, as if they were whole."""
    retry_after_s: float = 0.05
    """What Retry-After says."""
    stall_s: float = 3600.0
    attempts: int | None = None
    """Calls of one prompt that may fail; later ones are answered. None lets any fail."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse shares that cannot be.

        Raises:
            ValueError: A share below 0, or more than 1 in all.
        """
        for group in (
            FAULTS,
            ("blocked_prompt", "blocked_output"),
            tuple(REFUSALS),
            ("batch_failed", "batch_expired"),
            LINES,
            ("batch_cut",),
        ):
            shares = [getattr(self, name) for name in group]
            if min(shares) < 0 or sum(shares) > 1 + 1e-9:
                raise ValueError(f"shares go from 0 to 1 and are at most 1 together: {', '.join(group)} are {shares}")

    def fault(self, prompt: str, attempt: int) -> Fault | None:
        """How this call fails; None if it does not. Attempts count from 1."""
        if self.attempts is not None and attempt > self.attempts:
            return None
        return _pick(self._drawn("call", prompt, attempt), [(name, getattr(self, name)) for name in FAULTS])

    def blocks(self, prompt: str) -> Side | None:
        """Which side of this prompt the platform blocks, at every attempt."""
        shares: list[tuple[Side, float]] = [("prompt", self.blocked_prompt), ("output", self.blocked_output)]
        return _pick(self._drawn("block", prompt, 0), shares)

    def refuses(self, prompt: str) -> Refusal | None:
        """How this prompt is refused, at every attempt; None if it is not."""
        return _pick(self._drawn("refuse", prompt, 0), [(name, getattr(self, name)) for name in REFUSALS])

    def batch_fault(self, prompt: str, attempt: int) -> Literal["failed", "expired"] | None:
        """How this request of a batch ends badly; None if it does not."""
        if self.attempts is not None and attempt > self.attempts:
            return None
        shares: list[tuple[Literal["failed", "expired"], float]]
        shares = [("failed", self.batch_failed), ("expired", self.batch_expired)]
        return _pick(self._drawn("batch", prompt, attempt), shares)

    def line_fault(self, prompt: str, attempt: int) -> LineFault | None:
        """What is wrong with this line of a batch's results; None if nothing is."""
        if self.attempts is not None and attempt > self.attempts:
            return None
        return _pick(self._drawn("line", prompt, attempt), [(name, getattr(self, name)) for name in LINES])

    def cuts(self, path: str, attempt: int) -> bool:
        """Whether this download of results ends in the middle."""
        return (self.attempts is None or attempt <= self.attempts) and self._drawn(
            "cut", path, attempt
        ) < self.batch_cut

    def _drawn(self, what: str, prompt: str, attempt: int) -> float:
        return draw(f"{self.seed} {what} {attempt} {prompt}")


def draw(text: str) -> float:
    """A number from 0 up to 1 that belongs to the text."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _pick(drawn: float, shares: list[tuple[T, float]]) -> T | None:
    for name, share in shares:
        drawn -= share
        if drawn < 0:
            return name
    return None


def refusing(share: float, *, seed: int = 0) -> Callable[[Body], str]:
    """A reply function that refuses a share of the prompts, always the same ones, and answers the others."""

    def reply(body: Body) -> str:
        if draw(f"{seed} refuse {prompt_of(body)}") < share:
            return "I'm sorry, but I can't help with that."
        return "Certainly. Here is an overview of the topic, with its main points one after the other."

    return reply
