"""How far several readers of the same replies agree: Krippendorff's alpha."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np


def krippendorff_alpha(units: Sequence[Sequence[Hashable | None]]) -> float | None:
    """Krippendorff's alpha for labels without an order.

    Args:
        units: For each reply the label of each reader, None where there is none. A reply with fewer than two
            labels says nothing about agreement and is passed over.

    Returns:
        1 for perfect agreement, 0 for what chance would give, below for worse; None where it is not defined:
        fewer than two labels to compare, or one and the same label throughout.

    Source:
        K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section C and its example.
    """
    labels = sorted({label for unit in units for label in unit if label is not None}, key=repr)
    number = {label: i for i, label in enumerate(labels)}
    coincidences = np.zeros((len(labels), len(labels)))
    for unit in units:
        counts = Counter(number[label] for label in unit if label is not None)
        size = counts.total()
        if size < 2:
            continue
        for one, times in counts.items():
            for other, again in counts.items():
                coincidences[one, other] += times * (again - (one == other)) / (size - 1)
    totals = coincidences.sum(axis=1)
    n = totals.sum()
    expected = n * n - (totals**2).sum()
    if n < 2 or expected == 0:
        return None
    return float(1 - (n - 1) * (n - np.trace(coincidences)) / expected)
