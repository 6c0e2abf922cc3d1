"""An account's rate limit: a bucket that fills up evenly, and the headers that tell how full it is."""

from __future__ import annotations

import datetime
import time

from orbench.testing.server.formats import Format

_BURST_S = 10.0
"""The bucket holds what fills up in so many seconds."""


class Allowance:
    """Requests that may still come.

    Attributes:
        rpm: Requests a minute that fill it up.
    """

    def __init__(self, rpm: float) -> None:
        """Begin full."""
        self.rpm = rpm
        self._size = max(1.0, rpm / 60 * _BURST_S)
        self._left = self._size
        self._seen = time.monotonic()

    def take(self) -> bool:
        """Take one request out; False if there is none."""
        now = time.monotonic()
        self._left = min(self._size, self._left + (now - self._seen) * self.rpm / 60)
        self._seen = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def headers(self, format: Format) -> dict[str, str]:
        """What is left, as the vendor's replies say it; Gemini's say nothing."""
        if format == "google":
            return {}
        full_in_s = (self._size - self._left) * 60 / self.rpm
        told = {"limit": f"{self._size:.0f}", "remaining": f"{int(self._left)}"}
        if format == "anthropic":
            now = datetime.datetime.now(datetime.UTC)
            full = now + datetime.timedelta(seconds=full_in_s)
            told["reset"] = full.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            return {f"anthropic-ratelimit-requests-{part}": value for part, value in told.items()}
        told["reset"] = f"{full_in_s:.3f}s"
        return {f"x-ratelimit-{part}-requests": value for part, value in told.items()}
