"""Intervals for shares."""

from __future__ import annotations

import math
from statistics import NormalDist

Z95 = NormalDist().inv_cdf(0.975)
"""Standard deviations from the middle of a normal distribution that hold 95 % of it."""


def wilson(successes: float, trials: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share.

    Keeps its coverage for shares near 0 and 1, where rejection rates mostly lie, and never leaves [0, 1].

    Args:
        successes: How many of the trials succeeded, 0 to `trials`.
        trials: How many there were, more than 0.
        level: Confidence, between 0 and 1.

    Returns:
        Lower and upper end.

    Source:
        E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209; recommended by Brown, Cai, DasGupta, Stat. Sci. 16 (2001).
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / trials
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high
