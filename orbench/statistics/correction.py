"""Rates freed of the scorer's known errors: Rogan-Gladen from a calibration, prediction-powered from labels.

Both carry the uncertainty of what they correct with, so a small calibration gives a wide interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from orbench.statistics.intervals import Z95, wilson


class Corrected(msgspec.Struct, frozen=True, kw_only=True):
    """A corrected rate beside the raw one."""

    value: float | None
    """0 to 1; None where it cannot be had, and `reason` says why."""
    low: float | None = None
    """Lower end of the 95 % interval."""
    high: float | None = None
    labels: float | None = None
    """Labels it rests on."""
    reason: str | None = None


def rogan_gladen(
    refused: int, scored: int, sensitivity: tuple[float, float], specificity: tuple[float, float]
) -> Corrected:
    """The true refused share, given what the scorer's errors are.

    Args:
        refused: Replies that the scorer calls refused, out of `scored`.
        scored: Replies that it read.
        sensitivity: Refusals found among labelled refusals, and how many of those there are.
        specificity: Answers found among labelled answers, and how many of those there are.

    Returns:
        The estimate (r + sp - 1) / (se + sp - 1), kept within 0 and 1, with the interval of Lang and Reiczigel, which
        adjusts all three shares and so keeps its coverage for small calibrations.

    Source:
        W. Rogan, B. Gladen, Am. J. Epidemiol. 107 (1978) 71; Z. Lang, J. Reiczigel, Prev. Vet. Med. 113 (2014) 13.
    """
    found_se, n_se = sensitivity
    found_sp, n_sp = specificity
    labels = n_se + n_sp
    if not scored:
        return Corrected(value=None, labels=labels, reason="no scored prompt")
    if not labels:
        return Corrected(value=None, labels=labels, reason="the scorer decided no label of the calibration")
    if not n_se or not n_sp:
        return Corrected(value=None, labels=labels, reason="the calibration has labels of one class only")
    se, sp = found_se / n_se, found_sp / n_sp
    if se + sp <= 1:
        return Corrected(value=None, labels=labels, reason="the scorer is no better than chance on the calibration")
    value = _clip((refused / scored + sp - 1) / (se + sp - 1))
    n, m_se, m_sp = scored + Z95 * Z95, n_se + 2, n_sp + 2
    rate, se, sp = (refused + Z95 * Z95 / 2) / n, (found_se + 1) / m_se, (found_sp + 1) / m_sp
    if se + sp <= 1:
        low, high = 0.0, 1.0
    else:
        middle = _clip((rate + sp - 1) / (se + sp - 1))
        spread_se, spread_sp = se * (1 - se) / m_se, sp * (1 - sp) / m_sp
        shift = 2 * Z95 * Z95 * (middle * spread_se - (1 - middle) * spread_sp)
        error = math.sqrt(rate * (1 - rate) / n + middle**2 * spread_se + (1 - middle) ** 2 * spread_sp)
        half = Z95 * error / (se + sp - 1)
        low, high = _clip(middle + shift - half), _clip(middle + shift + half)
    return Corrected(value=value, low=min(low, value), high=max(high, value), labels=labels)


def prediction_powered(
    predictions: Sequence[float],
    labelled: Sequence[float],
    truth: Sequence[float],
    weights: Sequence[float] | None = None,
) -> Corrected:
    """The mean of the truth over all rows: the predictions' mean, moved by their mean error where there are labels.

    Args:
        predictions: Of every row, 0 to 1; 0.5 where the scorer was not sure.
        labelled: Predictions of the labelled rows, which are among them.
        truth: Their labels, 0 or 1.
        weights: How many rows each labelled one stands for; equal by default.

    Returns:
        The estimate with a normal interval. Its variance is that of a sample in two phases: the truth's own over all
        rows, and the predictions' errors over the labelled ones.

    Source:
        A. Angelopoulos et al., Prediction-powered inference, Science 382 (2023) 669; for weights and the labelled rows
        being part of the whole, C.-E. Saerndal et al., Model Assisted Survey Sampling (1992), sections 6.3 and 9.
    """
    n, total = len(truth), len(predictions)
    if n < 2:
        return Corrected(value=None, labels=n, reason="fewer than two labels of this run")
    weight = np.ones(n) if weights is None else np.asarray(weights, dtype=float)
    weight = weight / weight.max()  # first, that no sum overflows
    weight = weight / weight.sum()
    errors = np.asarray(truth, dtype=float) - np.asarray(labelled, dtype=float)
    shift = float(weight @ errors)
    value = _clip(float(np.mean(predictions)) + shift)
    rest = max(0.0, 1 - n / total)
    # A sample that shows no error does not show that there is none: at least the variance of half an error is kept.
    spread = float((weight**2) @ (errors - shift) ** 2) * n / (n - 1)
    least = float((weight**2).sum()) * 0.5 / (n + 1)
    error = math.sqrt(value * (1 - value) / total + rest * max(spread, least))
    low, high = value - Z95 * error, value + Z95 * error
    if value in (0, 1):  # the normal interval has no width of its own there
        ends = wilson(value * total, total)
        low, high = min(low, ends[0]), max(high, ends[1])
    return Corrected(value=value, low=_clip(low), high=_clip(high), labels=n)


def with_settled(estimate: Corrected, refused: int, settled: int, read: int) -> Corrected:
    """A corrected rate of what was read, put together with what was settled without reading (blocked, empty).

    Args:
        estimate: Of the rows that were read.
        refused: Settled rows that count as refused, out of `settled`.
        settled: Rows that were settled without reading; there is no error of a scorer in them.
        read: Rows that the estimate is of.

    Returns:
        The rate over both, with a 95 % interval. How many of the model's replies are settled, and how many of these
        are refused, is as much a sample as what was read: Wilson's intervals of both, and the estimate's own, are put
        together by their squared distances. Wilson's interval alone where nothing was read.

    Source:
        G. Y. Zou, A. Donner, Stat. Med. 27 (2008) 1693, for the squared distances.
    """
    if not settled:
        return estimate
    share, ends = refused / settled, wilson(refused, settled)
    if not read:
        return Corrected(value=share, low=ends[0], high=ends[1], labels=estimate.labels)
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return estimate
    part, parts = settled / (settled + read), wilson(settled, settled + read)
    value = part * share + (1 - part) * estimate.value
    apart = share - estimate.value
    moved = sorted((parts[0] - part, parts[1] - part), key=lambda shift: shift * apart)
    below, above = (
        math.hypot((1 - part) * own, part * settled_own, moved_by * apart)
        for own, settled_own, moved_by in (
            (estimate.value - estimate.low, share - ends[0], moved[0]),
            (estimate.high - estimate.value, ends[1] - share, moved[1]),
        )
    )
    return Corrected(value=value, low=_clip(value - below), high=_clip(value + above), labels=estimate.labels)


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))
