"""Where things lie in the page's drawings: plain numbers for the template, no markup."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from orbench.results import Evaluation
from orbench.statistics.joint import joint_region
from orbench.statistics.rates import Rate

LEFT, TOP, SIZE = 46.0, 14.0, 380.0
"""The plot's frame inside its drawing, in the drawing's units."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One run in the plot of both rates."""

    number: int
    """Counted from 1; names the run in the plot and in its table."""
    x: float
    y: float
    left: float
    right: float
    upper: float
    lower: float
    region: str
    """Corners of the joint 95 % region, as `points` of a polygon."""


class Bar(msgspec.Struct, frozen=True):
    """A share with its interval on a scale from 0 to 100."""

    value: float
    low: float
    width: float


class Part(msgspec.Struct, frozen=True):
    """One piece of a stacked bar from 0 to 100."""

    name: str
    start: float
    width: float
    count: int
    share: float


def point(number: int, result: Evaluation) -> Point | None:
    """Where a run lies; None if it lacks one of the rates."""
    safe, toxic = result.over_refusal_rate, result.toxic_rejection_rate
    if safe.value is None or toxic.value is None:
        return None
    assert safe.low is not None
    assert safe.high is not None
    assert toxic.low is not None
    assert toxic.high is not None
    region = joint_region((safe.refused, safe.scored), (toxic.refused, toxic.scored), points=72)
    return Point(
        number=number,
        x=_x(safe.value),
        y=_y(toxic.value),
        left=_x(safe.low),
        right=_x(safe.high),
        upper=_y(toxic.high),
        lower=_y(toxic.low),
        region=" ".join(f"{_x(x)},{_y(y)}" for x, y in region),
    )


def bar(rate: Rate) -> Bar | None:
    """Its bar; None if there is no scored prompt."""
    if rate.value is None or rate.low is None or rate.high is None:
        return None
    return Bar(round(100 * rate.value, 2), round(100 * rate.low, 2), round(100 * (rate.high - rate.low), 2))


def stack(counts: Sequence[tuple[str, int]]) -> list[Part]:
    """Pieces side by side; their widths are shares of the whole."""
    whole = sum(count for _, count in counts)
    parts, before = [], 0
    for name, count in counts:
        if count:
            parts.append(
                Part(name, round(100 * before / whole, 3), round(100 * count / whole, 3), count, count / whole)
            )
        before += count
    return parts


def _x(share: float) -> float:
    return round(LEFT + SIZE * share, 2)


def _y(share: float) -> float:
    return round(TOP + SIZE * (1 - share), 2)
