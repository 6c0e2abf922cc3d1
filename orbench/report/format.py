"""How numbers look: the one place that formats them."""

from __future__ import annotations

import math
import re

from orbench.statistics.rates import Rate

NOTHING = "-"
"""Stands where there is no number."""


def percent(share: float | None, digits: int = 1) -> str:
    """`0.314` as `31.4 %`; never 0.0 % or 100.0 % for a share that is not exactly that."""
    return NOTHING if share is None else f"{_hundredths(share, digits)} %"


def interval(low: float | None, high: float | None) -> str:
    """Two shares as `28.7-33.6 %`, with the same care for 0 and 100."""
    if low is None or high is None:
        return NOTHING
    return f"{_hundredths(low, 1)}-{_hundredths(high, 1)} %"


def _hundredths(share: float, digits: int) -> str:
    text = f"{100 * share:.{digits}f}"
    smallest = 10.0**-digits
    if share > 0 and float(text) == 0:
        return f"<{smallest:.{digits}f}"
    if share < 1 and float(text) == 100:
        return f">{100 - smallest:.{digits}f}"
    return text


def points(difference: float) -> str:
    """`+2.3`: a difference of shares in percentage points."""
    return f"{round(100 * difference, 1) + 0.0:+.1f}"  # no -0.0


def counts(rate: Rate) -> str:
    """`410/1,310`: refused of scored."""
    return f"{rate.refused:,}/{rate.scored:,}"


def score(value: float | None) -> str:
    """An F1 or the like with three digits."""
    return NOTHING if value is None else f"{value:.3f}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """`1 reply`, `2,000 replies`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def money(usd: float | None) -> str:
    """`$12.34`; small amounts with two digits, such as `$0.00042`."""
    if usd is None:
        return "unknown"
    if usd >= 0.1 or usd == 0:
        return f"${usd:,.2f}"
    digits = min(8, 1 - math.floor(math.log10(usd)))
    return f"${usd:.{digits}f}"


def address(url: str | None) -> str:
    """A server's address without a name and password in it."""
    return "the usual one" if url is None else re.sub(r"//[^/@]*@", "//", url)


def span(low: str, high: str) -> str:
    """Two formatted numbers as `low-high`, or one where they are the same."""
    return low if low == high else f"{low}-{high}"


def amount(number: float) -> str:
    """`1,319`, `38 k`, `1.97 M`: counts of which the first digits say enough."""
    if number < 10_000:
        return f"{number:,.0f}"
    return f"{number / 1e3:,.0f} k" if number < 999_500 else f"{number / 1e6:,.2f} M"
