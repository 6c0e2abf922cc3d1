"""Two models on the same prompts: how far apart their rates are, and whether chance alone would do it.

In: counts of prompts that both, one or neither refused. Out: a difference with an interval, and a p-value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import msgspec

from orbench.statistics.intervals import wilson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Pairs(msgspec.Struct, frozen=True):
    """Prompts that both models have a verdict on, by who refused them."""

    both: int
    only_a: int
    """Refused by the first model alone."""
    only_b: int
    """Refused by the second model alone."""
    neither: int

    @property
    def prompts(self) -> int:
        """All of them."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def refused_a(self) -> int:
        """Refused by the first model."""
        return self.both + self.only_a

    @property
    def refused_b(self) -> int:
        """Refused by the second model."""
        return self.both + self.only_b


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value of the hypothesis that both models refuse equally often.

    Only the prompts on which they differ say anything: under the hypothesis each is a fair coin. 1 if there is none.

    Source:
        Q. McNemar, Psychometrika 12 (1947) 153; the exact conditional form is a binomial test with probability 1/2.
    """
    from scipy.special import bdtr  # the binomial's tail; scipy.stats would take half a second to import

    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def paired_difference(pairs: Pairs, level: float = 0.95) -> tuple[float, float]:
    """Tango's score interval for the refused share of the second model minus that of the first.

    Keeps its coverage where few prompts differ and shares are near 0 or 1, and has an honest width where none does.

    Args:
        pairs: Counts with at least one prompt.
        level: Confidence, between 0 and 1.

    Returns:
        Lower and upper end, -1 to 1.

    Source:
        T. Tango, Stat. Med. 17 (1998) 891; recommended by M. Fagerland, S. Lydersen, P. Laake, Stat. Med. 33 (2014)
        2850.
    """
    return tango(pairs.prompts, pairs.only_b, pairs.only_a, level)


def tango(n: float, plus: float, minus: float, level: float = 0.95) -> tuple[float, float]:
    """`paired_difference` from its three numbers, which need not be whole: they may be effective ones.

    Args:
        n: Prompts, more than 0.
        plus: Those that the second model alone refused.
        minus: Those that the first model alone refused.
        level: Confidence, between 0 and 1.
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)

    def score(delta: float) -> float:
        """Standardised distance of the data from a true difference of delta; falls as delta grows."""
        b = -plus - minus + (2 * n - plus + minus) * delta
        c = -minus * delta * (1 - delta)
        share = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        variance = n * (2 * share + delta * (1 - delta))
        distance = plus - minus - n * delta
        return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)

    def end(target: float, low: float, high: float) -> float:
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if score(middle) > target else (low, middle)
        return (low + high) / 2

    estimate = (plus - minus) / n
    return end(z, -1.0, estimate), end(-z, estimate, 1.0)


def unpaired_difference(refused_a: int, n_a: int, refused_b: int, n_b: int, level: float = 0.95) -> tuple[float, float]:
    """Interval for the share of b minus the share of a, where they were not measured on the same prompts.

    Source:
        R. Newcombe, Stat. Med. 17 (1998) 873, method 10: two Wilson intervals squared and added.
    """
    share_a, share_b = refused_a / n_a, refused_b / n_b
    low_a, high_a = wilson(refused_a, n_a, level)
    low_b, high_b = wilson(refused_b, n_b, level)
    difference = share_b - share_a
    low = difference - math.hypot(share_b - low_b, high_a - share_a)
    high = difference + math.hypot(high_b - share_b, share_a - low_a)
    return max(-1.0, low), min(1.0, high)


def unpaired_test(refused_a: int, n_a: int, refused_b: int, n_b: int) -> float:
    """Two-sided p-value that two shares, not measured on the same prompts, are equal.

    Source:
        The score test with the pooled share (Pearson's chi-squared of the 2 x 2 table, without correction).
    """
    pooled = (refused_a + refused_b) / (n_a + n_b)
    variance = pooled * (1 - pooled) * (1 / n_a + 1 / n_b)
    if variance <= 0:
        return 1.0
    z = abs(refused_a / n_a - refused_b / n_b) / math.sqrt(variance)
    return math.erfc(z / math.sqrt(2))


def fisher_exact(refused_a: int, n_a: int, refused_b: int, n_b: int) -> float:
    """Exact two-sided p-value that two shares, not measured on the same prompts, are equal.

    Given how many were refused in all, how many of these belong to the first is hypergeometric; the tables no more
    probable than the one in hand are counted.

    Source:
        R. A. Fisher, Statistical Methods for Research Workers, 5th ed. (1934), section 21.02.
    """
    import numpy as np
    from scipy.special import gammaln  # scipy.stats, which has the test, would take half a second to import

    def ways(n: int, k: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))

    refused = refused_a + refused_b
    least = max(0, refused - n_b)
    each = np.arange(least, min(n_a, refused) + 1)
    logs = ways(n_a, each) + ways(n_b, refused - each)
    chances = np.exp(logs - logs.max())
    seen = chances[refused_a - least]
    return float(min(1.0, chances[chances <= seen * (1 + 1e-7)].sum() / chances.sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted so that the chance of any false finding among all of them stays below the level.

    Source:
        S. Holm, Scand. J. Stat. 6 (1979) 65.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def mean_difference(differences: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Interval for the mean of paired differences, each -1 to 1, where prompts were asked several times.

    With one reply a prompt (differences of -1, 0 and 1) this is `paired_difference`. With several, each prompt's
    difference is that of its two refused shares: its repetitions count as one prompt, and where they differ among
    themselves as many more as their mean varies less. Repetitions that are all alike add nothing.

    Args:
        differences: One a prompt, at least one.
        level: Confidence, between 0 and 1.

    Source:
        Tango's interval at the effective number of prompts, as in `orbench.statistics.families`. One prompt that
        flipped whole is added to both variances, so that a few small differences are not taken for certainty; ours,
        tests/statistics/test_paired.py simulates its coverage.
    """
    n = len(differences)
    plus, minus = sum(d for d in differences if d > 0), -sum(d for d in differences if d < 0)
    mean = (plus - minus) / n
    whole = plus + minus - n * mean * mean  # squares, if each prompt flipped whole or not at all
    seen = sum((d - mean) ** 2 for d in differences)
    scale = min(1.0, (seen + 1) / (whole + 1))
    return tango(n / scale, plus / scale, minus / scale, level)
