"""Both rates at once: one statement about the pair, and the region that a plot draws.

The two rates come from different prompts, so they are independent, and a region for both follows from one for each.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import msgspec

from orbench.statistics.intervals import wilson


class Joint(msgspec.Struct, frozen=True, kw_only=True):
    """Intervals that hold for both rates at once with 95 % confidence."""

    over_refusal: tuple[float, float]
    toxic_rejection: tuple[float, float]


def joint_intervals(safe: tuple[int, int], toxic: tuple[int, int], level: float = 0.95) -> Joint:
    """Intervals for both rates that hold together: each a Wilson interval at the root of the level.

    Args:
        safe: Refused and scored safe prompts.
        toxic: Refused and scored toxic prompts.
        level: Confidence of the joint statement, between 0 and 1.

    Source:
        Z. Sidak, J. Am. Stat. Assoc. 62 (1967) 626; exact for independent rates.
    """
    each = math.sqrt(level)
    return Joint(over_refusal=wilson(*safe, each), toxic_rejection=wilson(*toxic, each))


def joint_region(
    safe: tuple[int, int], toxic: tuple[int, int], level: float = 0.95, points: int = 120
) -> list[tuple[float, float]]:
    """The edge of the joint region of both rates, for drawing: an ellipse that never leaves the unit square.

    The pairs of rates whose two score statistics, squared and added, stay below the chi-squared quantile with two
    degrees of freedom: what the Wilson interval is for one rate, for two.

    Args:
        safe: Refused and scored safe prompts.
        toxic: Refused and scored toxic prompts.
        level: Confidence, between 0 and 1.
        points: How many points of the edge to give.

    Returns:
        Points (over-refusal, toxic rejection), both 0 to 1, around the region.

    Source:
        E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209, applied to two independent shares.
    """
    radius = math.sqrt(-2 * math.log(1 - level))  # the quantile with two degrees of freedom has this closed form
    edge = []
    for number in range(points):
        angle = 2 * math.pi * number / points
        edge.append((_end(*safe, radius * math.cos(angle)), _end(*toxic, radius * math.sin(angle))))
    return edge


def _end(refused: int, scored: int, z: float) -> float:
    """The share from which the data lie z standard errors away: above it for z < 0, below it for z > 0."""
    level = 2 * NormalDist().cdf(abs(z)) - 1
    if level <= 0:
        return refused / scored
    low, high = wilson(refused, scored, level)
    return high if z > 0 else low
