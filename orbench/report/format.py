"""How numbers look: the one place that formats them."""

from __future__ import annotations

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


def counts(rate: Rate) -> str:
    """`410/1,310`: refused of scored."""
    return f"{rate.refused:,}/{rate.scored:,}"


def score(value: float | None) -> str:
    """An F1 or the like with three digits."""
    return NOTHING if value is None else f"{value:.3f}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """`1 reply`, `2,000 replies`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
