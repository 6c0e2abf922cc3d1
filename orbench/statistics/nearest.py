"""For each text of one set, the text of another set that is most alike.

In: two sets of texts. Out: places and likenesses. Used to find what a new set shares with one that is published.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

_Bag = frozenset[str]


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
