"""Contamination: which prompts of a set are in another set already, and how near.

In: two sets of texts. Out: one `Overlap` for each prompt that is the same as one of the other set, nearly the same, or
shares a long run of words with one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from orbench.errors import UsageError
from orbench.generation.cleaning import comparable, normalised, words
from orbench.statistics.nearest import nearest

LIKENESS = 0.6
"""Share of words from which two prompts count as nearly the same: lower than in cleaning, for a report should show too
much rather than too little. Rewrites of one seed are seldom further apart."""
RUN = 8
"""Words in a row that two prompts must share.

Between the released Hard-1K and Toxic 8 words find 35 prompts that are not nearly the same; 6 words find 178, by turns
of phrase alone (benchmarks/duplicates.py prints it). Longer runs, as of 13 words for pages of text (Brown et al.,
NeurIPS 2020, appendix C), would be most of a prompt.
"""


class Likeness(StrEnum):
    """How a prompt is in the other set."""

    EXACT = "exact"
    NEAR = "near"
    RUN = "run of words"


class Overlap(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt that is in the other set."""

    prompt: int
    """Its place, from 0."""
    other: int
    """Place of the one in the other set that it is nearest to."""
    how: Likeness
    """The strongest that holds."""
    likeness: float
    """Shared words over all words of both, 0 to 1."""
    run: int
    """The longest run of words that both share."""


def overlap(
    prompts: Sequence[str], others: Sequence[str], *, likeness: float = LIKENESS, run: int = RUN
) -> list[Overlap]:
    """Find the prompts of a set that are in another set.

    Args:
        prompts: The set, such as a generated split.
        others: The set it must not hold, such as a released split or training data.
        likeness: Shared words over all words from which two are nearly the same, above 0 to 1.
        run: Words in a row that count as overlap, at least 2; a prompt of fewer words has none.

    No pair is missed, whatever the sets are like (docs/dataset-quality.md says how long it takes).

    Returns:
        The prompts that overlap, the nearest first: the same, then by likeness, then by the length of the run.

    Raises:
        UsageError: A threshold out of range.
    """
    if not 0 < likeness <= 1 or run < 2:
        raise UsageError(f"likeness is {likeness} and run is {run}: above 0 to 1, and at least 2")
    exact: dict[str, int] = {}
    for place, text in enumerate(others):
        exact.setdefault(normalised(text.strip()), place)
    near = nearest([comparable(text) for text in prompts], [comparable(text) for text in others], likeness)
    runs = _Runs(others, run)
    found = []
    for place, text in enumerate(prompts):
        same = exact.get(normalised(text.strip()))
        match = near[place]
        if same is not None:
            found.append(_overlap(place, text, same, others[same], Likeness.EXACT))
        elif match is not None:
            found.append(_overlap(place, text, match[0], others[match[0]], Likeness.NEAR))
        elif (other := runs.longest(text)) is not None:
            found.append(_overlap(place, text, other, others[other], Likeness.RUN))
    order = list(Likeness)
    return sorted(found, key=lambda each: (order.index(each.how), -each.likeness, -each.run, each.prompt))


def counts(found: Sequence[Overlap]) -> dict[str, int]:
    """How many prompts overlap in each way, also the ways of none."""
    ways = Counter(each.how for each in found)
    return {way.value: ways[way] for way in Likeness}


def _overlap(place: int, text: str, other: int, other_text: str, how: Likeness) -> Overlap:
    one, two = set(comparable(text).split()), set(comparable(other_text).split())
    return Overlap(
        prompt=place,
        other=other,
        how=how,
        likeness=1.0 if how is Likeness.EXACT else len(one & two) / len(one | two),
        run=_longest_common_run(words(text), words(other_text)),
    )


def _longest_common_run(one: Sequence[str], other: Sequence[str]) -> int:
    best = 0
    before = [0] * (len(other) + 1)
    for word in one:
        row = [0] * (len(other) + 1)
        for at, word_of_other in enumerate(other):
            if word == word_of_other:
                row[at + 1] = before[at] + 1
        best = max(best, *row)
        before = row
    return best


class _Node:
    """The places in a set of texts where one run of words ends, and the runs that are a word longer, made as needed."""

    def __init__(self) -> None:
        self.places: list[tuple[int, int]] = []
        """(text, the word behind the run), in the order of the texts."""
        self._longer: dict[str, _Node] | None = None

    def longer(self, word: str, texts: Sequence[Sequence[str]]) -> _Node | None:
        """The run with one more word."""
        if self._longer is None:
            self._longer = {}
            for text, at in self.places:
                if at < len(texts[text]):
                    self._longer.setdefault(texts[text][at], _Node()).places.append((text, at + 1))
        return self._longer.get(word)


class _Runs:
    """The runs of words of a set, to look up the text that shares the longest."""

    def __init__(self, texts: Sequence[str], run: int) -> None:
        self._run = run
        self._words = [words(text) for text in texts]
        self._nodes: defaultdict[tuple[str, ...], _Node] = defaultdict(_Node)
        for place, own in enumerate(self._words):
            for at in range(run, len(own) + 1):
                self._nodes[tuple(own[at - run : at])].places.append((place, at))

    def longest(self, text: str) -> int | None:
        """The first of the texts that share the longest run, if any has one long enough."""
        own = words(text)
        best, of = 0, None
        for end in range(self._run, len(own) + 1):
            node = self._nodes.get(tuple(own[end - self._run : end]))
            length = self._run
            while node is not None:
                place = node.places[0][0]
                if length > best or (length == best and of is not None and place < of):
                    best, of = length, place
                node = node.longer(own[end], self._words) if end < len(own) else None
                end += 1  # noqa: PLW2901 - the run grows
                length += 1
        return of
