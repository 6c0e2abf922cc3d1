"""How the two rates go together over models: rank correlations with bootstrap intervals, and the curve.

In: one over-refusal and one toxic-rejection rate a model, or the rows behind them. Out: `Correlation`, which says
why where it has no value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Measure = Literal["spearman", "kendall"]
DRAWS = 10_000
"""Bootstrap draws: the ends of an interval then move by less than half a hundredth from seed to seed."""


class Correlation(msgspec.Struct, frozen=True, kw_only=True):
    """A rank correlation over models."""

    measure: Measure
    value: float | None
    """-1 to 1; None where there is none, and `why` says why."""
    low: float | None
    """Lower end of the 95 % bootstrap interval."""
    high: float | None
    models: int
    over: str
    """What the bootstrap drew again: `models`, or `models and prompts`."""
    why: str | None = None
    """Why there is no value, in a sentence."""

    def __float__(self) -> float:
        """The value.

        Raises:
            ValueError: There is none; says why.
        """
        if self.value is None:
            raise ValueError(self.why)
        return self.value


def correlate(
    x: Sequence[float],
    y: Sequence[float],
    *,
    measure: Measure = "spearman",
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
    redraw: Callable[[int, np.random.Generator], tuple[Floats, Floats]] | None = None,
) -> Correlation:
    """Rank correlation of two rates over models, with a bias-corrected and accelerated bootstrap interval.

    Spearman's rho or Kendall's tau-b, ties by average ranks. Models are drawn again with replacement, in pairs.
    Where `redraw` gives rates over prompts drawn again, each draw of models takes one of those, so that the interval
    covers both.

    Args:
        x: One rate a model.
        y: The other, in the same order.
        measure: `spearman` or `kendall`.
        draws: Bootstrap draws, at least 100.
        seed: Seed of the draws.
        level: Confidence, between 0 and 1.
        redraw: `(draws, generator) -> x, y`, each of shape (draws, models): rates over prompts drawn again.

    Source:
        C. Spearman, Am. J. Psychol. 15 (1904) 72; M. Kendall, Biometrika 33 (1945) 239 (tau-b); B. Efron, J. Am.
        Stat. Assoc. 82 (1987) 171 for the interval, the acceleration from the jackknife over models.
    """
    import numpy as np

    models = len(x)
    over = "models and prompts" if redraw else "models"
    why = _unfit(x, y)
    if why:
        return Correlation(measure=measure, value=None, low=None, high=None, models=models, over=over, why=why)
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    of = _spearman if measure == "spearman" else _kendall
    value = float(of(xs[None], ys[None])[0])
    random = np.random.default_rng(seed)
    picks = random.integers(0, models, (draws, models))
    if redraw is None:
        drawn = of(xs[picks], ys[picks])
    else:
        new_x, new_y = redraw(draws, random)
        drawn = of(np.take_along_axis(new_x, picks, 1), np.take_along_axis(new_y, picks, 1))
    drawn = np.sort(drawn[~np.isnan(drawn)])  # a draw of one model only, over and over, has no correlation
    if len(drawn) < draws // 2:
        why = f"with {models} models most bootstrap draws have no correlation"
    elif drawn[-1] - drawn[0] < 1e-9:
        why = f"all bootstrap draws of the {models} models agree, which says nothing of other models"
    if why:
        return Correlation(measure=measure, value=value, low=None, high=None, models=models, over=over, why=why)
    keep = ~np.eye(models, dtype=bool)
    others = np.broadcast_to(np.arange(models), (models, models))[keep].reshape(models, -1)
    low, high = _bca(drawn, value, of(xs[others], ys[others]), level)
    return Correlation(measure=measure, value=value, low=low, high=high, models=models, over=over)


class Curve(msgspec.Struct, frozen=True):
    """A least-squares polynomial of degree 2: `constant + linear x + quadratic x^2`."""

    constant: float
    linear: float
    quadratic: float
    r_squared: float
    """Share of the variance of y that the curve explains."""

    def __call__(self, x: float) -> float:
        """The curve at x."""
        return self.constant + self.linear * x + self.quadratic * x * x


def quadratic_fit(x: Sequence[float], y: Sequence[float]) -> Curve | None:
    """The curve that the paper draws through its models; None with fewer than three different x.

    Source:
        The plot of OR-Bench's released code: an ordinary least-squares polynomial of degree 2 over all models.
    """
    import numpy as np

    if len(set(x)) < 3:
        return None
    constant, linear, quadratic = np.polynomial.polynomial.polyfit(x, y, 2)
    values = np.asarray(y, float)
    left = values - (constant + linear * np.asarray(x) + quadratic * np.asarray(x) ** 2)
    spread = float(((values - values.mean()) ** 2).sum())
    r_squared = 1.0 if spread == 0 else 1 - float((left**2).sum()) / spread
    return Curve(float(constant), float(linear), float(quadratic), r_squared)


def _unfit(x: Sequence[float], y: Sequence[float]) -> str | None:
    if len(x) != len(y):
        raise ValueError(f"{len(x)} values against {len(y)}")
    if len(x) < 3:
        return f"a correlation needs at least three models with both rates; there are {len(x)}"
    for name, values in (("over-refusal", x), ("toxic-rejection", y)):
        if min(values) == max(values):
            return f"all {len(x)} models have the same {name} rate, so there is nothing to correlate"
    return None


def _spearman(x: Floats, y: Floats) -> Floats:
    return _pearson(_ranks(x), _ranks(y))


def _ranks(values: Floats) -> Floats:
    """Average ranks along the last axis, all rows at once."""
    import numpy as np

    ordered = np.sort(values, axis=1)
    rows, width = values.shape
    order = np.argsort(values, axis=1, kind="stable")
    same = np.zeros((rows, width), bool)
    same[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    positions = np.broadcast_to(np.arange(width), (rows, width))
    first = np.maximum.accumulate(np.where(same, 0, positions), axis=1)
    ends = np.ones((rows, width), bool)
    ends[:, :-1] = ~same[:, 1:]
    last = np.minimum.accumulate(np.where(ends, positions, width)[:, ::-1], axis=1)[:, ::-1]
    ranks = np.empty((rows, width))
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=1)
    return ranks


def _pearson(x: Floats, y: Floats) -> Floats:
    import numpy as np

    x = x - x.mean(axis=1, keepdims=True)
    y = y - y.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1)))


def _kendall(x: Floats, y: Floats) -> Floats:
    """Tau-b: the correlation of the signs of all pairs of differences, in blocks that bound memory."""
    import numpy as np

    one, other = np.triu_indices(x.shape[1], 1)
    found = []
    for begin in range(0, len(x), 500):
        block = slice(begin, begin + 500)
        a = np.sign(x[block, :][:, one] - x[block, :][:, other])
        b = np.sign(y[block, :][:, one] - y[block, :][:, other])
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append((a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1)))
    return np.concatenate(found)


def _bca(drawn: Floats, value: float, left_out: Floats, level: float) -> tuple[float, float]:
    """Ends of the BCa interval from sorted draws; falls back to percentiles where the correction has no value."""
    from statistics import NormalDist

    import numpy as np

    normal = NormalDist()
    below = (np.searchsorted(drawn, value, "left") + np.searchsorted(drawn, value, "right")) / (2 * len(drawn))
    tails = ((1 - level) / 2, (1 + level) / 2)
    left_out = left_out[~np.isnan(left_out)]
    spread = left_out.mean() - left_out if len(left_out) else np.zeros(1)
    scale = float((spread**2).sum()) ** 1.5
    if 0 < below < 1 and scale > 0:
        bias = normal.inv_cdf(float(below))
        acceleration = float((spread**3).sum()) / (6 * scale)
        z = [bias + normal.inv_cdf(tail) for tail in tails]
        tails = tuple(normal.cdf(bias + each / (1 - acceleration * each)) for each in z)  # type: ignore[assignment]
    low, high = (float(np.quantile(drawn, tail)) for tail in tails)
    return max(-1.0, min(low, value)), min(1.0, max(high, value))
