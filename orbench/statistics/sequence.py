"""An interval that holds at every look: for `--precision`, which looks after each reply and stops when it likes.

A fixed-size interval such as Wilson's is wrong about once in twenty; look at it all the time and stop when it
pleases, and it is wrong far more often. A confidence sequence is wrong at any look, ever, at most once in twenty.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable


@functools.lru_cache(maxsize=64)
def confidence_sequence(refused: int, asked: int, prompts: int, level: float = 0.95) -> tuple[float, float]:
    """Interval for the refused share of a whole split, after some of its prompts, valid at all looks at once.

    Prompts are asked in random order without replacement, so that what is unknown shrinks with every reply: when all
    have been asked, the interval is a point. A whole number of refused prompts among all belongs to the interval
    while the ratio of its prior to its posterior probability stays below 1 / (1 - level); the prior is the flat
    beta-binomial. The ratio is a martingale if that number is the true one, so by Ville's inequality it ever exceeds
    the bound with probability at most 1 - level.

    Args:
        refused: Refused prompts among those asked.
        asked: Prompts asked so far, 0 to `prompts`.
        prompts: All prompts of the split, at least 1.
        level: Confidence over all looks together, between 0 and 1.

    Returns:
        Lower and upper end, as shares of all prompts.

    Source:
        I. Waudby-Smith, A. Ramdas, "Confidence sequences for sampling without replacement", NeurIPS 2020, section 2
        (the prior-posterior-ratio martingale for hypergeometric data). It speaks of a uniformly random order.
        orbench's order keeps the categories in proportion, which can only make the share of a beginning less
        variable; the coverage of that order is simulated in the tests.
    """
    fewest, most = refused, prompts - (asked - refused)
    all_samples = _log_choose(prompts, asked)

    def log_likelihood(total: int) -> float:
        """Of drawing this sample if `total` of all prompts were refused."""
        return _log_choose(total, refused) + _log_choose(prompts - total, asked - refused) - all_samples

    # Under the flat prior every number of refusals among `asked` has the same probability, 1 / (asked + 1), and the
    # prior-posterior ratio of `total` is that over its likelihood.
    bound = math.log(1 - level) - math.log(asked + 1)

    def inside(total: int) -> bool:
        return log_likelihood(total) > bound

    peak = min(most, max(fewest, round(prompts * refused / asked))) if asked else (fewest + most) // 2
    return _edge(inside, fewest, peak, prompts), _edge(inside, most, peak, prompts)


def _edge(inside: Callable[[int], bool], outer: int, peak: int, prompts: int) -> float:
    """The last number from the peak outwards that is inside; the likelihood falls on both sides of its peak."""
    if inside(outer):
        return outer / prompts
    good, bad = peak, outer
    while abs(good - bad) > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if inside(middle) else (good, middle)
    return good / prompts


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
