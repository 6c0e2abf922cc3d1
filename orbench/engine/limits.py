"""How many calls may be open at once, found out while they run.

Without a number from the user a limit starts small and doubles every round (slow start) until the service says
that it is too much; then it is cut by a fifth and grows slowly again. It grows only while it is really used: an
idle limit proves nothing. One limit belongs to one model in one role, so that a judge and a target, or two
models, never starve each other.
"""

from __future__ import annotations

import asyncio
from collections import deque

from orbench.engine.pace import Pace
from orbench.models.base import Model

DEFAULT_MAXIMUM = 256
"""Most calls open at once where the user gives no number; more connections hardly pay on one machine."""
_FIRST = 16
_CUT = 0.8
_GROWTH = 0.05
_USED = 0.8
_LOW = 16
_EVIDENCE = 4


class ConcurrencyLimit:
    """A bound on open calls that adapts to what the service bears.

    Attributes:
        limit: Calls that may be open at once now.
        maximum: What `limit` never exceeds.
        open: Calls open now.
        cuts: How often the service made it shrink.
        peak: The largest number of calls that were open at once.
        pace: When the next call may be sent.
    """

    def __init__(
        self, concurrency: int | None = None, maximum: int = DEFAULT_MAXIMUM, pace: Pace | None = None
    ) -> None:
        """Open at `concurrency` and never exceed it; without one, start small and grow up to `maximum`."""
        self.pace = pace or Pace()
        self.maximum = concurrency if concurrency is not None else maximum
        self.limit = concurrency if concurrency is not None else min(_FIRST, maximum)
        self.open = 0
        self.cuts = 0
        self.peak = 0
        self._slow_start = True
        self._good = 0
        self._answered = self._refused = 0  # since the last cut
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> int:
        """Wait for a free slot, first come, first served.

        Returns:
            How often the limit had been cut by then (for `overloaded`).
        """
        if self.open < self.limit:
            self._take()
            return self.cuts
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                self.release()  # the slot was handed over in the same moment
            raise
        return self.cuts

    def release(self) -> None:
        """Give the slot back."""
        self.open -= 1
        self._hand_over()

    def succeeded(self) -> None:
        """Note a good call, made while its slot is still held; a full round of them makes the limit grow."""
        self._answered += 1
        if self.open < _USED * self.limit:
            return
        self._good += 1
        if self._good >= self.limit and self.limit < self.maximum:
            grown = self.limit * 2 if self._slow_start else self.limit + max(1, int(self.limit * _GROWTH))
            self.limit = min(self.maximum, grown)
            self._good = 0
            self._hand_over()

    def overloaded(self, cuts_at_start: int) -> None:
        """Note that the service wants fewer calls.

        Args:
            cuts_at_start: What `acquire` returned for the failed call. Calls sent before the last cut say nothing
                about the limit after it, so a burst of refusals cuts only once.
        """
        if cuts_at_start < self.cuts:
            return
        self._refused += 1
        # A service that refuses a part of the calls whatever is open must not bring the limit down to one: low limits
        # are cut only where most calls are refused, as they are where too many are open.
        if self.limit <= _LOW and self._refused <= max(_EVIDENCE, self._answered):
            return
        self._answered = self._refused = 0
        self.cuts += 1
        self._slow_start = False
        self._good = 0
        self.limit = max(1, int(self.limit * _CUT))

    def to_dict(self) -> dict[str, float]:
        """What was decided, for run.json."""
        return {
            "peak": self.peak,
            "cuts": self.cuts,
            "limit": self.limit,
            "slowed": self.pace.slowed,
            "paced_s": round(self.pace.waited_s, 3),
        }

    def _hand_over(self) -> None:
        """Give free slots to those who wait longest; who comes later cannot slip in before they run."""
        while self.open < self.limit and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._take()

    def _take(self) -> None:
        self.open += 1
        self.peak = max(self.peak, self.open)


def limit_for(
    model: Model, concurrency: int | None = None, rpm: float | None = None, tpm: float | None = None
) -> ConcurrencyLimit:
    """The limit of a model in one role.

    Args:
        model: Says how many calls it wants at most, where the user gives no number.
        concurrency: Calls open at once; None for the model's own number, else found out while running.
        rpm: Requests a minute; None for no cap.
        tpm: Tokens a minute, sent and received; None for no cap.

    Raises:
        orbench.UsageError: A cap that cannot be meant; see `Pace`.
    """
    return ConcurrencyLimit(concurrency or model.max_concurrency, pace=Pace(rpm, tpm))
