"""Triggers: words and two-word phrases of the prompts that go with refusal.

In: prompts and whether each was refused. Out: the terms whose odds are higher among the refused prompts than among
the answered ones, with intervals. What goes with refusal need not cause it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from orbench.records import Kind
from orbench.statistics.intervals import Z95

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from orbench.results import Evaluation

    Floats = NDArray[np.float64]

PRIOR = 0.1
"""Weight of the prior: it counts as much as a tenth of the words in hand."""
MIN_PROMPTS = 5
"""A term in fewer scored prompts says too little to be looked at."""
_LONGEST = 40
"""Letters; longer runs are encoded data rather than words."""
_BREAK = re.compile(r"[^\w\s'’\-]+")


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """One word or phrase that goes with refusal."""

    text: str
    log_odds: float
    """Log of the odds ratio, refused against answered prompts, drawn towards 0 by the prior."""
    low: float
    """Lower end of its 95 % interval, for this term taken alone; above 0, else the term is not listed."""
    high: float
    z: float
    """`log_odds` over its standard deviation; the order of the list."""
    refused: int
    """Refused prompts that hold it."""
    prompts: int
    """Scored prompts that hold it."""
    sure: bool
    """Still above chance when all terms looked at are reckoned with (Holm, 5 %, two-sided)."""


class Triggers(msgspec.Struct, frozen=True, kw_only=True):
    """What the refused prompts have in common."""

    kind: Kind
    terms: tuple[Trigger, ...]
    """Highest z first."""
    looked_at: int
    """Words and phrases in at least `min_prompts` scored prompts."""
    refused: int
    """Refused prompts."""
    answered: int
    """Answered prompts."""
    why: str | None = None
    """Why there are no terms, in a sentence; None if there are."""

    def __iter__(self) -> Iterator[Trigger]:
        """The terms."""
        return iter(self.terms)

    def __len__(self) -> int:
        """How many terms there are."""
        return len(self.terms)


def triggers(result: Evaluation, kind: Kind = "safe", *, top: int = 20, min_prompts: int = MIN_PROMPTS) -> Triggers:
    """Words and two-word phrases of a run's prompts that go with refusal.

    Args:
        result: The run; its policy says what counts as refused, and what it leaves out is passed over.
        kind: Look at the `safe` or at the `toxic` prompts.
        top: At most so many terms.
        min_prompts: Terms in fewer scored prompts are not looked at.

    Raises:
        orbench.RunError: The run folder cannot be read.
    """
    texts, refused = [], []
    for row in result.rows():
        if row.kind == kind and row.refused is not None:
            texts.append(row.prompt)
            refused.append(row.refused)
    return find_triggers(texts, refused, kind=kind, top=top, min_prompts=min_prompts)


def find_triggers(
    prompts: Sequence[str],
    refused: Sequence[bool],
    *,
    kind: Kind = "safe",
    top: int = 20,
    min_prompts: int = MIN_PROMPTS,
) -> Triggers:
    """The same for any prompts.

    A prompt counts a term once, however often it holds it. Words are compared without case; phrases do not reach
    across punctuation. A term is listed if its interval lies above 0, a phrase only if it also lies above the
    estimates of both its words, so that it says more than they do. A word that occurs in one phrase only gives way to
    the phrase.

    Args:
        prompts: Their texts.
        refused: For each whether it was refused.
        kind: What they are; echoed.
        top: At most so many terms.
        min_prompts: Terms in fewer prompts are not looked at.

    Source:
        B. Monroe, M. Colaresi, K. Quinn, "Fightin' Words", Political Analysis 16 (2008) 372: log-odds ratio with an
        informative Dirichlet prior, here proportional to the terms' counts in both groups (`PRIOR`). S. Holm, Scand.
        J. Stat. 6 (1979) 65 for `sure`.
    """
    hits = sum(map(bool, refused))
    empty = Triggers(kind=kind, terms=(), looked_at=0, refused=hits, answered=len(prompts) - hits)
    if not prompts:
        return msgspec.structs.replace(empty, why=f"No {kind} prompt has an outcome that counts.")
    if hits in (0, len(prompts)):
        what = "refused" if hits else "answered"
        why = f"All {len(prompts):,} scored {kind} prompts were {what}, so there is nothing to compare."
        return msgspec.structs.replace(empty, why=why)
    shared: dict[str, str] = {}  # one string a word, however often it stands
    texts = [[[shared.setdefault(word, word) for word in words] for words in _clauses(prompt)] for prompt in prompts]
    words = _count(texts, refused, min_prompts, None)
    phrases = _count(texts, refused, min_prompts, words.counts.keys())
    found = _mark_sure({**_weigh(words), **_weigh(phrases)})
    if not found:
        why = f"No word stands in {min_prompts} or more of the scored {kind} prompts beside others."
        return msgspec.structs.replace(empty, why=why)
    kept = {term: trigger for term, trigger in found.items() if trigger.low > 0 and _says_more(term, found)}
    swallowed = {
        (word,)
        for phrase in kept
        if len(phrase) > 1
        for word in phrase
        if (found[word,].prompts, found[word,].refused) == (kept[phrase].prompts, kept[phrase].refused)
    }
    listed = [trigger for term, trigger in kept.items() if term not in swallowed]
    terms = tuple(sorted(listed, key=lambda trigger: (-trigger.z, trigger.text))[:top])
    nothing = None if terms else f"No word or phrase of the {kind} prompts goes with refusal beyond chance."
    return msgspec.structs.replace(empty, terms=terms, looked_at=len(found), why=nothing)


class LogOdds(msgspec.Struct, frozen=True):
    """Estimates of `log_odds`, one a term."""

    value: Floats
    deviation: Floats


def log_odds(first: Floats, second: Floats, first_total: float, second_total: float, prior: float = PRIOR) -> LogOdds:
    """Log-odds ratio of terms between two groups, with an informative Dirichlet prior, and its standard deviation.

    Args:
        first: Count of each term in the first group.
        second: Count of each in the second; no term is 0 in both.
        first_total: Count of all terms in the first group, those not given included.
        second_total: The same of the second.
        prior: Weight of the prior relative to the data, above 0.

    Source:
        Monroe, Colaresi and Quinn (see `find_triggers`): the estimate, and the variance approximated by the sum of
        the reciprocals of both smoothed counts.
    """
    import numpy as np

    alpha = prior * (first + second)
    alphas = prior * (first_total + second_total)
    a, b = first + alpha, second + alpha
    value = np.log(a / (first_total + alphas - a)) - np.log(b / (second_total + alphas - b))
    return LogOdds(value, np.sqrt(1 / a + 1 / b))


Term = tuple[str, ...]


class _Counts(msgspec.Struct):
    counts: dict[Term, tuple[int, int]]
    """Term to refused and answered prompts that hold it."""
    refused: int
    """Terms in refused prompts, rare ones included."""
    answered: int


def _count(
    texts: Sequence[Sequence[Sequence[str]]], refused: Sequence[bool], least: int, known: Container[Term] | None
) -> _Counts:
    """Words of the texts' clauses, or, where the frequent words are known, phrases of two of them."""
    held: Counter[Term] = Counter()
    hit: Counter[Term] = Counter()
    totals = [0, 0]
    for clauses, was_refused in zip(texts, refused, strict=True):
        terms: set[Term] = set()
        for words in clauses:
            terms.update(pairwise(words) if known is not None else ((word,) for word in words))
        totals[bool(was_refused)] += len(terms)
        if known is not None:
            terms = {term for term in terms if term[:1] in known and term[1:] in known}
        held.update(terms)
        if was_refused:
            hit.update(terms)
    counts = {term: (hit[term], number - hit[term]) for term, number in held.items() if number >= least}
    return _Counts(counts, totals[True], totals[False])


