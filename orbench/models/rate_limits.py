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


_LEFT = [
    pattern.format(part="remaining", what=what)
    for pattern in ("x-ratelimit-{part}-{what}", "anthropic-ratelimit-{what}-{part}")
    for what in ("requests", "tokens")
]


def read_rate_limits(headers: Mapping[str, str]) -> RateLimits | None:
    """Read `x-ratelimit-*` (OpenAI, Azure, Groq and others) or `anthropic-ratelimit-*`; None if neither is there."""
    for name in _LEFT:
        if headers.get(name):
            break
    else:
        return None

    def said(part: str, what: str) -> str | None:
        return headers.get(
            f"anthropic-ratelimit-{what}-{part}" if name.startswith("anthropic") else f"x-ratelimit-{part}-{what}"
        )

    limits = RateLimits(
        limit_requests=_count(said("limit", "requests")),
        remaining_requests=_count(said("remaining", "requests")),
        reset_requests_s=_seconds(said("reset", "requests"), headers),
        limit_tokens=_count(said("limit", "tokens")),
        remaining_tokens=_count(said("remaining", "tokens")),
        reset_tokens_s=_seconds(said("reset", "tokens"), headers),
    )
    return None if limits == RateLimits() else limits


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
