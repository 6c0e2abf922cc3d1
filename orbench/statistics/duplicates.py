"""Texts that share most of their words, as rewrites of one seed do.

In: texts. Out: the number of the group of each, or the nearest text of another set. Used where prompts do not say which
seed they were made from, in cleaning, and for overlap.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

EXACT_UP_TO = 5_000
"""Texts up to which every pair that could be alike is looked at; above, one in 250 pairs at the limit is missed."""

_BANDS, _ROWS = 40, 4
"""Signatures: a pair that shares 0.6 of its words agrees in one of 40 bands of 4 with probability 0.996."""

_Bag = frozenset[str]


def near_duplicates(texts: Sequence[str], likeness: float = 0.6) -> list[int]:
    """Group texts that share most of their words; what is linked through others is one group.

    Args:
        texts: Any number; words are parted by blanks, letter case does not matter.
        likeness: Shared words over all words of both (Jaccard) from which two texts belong together, above 0 to 1.

    Returns:
        For each text the number of its group, counted from 0 in the order of first appearance.

    Source:
        P. Jaccard, New Phytol. 11 (1912) 37. Candidates: R. Bayardo, Y. Ma, R. Srikant, WWW 2007 (two texts that are
        alike share one of their rarest words); for many texts A. Broder, Compression and Complexity of Sequences
        1997 (minima of hashed words), in bands.
    """
    bags = [frozenset(text.lower().split()) for text in texts]
    parent = list(range(len(bags)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for one, other in _with_common_signature(bags) if len(bags) > EXACT_UP_TO else _with_common_words(bags, likeness):
        if root(one) != root(other) and _alike(bags[one], bags[other], likeness):
            parent[root(one)] = root(other)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(index), len(numbers)) for index in range(len(bags))]


def nearest(texts: Sequence[str], others: Sequence[str], likeness: float = 0.6) -> list[tuple[int, float] | None]:
    """For each text the most alike of others, if it is alike enough; no pair is missed.

    Args:
        texts: Any number; words as in `near_duplicates`.
        others: What they are compared with.
        likeness: Jaccard of the words from which two texts count, above 0 to 1.

    Returns:
        For each text the place of the first most alike one among `others` and their likeness, or None.

    Source:
        As for few texts in `near_duplicates`.
    """
    bags, known = ([frozenset(text.lower().split()) for text in each] for each in (texts, others))
    uses = Counter(word for bag in known for word in bag)
    # A text is alike to another only if it has at least `likeness` times as many words; so by prefix and size.
    by_word: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for place, bag in enumerate(known):
        for word in _rarest(bag, uses, likeness):
            by_word[word, len(bag)].append(place)
    found: list[tuple[int, float] | None] = []
    compared: dict[_Bag, tuple[int, float] | None] = {}
    for bag in bags:
        if bag not in compared:
            sizes = range(math.ceil(likeness * len(bag) - 1e-9), math.floor(len(bag) / likeness + 1e-9) + 1)
            candidates = {
                place
                for word in _rarest(bag, uses, likeness)
                for size in sizes
                for place in by_word.get((word, size), ())
            }
            best = max(((_jaccard(bag, known[place]), -place) for place in candidates), default=(0.0, 0))
            compared[bag] = (-best[1], best[0]) if best[0] >= likeness else None
        found.append(compared[bag])
    return found


def _rarest(bag: _Bag, uses: Mapping[str, int], likeness: float) -> list[str]:
    """The rarest words of a text: so many that it shares one of them with the rarest of every text that is alike."""
    rarest = sorted(bag, key=lambda word: (uses.get(word, 0), word))
    fewest = max(1, math.ceil(likeness * len(rarest) - 1e-9))  # words that it shares with any that is alike
    return rarest[: len(rarest) - fewest + 1]


def _jaccard(one: _Bag, other: _Bag) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def _alike(one: _Bag, other: _Bag, likeness: float) -> bool:
    shared = len(one & other)
    return shared >= likeness * (len(one) + len(other) - shared)


def _with_common_words(bags: Sequence[_Bag], likeness: float) -> Iterator[tuple[int, int]]:
    """Every pair that could be alike: those that share one of the rarest words of each."""
    uses = Counter(word for bag in bags for word in bag)
    seen: defaultdict[str, list[int]] = defaultdict(list)
    for index, bag in enumerate(bags):
        prefix = _rarest(bag, uses, likeness)
        for other in {other for word in prefix for other in seen[word]}:
            yield index, other
        for word in prefix:
            seen[word].append(index)


def _with_common_signature(bags: Sequence[_Bag]) -> Iterator[tuple[int, int]]:
    """Pairs that agree in a band of their signatures: each with the first and the one before it."""
    import numpy as np

    filled = np.array([index for index, bag in enumerate(bags) if bag])
    if not len(filled):
        return
    words = np.array([zlib.crc32(word.encode()) for index in filled for word in bags[index]], np.uint64)
    starts = np.cumsum([0, *(len(bags[index]) for index in filled[:-1])])
    random = np.random.default_rng(0)
    for _ in range(_BANDS):
        band = np.zeros(len(filled), np.uint64)
        for _ in range(_ROWS):
            factor, shift, mix = (np.uint64(int(n)) for n in random.integers(1, 2**63, 3, np.uint64) | np.uint64(1))
            least = np.minimum.reduceat((words * factor + shift) >> np.uint64(16), starts)
            band = (band ^ least) * mix  # wraps round, as a hash may
        order = np.argsort(band, kind="stable")
        same = band[order[1:]] == band[order[:-1]]
        first = 0
        for place in np.flatnonzero(same).tolist():
            if place == 0 or not same[place - 1]:
                first = place
            yield int(filled[order[place + 1]]), int(filled[order[place]])
            yield int(filled[order[place + 1]]), int(filled[order[first]])
