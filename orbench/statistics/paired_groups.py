"""Two models on the same prompts, where prompts belong together: rewrites of one seed, or near-duplicates.

In: for each group of prompts by how many more the second model refused. Out: the difference with an honest interval,
and an exact p-value. With prompts that all stand alone both are those of `orbench.statistics.paired`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import msgspec

from orbench.statistics.paired import Pairs, mcnemar, tango

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NOTHING = 1e-30
"""Probability below which an end of a distribution is cut off; what is cut is added to the p-value."""


class GroupedDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A paired difference whose interval knows which prompts belong together."""

    low: float
    """Lower end of the interval, -1 to 1."""
    high: float
    groups: int
    """Groups of prompts that belong together; single prompts count as groups."""
    design_effect: float
    """By how much the variance grows because of the groups, at least 1."""


def grouped_difference(pairs: Pairs, groups: Sequence[tuple[int, int]], level: float = 0.95) -> GroupedDifference:
    """Tango's interval at the effective number of prompts.

    The effective number is the number of prompts divided by the design effect: the cluster-robust variance of the
    mean difference over the variance that independent prompts would have, never taken below 1. Student's quantile
    with one degree of freedom less than there are groups replaces the normal one.

    Args:
        pairs: Counts with at least one prompt.
        groups: For each group (prompts that the second model alone refused less those that the first alone refused,
            prompts).
        level: Confidence, between 0 and 1.

    Source:
        The robust variance: N. Obuchowski, Stat. Med. 17 (1998) 1495. The effective size: J. Rao, A. Scott,
        Biometrics 48 (1992) 577, carried over to T. Tango, Stat. Med. 17 (1998) 891. The degrees of freedom: E. Korn,
        B. Graubard, Surv. Methodol. 24 (1998) 193.
    """
    n, plus, minus = pairs.prompts, pairs.only_b, pairs.only_a
    count = len(groups)
    if count == n:
        low, high = tango(n, plus, minus, level)
        return GroupedDifference(low=low, high=high, groups=count, design_effect=1.0)
    value = (plus - minus) / n
    alone = ((plus + minus) / n - value * value) / n
    if count > 1 and alone > 1e-15:
        robust = sum((net - value * size) ** 2 for net, size in groups) * count / (count - 1) / n**2
        effect = max(1.0, robust / alone)
    else:  # nothing varies, so the groups' likeness cannot be seen: each is one prompt
        effect = n / count
    from scipy.special import stdtrit

    wider = float(stdtrit(max(1, count - 1), 0.5 + level / 2)) / NormalDist().inv_cdf(0.5 + level / 2)
    scale = effect * wider * wider
    low, high = tango(n / scale, plus / scale, minus / scale, level)
    return GroupedDifference(low=low, high=high, groups=count, design_effect=effect)


def sign_flip_test(nets: Sequence[int]) -> float:
    """Exact two-sided p-value of the hypothesis that it is all one which of the models gave which replies to a group.

    Under it the net count of each group is as likely as its negative, whatever the prompts of the group have in
    common, and the sum over groups has a distribution that is computed in full. Where each group is one prompt this
    is the exact McNemar test.

    Args:
        nets: For each group the prompts that the second model alone refused less those that the first alone refused.

    Returns:
        The probability of a sum at least as far from 0 (below 1e-25 an upper bound); 1 if no group differs.

    Source:
        R. A. Fisher, The Design of Experiments (1935), section 21; for groups: M. Gail, S. Mark, R. Carroll, S.
        Green, D. Pee, Stat. Med. 15 (1996) 1069.
    """
    import numpy as np

    observed = abs(sum(nets))
    sizes = Counter(abs(net) for net in nets if net)
    if not sizes:
        return 1.0
    if len(sizes) == 1:
        ((size, groups),) = sizes.items()
        return mcnemar((groups - observed // size) // 2, (groups + observed // size) // 2)
    chances, least, cut = np.ones(1), 0, 0.0  # of each sum from `least` upwards
    for size, groups in sorted(sizes.items()):
        ways = [math.lgamma(groups + 1) - math.lgamma(k + 1) - math.lgamma(groups - k + 1) for k in range(groups + 1)]
        binomial = np.exp(np.array(ways) - groups * math.log(2))
        steps = np.zeros(2 * size * groups + 1)
        steps[:: 2 * size] = binomial
        first, last = _bulk(steps)
        cut += float(steps[:first].sum() + steps[last:].sum())
        chances = np.convolve(chances, steps[first:last])
        least += first - size * groups
        first, last = _bulk(chances)
        cut += float(chances[:first].sum() + chances[last:].sum())
        chances = chances[first:last]
        least += first
    sums = least + np.arange(len(chances))
    return min(1.0, float(chances[np.abs(sums) >= observed].sum()) + cut)


def _bulk(chances: NDArray[np.float64]) -> tuple[int, int]:
    """Where a distribution begins and ends, but for ends of next to no probability."""
    there = (chances > _NOTHING).nonzero()[0]
    return int(there[0]), int(there[-1]) + 1
