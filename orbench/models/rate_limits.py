"""What a service says is left of the account's limits, as plain numbers whatever its headers look like."""

from __future__ import annotations

import datetime
import email.utils
import math
import re
from collections.abc import Mapping

import msgspec

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|h|m|s))+")


class RateLimits(msgspec.Struct, frozen=True):
    """What is left until the limits are filled up again; None for what the service does not say."""

    limit_requests: int | None = None
    """Requests of a whole period, as the account has them."""
    limit_tokens: int | None = None
    """Tokens of a whole period."""
    remaining_requests: int | None = None
    remaining_tokens: int | None = None
    reset_requests_s: float | None = None
    """Seconds until the requests are full again, counted from the reply."""
    reset_tokens_s: float | None = None


_PARTS = ("limit", "remaining", "reset")
_HEADERS = [
    [
        pattern.format(part=part, what=what)
        for what in ("requests", "tokens")
        for part in ("limit", "remaining", "reset")
    ]
    for pattern in ("x-ratelimit-{part}-{what}", "anthropic-ratelimit-{what}-{part}")
]


def read_rate_limits(headers: Mapping[str, str]) -> RateLimits | None:
    """Read `x-ratelimit-*` (OpenAI, Azure, Groq and others) or `anthropic-ratelimit-*`; None if there is neither."""
    for names in _HEADERS:
        found = [headers.get(name) for name in names]
        if any(found):
            limits = RateLimits(
                limit_requests=_count(found[0]),
                remaining_requests=_count(found[1]),
                reset_requests_s=_seconds(found[2], headers),
                limit_tokens=_count(found[3]),
                remaining_tokens=_count(found[4]),
                reset_tokens_s=_seconds(found[5], headers),
            )
            return None if limits == RateLimits() else limits
    return None


def seconds_until(then: datetime.datetime, headers: Mapping[str, str]) -> float:
    """Seconds from a reply to a time that it names, by the service's own clock where it says it: ours may jump."""
    try:
        now = email.utils.parsedate_to_datetime(headers["date"])
    except (KeyError, ValueError):
        now = datetime.datetime.now(datetime.UTC)
    if now.tzinfo is None:
        now = now.replace(tzinfo=datetime.UTC)
    return max(0.0, (then - now).total_seconds())


def _count(value: str | None) -> int | None:
    try:
        return None if value is None else int(float(value))
    except (ValueError, OverflowError):
        return None


def _seconds(value: str | None, headers: Mapping[str, str]) -> float | None:
    """Seconds from `7.5`, `6m0s`, `120ms` or a time of RFC 3339."""
    if value is None:
        return None
    if _DURATION.fullmatch(value):
        return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(value))
    try:
        number = float(value)
        return max(0.0, number) if math.isfinite(number) else None
    except ValueError:
        pass
    try:
        then = datetime.datetime.fromisoformat(value)
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=datetime.UTC)
    return seconds_until(then, headers)
