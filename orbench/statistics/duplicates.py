"""Texts that share most of their words, as rewrites of one seed do.

In: texts. Out: the number of the group of each. Used where prompts do not say which seed they were made from.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from orbench.statistics.families import Links

EXACT_UP_TO = 5_000
"""Texts up to which every pair that could be alike is looked at; above, one in 250 pairs at the limit is missed."""

_BANDS, _ROWS = 40, 4
"""Signatures: a pair that shares 0.6 of its words agrees in one of 40 bands of 4 with probability 0.996."""

_MANY = 30_000
_FASTER = 100
"""A matrix of all pairs is quicker from so many pairs to look at, if it is not so many times as large."""
_CELLS = 1_000_000
"""Pairs in a matrix at once."""
_COMMON = 128
"""Words that count as common there."""

_Bag = tuple[int, ...]
"""The numbers of the words of a text, each once."""


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
    vocabulary: dict[str, int] = {}
    bags = [tuple({vocabulary.setdefault(word, len(vocabulary)) for word in text.lower().split()}) for text in texts]
    links = Links[int]()
    hashes = [zlib.crc32(word.encode()) for word in vocabulary]
    several = len(bags) > EXACT_UP_TO
    words, of = frozenset[int](), -1
    if several:
        candidates = _with_common_signature(bags, hashes)
    elif (prefixes := _Prefixes(bags, likeness)).pairs > max(_MANY, len(bags) ** 2 // _FASTER):
        candidates = _that_are_alike(bags, len(vocabulary), likeness, links)
    else:
        candidates = prefixes.candidates()
    for one, other in candidates:
        if links.root(one) != links.root(other):
            words, of = (words, of) if of == one else (frozenset(bags[one]), one)
            if _alike(words, bags[other], likeness):
                links.link(other, one)
    return links.number(range(len(bags)))


def _alike(one: frozenset[int], other: _Bag, likeness: float) -> bool:
    shared = len(one.intersection(other))
    return shared >= likeness * (len(one) + len(other) - shared)


class _Prefixes:
    """The rarest words of each text: so many that two texts that are alike share one of them."""

    def __init__(self, bags: Sequence[_Bag], likeness: float) -> None:
        uses = Counter(word for bag in bags for word in bag)
        self._prefixes = []
        for bag in bags:
            rarest = sorted(bag, key=lambda word: (uses[word], word))
            fewest = max(1, math.ceil(likeness * len(rarest) - 1e-9))  # words that it shares with any that is alike
            self._prefixes.append(rarest[: len(rarest) - fewest + 1])
        times = Counter(word for prefix in self._prefixes for word in prefix)
        self.pairs = sum(number * (number - 1) // 2 for number in times.values())
        """Pairs to look at; one counts for each word in common."""

    def candidates(self) -> Iterator[tuple[int, int]]:
        """Every pair that could be alike."""
        seen: defaultdict[int, list[int]] = defaultdict(list)
        for index, prefix in enumerate(self._prefixes):
            for other in {other for word in prefix for other in seen[word]}:
                yield index, other
            for word in prefix:
                seen[word].append(index)


def _that_are_alike(bags: Sequence[_Bag], words: int, likeness: float, links: Links[int]) -> Iterator[tuple[int, int]]:
    """Of all pairs, compared many at once, those that are alike: each text with one of every group before it."""
    import numpy as np
    from scipy import sparse

    ends = np.cumsum([0, *map(len, bags)])
    places = np.fromiter(itertools.chain.from_iterable(bags), np.int32, count=int(ends[-1]))
    rows = sparse.csr_matrix((np.ones(len(places), np.float32), places, ends), shape=(len(bags), words))
    # Most words that two texts share are the commonest: a small dense product counts those, a sparse one the rest.
    commonest_first = np.argsort(-np.bincount(places, minlength=words), kind="stable")
    common = rows[:, commonest_first[:_COMMON]].toarray()
    rare = rows[:, commonest_first[_COMMON:]]
    columns = rare.T.tocsr()
    # Jaccard j: shared >= j / (1 + j) x the sizes of both; a little below, as what is found is looked at again.
    needed = (likeness / (1 + likeness) * np.maximum(np.diff(ends), 1) - 1e-4).astype(np.float32)
    step = max(1, _CELLS // len(bags))
    for start in range(0, len(bags), step):
        stop = min(start + step, len(bags))
        shared = common[start:stop] @ common[:stop].T
        shared += (rare[start:stop] @ columns[:, :stop]).toarray()
        shared -= needed[:stop]
        one, other = np.nonzero(shared >= needed[start:stop, None])
        one += start
        one, other = one[other < one], other[other < one]
        roots = np.fromiter((links.root(index) for index in range(stop)), np.int64, count=stop)
        _, firsts = np.unique(one * len(bags) + roots[other], return_index=True)
        yield from zip(one[firsts].tolist(), other[firsts].tolist(), strict=True)


def _with_common_signature(bags: Sequence[_Bag], hashes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pairs that agree in a band of their signatures: each with the first and the one before it."""
    import numpy as np

    filled = np.array([index for index, bag in enumerate(bags) if bag])
    if not len(filled):
        return
    words = np.fromiter(itertools.chain.from_iterable(bags), np.int32)
    starts = np.cumsum([0, *(len(bags[index]) for index in filled[:-1])])
    of_words = np.array(hashes, np.uint64)
    random = np.random.default_rng(0)
    found = np.zeros(0, np.int64)
    for number in range(_BANDS):
        band = np.zeros(len(filled), np.uint64)
        for _ in range(_ROWS):
            factor, shift, mix = (np.uint64(int(n)) for n in random.integers(1, 2**63, 3, np.uint64) | np.uint64(1))
            values = ((of_words * factor + shift) >> np.uint64(32)).astype(np.uint32)
            band = (band ^ np.minimum.reduceat(values[words], starts)) * mix  # wraps round, as a hash may
        order = np.argsort(band, kind="stable")
        begins = np.append(np.True_, band[order[1:]] != band[order[:-1]])
        first = np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))
        inside = np.flatnonzero(~begins)
        later = filled[order[inside]] * len(bags)
        found = np.concatenate([found, later + filled[order[inside - 1]], later + filled[order[first[inside]]]])
        if number % 10 == 9 or number == _BANDS - 1:  # most pairs agree in many bands; each is looked at once
            found.sort()
            found = found[np.append(np.True_, found[1:] != found[:-1])[: len(found)]]
    for begin in range(0, len(found), 100_000):
        for pair in found[begin : begin + 100_000].tolist():
            yield divmod(pair, len(bags))
