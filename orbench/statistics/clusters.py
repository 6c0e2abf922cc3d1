"""Rates where prompts are not independent: rewrites of one seed, or near-duplicates, count for less than one each.

In: who refused what, and which prompts belong together. Out: a Wilson interval with an honest number of prompts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import msgspec

from orbench.statistics.intervals import wilson


class ClusteredRate(msgspec.Struct, frozen=True, kw_only=True):
    """A refused share whose interval knows which prompts belong together."""

    value: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    refused: int
    """Prompts refused."""
    prompts: int
    clusters: int
    """Groups of prompts that belong together; single prompts count as groups."""
    design_effect: float
    """By how much the variance grows because of the groups, at least 1."""


def clustered_rate(refused: Sequence[bool | int], clusters: Sequence[Hashable], level: float = 0.95) -> ClusteredRate:
    """Refused share with a Wilson interval at the effective number of prompts.

    The effective number is the number of prompts divided by the design effect: the cluster-robust variance of the
    share over its binomial variance. An estimated design effect below 1 is taken as 1, so that the interval is never
    narrower than the plain one. The normal quantile is replaced by Student's with one degree of freedom less than
    there are groups.

    Args:
        refused: For each prompt whether it was refused; at least one prompt.
        clusters: For each prompt its group.
        level: Confidence, between 0 and 1.

    Source:
        J. Rao, A. Scott, Biometrics 48 (1992) 577 for the effective size; E. Korn, B. Graubard, Surv. Methodol. 24
        (1998) 193 for the degrees of freedom.
    """
    prompts, hits = len(refused), sum(map(bool, refused))
    value = hits / prompts
    totals: defaultdict[Hashable, list[int]] = defaultdict(lambda: [0, 0])
    for hit, cluster in zip(refused, clusters, strict=True):
        totals[cluster][0] += bool(hit)
        totals[cluster][1] += 1
    count = len(totals)
    effect = 1.0
    if count < prompts and count > 1 and 0 < hits < prompts:
        squares = sum((hit - value * size) ** 2 for hit, size in totals.values())
        variance = squares * count / (count - 1) / prompts**2
        effect = max(1.0, variance / (value * (1 - value) / prompts))
    elif count < prompts:  # nothing varies, so the groups' likeness cannot be seen: each is one prompt
        effect = prompts / count
    effective = prompts / effect
    if count == prompts:
        low, high = wilson(hits, prompts, level)
    else:
        low, high = _wilson_student(value, effective, max(1, count - 1), level)
    return ClusteredRate(
        value=value, low=low, high=high, refused=hits, prompts=prompts, clusters=count, design_effect=effect
    )


def _wilson_student(value: float, effective: float, freedom: int, level: float) -> tuple[float, float]:
    from statistics import NormalDist

    from scipy.special import stdtrit

    z = NormalDist().inv_cdf(0.5 + level / 2)
    wider = (float(stdtrit(freedom, 0.5 + level / 2)) / z) ** 2
    trials = effective / wider
    return wilson(value * trials, trials, level)
