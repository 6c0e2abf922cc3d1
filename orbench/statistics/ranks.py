"""Which ranks the data allow each model, and which models cannot be told apart.

In: for every pair of models whether they differ. Out: ranks with intervals, groups of neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Rank(msgspec.Struct, frozen=True, kw_only=True):
    """The place of one model, 1 for the best."""

    rank: int
    """By the estimate alone; models with equal estimates share the better rank."""
    low: int
    """Best rank that the data allow."""
    high: int
    """Worst rank that they allow."""
    groups: tuple[int, ...]
    """Numbers, counted from 1, of the groups of models that cannot be told apart which this one belongs to."""


def ranks(values: Sequence[float], differ: Sequence[Sequence[bool | None]], *, smallest_first: bool) -> list[Rank]:
    """Rank intervals and groups from all pairwise comparisons.

    A model's rank is at least one more than the models that are better for sure, and at most the number of models
    less those that are worse for sure. If the comparisons keep a familywise level (Holm), all intervals hold the
    true ranks at once with that confidence.

    A group is a longest stretch of neighbours, in the order of the estimates, no two of which differ or are unknown to.

    Args:
        values: One rate a model.
        differ: Whether models i and j differ for sure; None where nothing says so, which is no likeness either.
            Symmetric, with False for a model and itself.
        smallest_first: Whether the smallest rate is the best.

    Source:
        M. Mogstad, J. Romano, A. Shaikh, D. Wilhelm, Rev. Econ. Stud. 91 (2024) 476 for the intervals; H.-P. Piepho,
        J. Comput. Graph. Stat. 13 (2004) 456 for groups as letters.
    """
    count = len(values)
    keys = [value if smallest_first else -value for value in values]
    order = sorted(range(count), key=keys.__getitem__)
    groups: list[list[int]] = [[] for _ in range(count)]
    number = 0
    reached = -1
    for begin in range(count):
        end = begin
        while end + 1 < count and all(differ[order[end + 1]][order[i]] is False for i in range(begin, end + 1)):
            end += 1
        if end > reached:
            number += 1
            reached = end
            for place in range(begin, end + 1):
                groups[order[place]].append(number)
    found = []
    for i in range(count):
        better = sum(bool(differ[i][j]) and keys[j] < keys[i] for j in range(count))
        worse = sum(bool(differ[i][j]) and keys[j] > keys[i] for j in range(count))
        rank = 1 + sum(keys[j] < keys[i] for j in range(count))
        found.append(Rank(rank=rank, low=1 + better, high=count - worse, groups=tuple(groups[i])))
    return found
