"""What a service says is left of the account's limits, as plain numbers whatever its headers look like."""

from __future__ import annotations

import datetime
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


def read_rate_limits(headers: Mapping[str, str]) -> RateLimits | None:
    """Read `x-ratelimit-*` (OpenAI, Azure, Groq and others) or `anthropic-ratelimit-*`; None if there is neither."""
    for pattern in ("x-ratelimit-{part}-{what}", "anthropic-ratelimit-{what}-{part}"):
        found: dict[str, int | float | None] = {}
        for what in ("requests", "tokens"):
            found[f"limit_{what}"] = _count(headers.get(pattern.format(part="limit", what=what)))
            found[f"remaining_{what}"] = _count(headers.get(pattern.format(part="remaining", what=what)))
            found[f"reset_{what}_s"] = _seconds(headers.get(pattern.format(part="reset", what=what)))
        if any(value is not None for value in found.values()):
            return RateLimits(**found)  # type: ignore[arg-type]
    return None


def _count(value: str | None) -> int | None:
    try:
        return None if value is None else int(float(value))
    except (ValueError, OverflowError):
        return None


def _seconds(value: str | None) -> float | None:
    """Seconds from `7.5`, `6m0s`, `120ms` or a time of RFC 3339."""
    if value is None:
        return None
    if _DURATION.fullmatch(value):
        return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(value))
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        then = datetime.datetime.fromisoformat(value)
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=datetime.UTC)
    return max(0.0, (then - datetime.datetime.now(datetime.UTC)).total_seconds())
