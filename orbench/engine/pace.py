"""When the next call may be sent: caps a minute from the user, and what the service says is left.

Two sources. `rpm` and `tpm` space calls evenly, so that no minute holds more. And where replies say how much of the
account's limits is left, calls are slowed to the speed at which it is filled up again before the service would refuse
them. Neither goes by the wall clock. A pace belongs to one model in one role, like the limit that holds it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from orbench.costs import request_tokens
from orbench.errors import UsageError
from orbench.models.rate_limits import RateLimits
from orbench.records import Request, Usage

_CATCH_UP_S = 0.1
"""Late calls may follow each other closer than the cap for so long; the event loop is not exact."""
_DAY_MIN = 24 * 60
_LONGEST_S = 60.0
"""No call waits longer for what a service says is left; a refusal then tells more."""


class Pace:
    """Spaces the calls to one model.

    Attributes:
        waited_s: Seconds that calls waited because of a cap or of what was left, all together.
        slowed: Calls that waited for what the service said was left.
    """

    def __init__(
        self, rpm: float | None = None, tpm: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Set the caps.

        Args:
            rpm: Requests a minute; None for no cap.
            tpm: Tokens a minute, sent and received; None for no cap.
            clock: Seconds from any beginning, never going back.

        Raises:
            UsageError: A cap that is not above 0, or so low that nothing would be sent for a day.
        """
        for name, value in (("rpm", rpm), ("tpm", tpm)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UsageError(f"{name} is {value}: a number above 0")
        if rpm is not None and rpm * _DAY_MIN < 1:
            raise UsageError(f"rpm is {rpm}: less than one request a day; at least {1 / _DAY_MIN:.4f}")
        if tpm is not None and tpm < 1:
            raise UsageError(f"tpm is {tpm}: at least 1")
        self.waited_s = 0.0
        self.slowed = 0
        self._clock = clock
        self._unchecked_tpm = tpm
        self._request_s = 60.0 / rpm if rpm else 0.0
        self._token_s = 60.0 / tpm if tpm else 0.0
        self._next = self._next_tokens = self._next_left = -math.inf
        self._left_s = 0.0  # in which the service fills up one call
        self._credit = 0.0  # calls that may be sent at once on what is left
        self._calls = self._tokens = 0  # calls whose tokens are known, and these
        self._reserved: dict[str, float] = {}

    def delay_s(self, request: Request) -> float:
        """Seconds to wait before this call is sent; its place is taken.

        Raises:
            UsageError: The first prompt alone takes more tokens than `tpm` has in a minute.
        """
        if not (self._request_s or self._token_s or self._left_s):
            return 0.0
        now = at = self._clock()
        if self._request_s:
            self._next = max(self._next, now - _CATCH_UP_S)
            at = max(at, self._next)
            self._next += self._request_s
        if self._unchecked_tpm is not None:
            tpm, self._unchecked_tpm = self._unchecked_tpm, None
            if (least := request_tokens(request).low) > tpm:
                raise UsageError(f"tpm is {tpm:g}: the first prompt alone takes {least:.0f} tokens; give a higher one")
        if self._token_s:
            self._next_tokens = max(self._next_tokens, now - _CATCH_UP_S)
            at = max(at, self._next_tokens)
            self._reserved[request.id] = tokens = self._expected_tokens(request)
            self._next_tokens += tokens * self._token_s
        if self._left_s and self._credit >= 1:
            self._credit -= 1
        elif self._left_s:
            self._next_left = max(self._next_left, now) + self._left_s
            at = max(at, self._next_left)
            self.slowed += 1
        self.waited_s += at - now
        return at - now

    def used(self, request: Request, usage: Usage | None) -> None:
        """Note what a call really took."""
        reserved = self._reserved.pop(request.id, None)
        if usage is None:
            return
        taken = (usage.input_tokens or 0) + (usage.output_tokens or 0)
        if reserved is not None:
            self._next_tokens += (taken - reserved) * self._token_s
        self._calls += 1
        self._tokens += taken

    def told(self, left: RateLimits | None, open_calls: int) -> None:
        """Note what the service says is left, while so many calls are open."""
        if left is None:
            return
        each = max(1.0, self._tokens / self._calls) if self._calls else 1.0
        known = [
            *_left(left.limit_requests, left.remaining_requests, left.reset_requests_s, 1.0),
            *_left(left.limit_tokens, left.remaining_tokens, left.reset_tokens_s, each),
        ]
        if not known:
            return
        waiting = max(0.0, self._next_left - self._clock()) / self._left_s if self._left_s else 0.0
        # What was sent since the service counted is at most what is open now.
        self._credit = min(credit for credit, _ in known) - open_calls - waiting
        self._left_s = min(_LONGEST_S, max(refill for _, refill in known))

    def _expected_tokens(self, request: Request) -> float:
        """Tokens that a call probably takes: the mean so far, at first all that it may take."""
        return self._tokens / self._calls if self._calls else request_tokens(request).high + request.sampling.max_tokens


def _left(limit: int | None, left: int | None, reset_s: float | None, each: float) -> list[tuple[float, float]]:
    """Calls that take `each` of what is left, with the seconds in which one more is filled up; none where unknown.

    A service fills up evenly: what is taken now is back after `reset_s`. Where the limit is unknown, all of it is
    taken to come back at once then.
    """
    if left is None or reset_s is None:
        return []
    return [(left / each, each * reset_s / max(1, limit - left) if limit else reset_s)]