def _clauses(text: str) -> Iterator[list[str]]:
    """The words of each stretch without punctuation."""
    for stretch in _BREAK.split(text.casefold().replace("’", "'")):
        words = [word for raw in stretch.split() if (word := raw.strip("'-_")) and len(word) <= _LONGEST]
        if words:
            yield words


def _weigh(counted: _Counts) -> dict[Term, Trigger]:
    import numpy as np

    if not counted.counts or sum(counted.counts[next(iter(counted.counts))]) == counted.refused + counted.answered:
        return {}  # nothing, or one term only, which has no odds against others
    table = np.array(list(counted.counts.values()), float)
    found = log_odds(table[:, 0], table[:, 1], counted.refused, counted.answered)
    return {
        term: Trigger(
            text=" ".join(term),
            log_odds=value,
            low=value - Z95 * deviation,
            high=value + Z95 * deviation,
            z=value / deviation,
            refused=hits,
            prompts=hits + misses,
            sure=False,
        )
        for (term, (hits, misses)), value, deviation in zip(
            counted.counts.items(), found.value.tolist(), found.deviation.tolist(), strict=True
        )
    }


def _mark_sure(found: dict[Term, Trigger]) -> dict[Term, Trigger]:
    """Holm's step-down over all terms looked at."""
    marked = dict(found)
    for rank, term in enumerate(sorted(found, key=lambda term: -abs(found[term].z))):
        if math.erfc(abs(found[term].z) / math.sqrt(2)) > 0.05 / (len(found) - rank):
            break
        marked[term] = msgspec.structs.replace(found[term], sure=True)
    return marked


def _says_more(term: Term, found: dict[Term, Trigger]) -> bool:
    """Whether a phrase tells more of refusal than its words, or stands for one that occurs nowhere else."""
    if len(term) == 1:
        return True
    phrase = found[term]
    parts = [found[word,] for word in term]
    beyond = max((part.log_odds for part in parts if part.prompts != phrase.prompts), default=0.0)
    only_here = any(part.prompts == phrase.prompts for part in parts)
    return phrase.low > beyond or (only_here and phrase.log_odds >= beyond)
