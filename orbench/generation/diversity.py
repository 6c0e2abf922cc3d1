"""How diverse prompts are: distinct-n and self-BLEU, by category, beside the paper's figures.

In: texts and their categories. Out: a row for each category and one for all. Both measures hang on how many prompts
are looked at, so each row is of a seeded sample of one size, as the paper's are.
"""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from orbench import published
from orbench.generation.cleaning import words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLE = 1000
"""Prompts of a category that are looked at (section 4.5)."""
RUNS = 3
"""Samples that are drawn where there are more prompts (section 4.5)."""
_ORDER = 4
_EPSILON = 0.1


class DiversityRow(msgspec.Struct, frozen=True, kw_only=True):
    """The diversity of the prompts of one category, or of all."""

    category: str | None
    """None for all together, which the paper does not give."""
    prompts: int
    sample: int
    """Prompts looked at in each run; figures of samples of other sizes cannot be compared."""
    runs: int
    distinct: tuple[float | None, float | None, float | None]
    """Of all runs of 1, 2 and 3 words in the sample the share that are different, 0 to 1; higher is more diverse."""
    self_bleu: float | None
    """0 to 1; lower is more diverse. None for fewer than two prompts."""
    spread: float | None
    """Standard deviation of self-BLEU over the runs; None for one run."""
    paper_self_bleu: tuple[float, float] | None
    """The paper's for this category, of Hard-1K and of 1,000 of the 80K; over the ten categories 0.31 to 0.44.

    The two hardly differ though Hard-1K has 41 to 527 prompts a category, so the paper's was computed in another way:
    compare the order of the categories, not the level.
    """


def diversity(
    texts: Sequence[str], categories: Sequence[str], *, sample: int = SAMPLE, runs: int = RUNS, seed: int = 0
) -> list[DiversityRow]:
    """Measure diversity by category, and of all prompts together in the last row.

    Args:
        texts: The prompts.
        categories: The category of each.
        sample: Prompts looked at in each run.
        runs: Samples drawn where there are more prompts than that; the measures are their means.
        seed: Draws the samples.

    Source:
        Distinct-n: J. Li et al., NAACL 2016. Self-BLEU: Y. Zhu et al., SIGIR 2018 (Texygen). The paper's: OR-Bench,
        section 4.5, Tables 3 and 11.
    """
    by_category: dict[str | None, list[list[str]]] = {}
    everything = []
    for text, category in zip(texts, categories, strict=True):
        everything.append(words(text))
        by_category.setdefault(category, []).append(everything[-1])
    by_category[None] = everything
    paper = [published.diversity("hard-1k"), published.diversity("80k")]
    rows = []
    for name, tokens in by_category.items():
        drawn = _samples(tokens, sample, runs, f"{seed} {name}")
        blues = [statistics.fmean(scores) for each in drawn if (scores := self_bleu(each))]
        known = name is not None and all(name in table for table in paper)
        rows.append(
            DiversityRow(
                category=name,
                prompts=len(tokens),
                sample=len(drawn[0]),
                runs=len(drawn),
                distinct=(_distinct(drawn, 1), _distinct(drawn, 2), _distinct(drawn, 3)),
                self_bleu=statistics.fmean(blues) if blues else None,
                spread=statistics.stdev(blues) if len(blues) > 1 else None,
                paper_self_bleu=(paper[0][name].self_bleu, paper[1][name].self_bleu) if name and known else None,
            )
        )
    return rows


def _samples(tokens: list[list[str]], sample: int, runs: int, seed: str) -> list[list[list[str]]]:
    if len(tokens) <= sample:
        return [tokens]
    draw = random.Random(seed)
    return [draw.sample(tokens, sample) for _ in range(runs)]


def _distinct(drawn: Sequence[Sequence[Sequence[str]]], order: int) -> float | None:
    shares = [share for each in drawn if (share := distinct(each, order)) is not None]
    return statistics.fmean(shares) if shares else None


def distinct(tokens: Sequence[Sequence[str]], order: int) -> float | None:
    """Distinct-n: different runs of `order` words over all runs, 0 to 1; None if no text is long enough.

    Args:
        tokens: The words of each text; a run never goes from one text into the next.
        order: Words in a run, at least 1.
    """
    runs = [run for each in tokens for run in _runs(each, order)]
    return len(set(runs)) / len(runs) if runs else None


def self_bleu(tokens: Sequence[Sequence[str]]) -> list[float]:
    """BLEU-4 of each text against all the others as references; self-BLEU is its mean.

    Equal weights for runs of one to four words; smoothing method 1 of Chen and Cherry (WMT 2014): a run length without
    a match counts 0.1 matches; a text that shares no word with another has 0. The time grows with the number of words,
    not with its square.

    Args:
        tokens: The words of each text.

    Returns:
        One score for each text, 0 to 1; nothing for fewer than two texts.
    """
    if len(tokens) < 2:
        return []
    import numpy as np

    numbers: dict[str, int] = {}
    flat = np.array([numbers.setdefault(word, len(numbers)) for each in tokens for word in each], np.int64)
    lengths = np.array([len(each) for each in tokens])
    text = np.repeat(np.arange(len(tokens)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(flat))  # words from here to the end of the text
    runs = flat.copy()
    logs = np.zeros(len(tokens))
    for order in range(1, _ORDER + 1):
        begins = np.flatnonzero(left >= order)
        if order > 1:  # a run is the one that is a word shorter, and the word after it
            longer = runs[begins] * len(numbers) + flat[begins + order - 1]
            runs[begins] = np.unique(longer, return_inverse=True)[1]
        matches = _matches(text[begins], runs[begins], len(tokens))
        if order == 1:
            without_a_word = matches == 0
        logs += np.log(np.where(matches > 0, matches, _EPSILON) / np.maximum(1, lengths - order + 1)) / _ORDER
    times = Counter(lengths.tolist())
    brevity = {length: _brevity(length, times) for length in times}
    scores = np.where(without_a_word, 0.0, np.exp(logs)) * [brevity[length] for length in lengths.tolist()]
    return [float(score) for score in scores]


def _matches(text: NDArray[np.int64], runs: NDArray[np.int64], texts: int) -> NDArray[np.float64]:
    """For each text how many of its runs the other that uses them most has too; a run and its text stand in a row."""
    import numpy as np

    kinds = int(runs.max(initial=0)) + 1
    pairs, uses = np.unique(text * kinds + runs, return_counts=True)
    owner, run = pairs // kinds, pairs % kinds
    by_use = np.lexsort((-uses, run))
    first = by_use[np.unique(run[by_use], return_index=True)[1]]  # of each run the text that uses it most
    _, place = np.unique(run, return_inverse=True)
    second = np.zeros(len(first), np.int64)
    rest = np.setdiff1d(np.arange(len(run)), first, assume_unique=True)
    np.maximum.at(second, place[rest], uses[rest])
    others = np.where(first[place] == np.arange(len(run)), second[place], uses[first][place])
    return np.bincount(owner, np.minimum(others, uses).astype(np.float64), texts).astype(np.float64)


def _brevity(own: int, lengths: Counter[int]) -> float:
    """Penalty for being shorter than the other whose length is nearest, the shorter of two."""
    others = (length for length, times in lengths.items() if times > (length == own))
    nearest = min(others, key=lambda length: (abs(length - own), length))
    return 1.0 if own > nearest or not own else math.exp(1 - nearest / own)


def _runs(tokens: Sequence[str], order: int) -> list[tuple[str, ...]]:
    return list(zip(*(tokens[at:] for at in range(order)), strict=False))
