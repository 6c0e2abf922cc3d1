"""For each text of one set, the text of another set that is most alike.

In: two sets of texts. Out: places and likenesses. Used to find what a new set shares with one that is published.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_Bag = frozenset[str]
_Found = tuple[int, float] | None
_FASTER = 50
"""How many times faster a pair is compared in a matrix of all pairs than by itself."""
_CELLS = 500_000
"""Pairs in a matrix at once."""


def nearest(texts: Sequence[str], others: Sequence[str], likeness: float = 0.6) -> list[tuple[int, float] | None]:
    """For each text the most alike of others, if it is alike enough; no pair is missed.

    Args:
        texts: Any number; words as in `near_duplicates` of `orbench.statistics.duplicates`.
        others: What they are compared with.
        likeness: Jaccard of the words from which two texts count, above 0 to 1.

    Returns:
        For each text the place of the first most alike one among `others` and their likeness, or None.

    Source:
        As for few texts in `orbench.statistics.duplicates.near_duplicates`.
    """
    bags, known = ([frozenset(text.lower().split()) for text in each] for each in (texts, others))
    uses = Counter(word for bag in known for word in bag)
    # A text is alike to another only if it has at least `likeness` times as many words; so by prefix and size.
    by_word: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for place, bag in enumerate(known):
        for word in _rarest(bag, uses, likeness):
            by_word[word, len(bag)].append(place)
    compared: dict[_Bag, _Found] = {}
    crowded: list[_Bag] = []
    for bag in dict.fromkeys(bags):
        sizes = range(math.ceil(likeness * len(bag) - 1e-9), math.floor(len(bag) / likeness + 1e-9) + 1)
        entries = [by_word.get((word, size), ()) for word in _rarest(bag, uses, likeness) for size in sizes]
        if sum(map(len, entries)) * _FASTER > len(known):
            crowded.append(bag)
            continue
        candidates = {place for entry in entries for place in entry}
        best = max(((_jaccard(bag, known[place]), -place) for place in candidates), default=(0.0, 0))
        compared[bag] = (-best[1], best[0]) if best[0] >= likeness else None
    if crowded:
        compared.update(zip(crowded, _of_all(crowded, known, likeness), strict=True))
    return [compared[bag] for bag in bags]


def _of_all(bags: Sequence[_Bag], known: Sequence[_Bag], likeness: float) -> Iterator[_Found]:
    """The same by comparing every pair, many at once: for texts that share rare words with many of the others."""
    import numpy as np

    words = {word: number for number, word in enumerate({word for bag in known for word in bag})}
    sizes = np.array([len(bag) for bag in known], np.float64)
    columns = _incidence(known, words).T.tocsr()
    step = max(1, _CELLS // len(known))
    for start in range(0, len(bags), step):
        part = bags[start : start + step]
        shared = (_incidence(part, words) @ columns).toarray()
        of = np.array([len(bag) for bag in part], np.float64)[:, None]
        alike = shared / (of + sizes - shared)
        places = alike.argmax(axis=1)
        for row, place in enumerate(places.tolist()):
            best = float(alike[row, place])
            yield (place, best) if best >= likeness else None


def _incidence(bags: Sequence[_Bag], words: Mapping[str, int]) -> Any:
    """A row for each text, with a one for each of its words that has a column."""
    import numpy as np
    from scipy import sparse

    rows = [[words[word] for word in bag if word in words] for bag in bags]
    ends = np.cumsum([0, *map(len, rows)])
    places = np.fromiter((word for row in rows for word in row), np.int64, count=int(ends[-1]))
    return sparse.csr_matrix((np.ones(len(places)), places, ends), shape=(len(bags), len(words)))


def _rarest(bag: _Bag, uses: Mapping[str, int], likeness: float) -> list[str]:
    """The rarest words of a text: so many that it shares one of them with the rarest of every text that is alike."""
    rarest = sorted(bag, key=lambda word: (uses.get(word, 0), word))
    fewest = max(1, math.ceil(likeness * len(rarest) - 1e-9))  # words that it shares with any that is alike
    return rarest[: len(rarest) - fewest + 1]


def _jaccard(one: _Bag, other: _Bag) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)
