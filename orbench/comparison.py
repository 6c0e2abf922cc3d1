"""Two and more runs on the same prompts: `compare`.

In: results, run folders, or `published:NAME`. Out: paired differences with intervals and exact p-values, adjusted
over all pairs, and the prompts that flipped.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from orbench import published
from orbench.comparable import Source, check_comparable, open_source
from orbench.engine.run_folder import read_responses
from orbench.errors import UsageError
from orbench.published import PublishedModel
from orbench.records import Kind
from orbench.results import Evaluation, Key
from orbench.scoring.outcomes import Outcome, is_refused
from orbench.statistics.paired import (
    Pairs,
    holm,
    mcnemar,
    paired_difference,
    unpaired_difference,
    unpaired_test,
)

if TYPE_CHECKING:
    import pandas

    from orbench.report.export import Table

KINDS: tuple[Kind, ...] = ("safe", "toxic")
AXES: Mapping[Kind, str] = {"safe": "over-refusal", "toxic": "toxic rejection"}


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """How the refused shares of two models differ on some prompts; b minus a throughout."""

    kind: Kind
    category: str | None
    """None for all categories together."""
    a: float
    """Refused share of the first model, 0 to 1, on the prompts compared."""
    b: float
    value: float
    """b - a, -1 to 1."""
    low: float
    """Lower end of its 95 % interval: Tango's where prompts are paired, else Newcombe's."""
    high: float
    p: float
    """Exact McNemar where prompts are paired, else the score test of two shares; two-sided."""
    p_holm: float
    """Adjusted over all pairs and both rates of the comparison; for a category over those of its pair and rate."""
    prompts: int | None
    """Prompts that both have a verdict on; None where they are not paired."""
    only_a: int | None
    """Prompts that only the first refused; None where not paired."""
    only_b: int | None


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One pair of a comparison."""

    a: str
    """Label of the first: the model's name, with the folder behind it where two runs are of one model."""
    b: str
    paired: bool
    """Whether prompt by prompt. With published rates it cannot be."""
    over_refusal: Difference | None
    """None if they share no safe prompt with a verdict."""
    toxic_rejection: Difference | None
    categories: tuple[Difference, ...]
    left_out: int
    """Prompts of the shared splits that one or both have no verdict on."""

    @property
    def axes(self) -> tuple[Difference, ...]:
        """The differences there are, over-refusal first."""
        return tuple(found for found in (self.over_refusal, self.toxic_rejection) if found)


class Flip(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt that one model refused and the other answered."""

    split: str
    prompt_id: str
    category: str
    kind: Kind
    refused_by: str
    """Label of the one that refused."""
    outcome_a: Outcome
    outcome_b: Outcome
    prompt: str
    response_a: str
    response_b: str


class Comparison:
    """What `compare` found.

    Attributes:
        labels: A name for each run, in the order given.
        pairs: One for each pair of runs, in that order.
        notes: What should be known beside the numbers, in sentences.
    """

    def __init__(self, sources: Sequence[Source], labels: Sequence[str], pairs: Sequence[Pair], notes: Sequence[str]):
        """Hold what was found; use `compare`."""
        self.labels = tuple(labels)
        self.pairs = tuple(pairs)
        self.notes = tuple(notes)
        self._sources = tuple(sources)

    @property
    def over_refusal(self) -> Difference | None:
        """Difference of the over-refusal rates of the first two."""
        return self.pairs[0].over_refusal

    @property
    def toxic_rejection(self) -> Difference | None:
        """Difference of the toxic rejection rates of the first two."""
        return self.pairs[0].toxic_rejection

    def flips(self, pair: int = 0, category: str | None = None) -> Iterator[Flip]:
        """The prompts that one of a pair refused and the other answered, in the order of the first run.

        Args:
            pair: Which of `pairs`.
            category: Only this category.

        Raises:
            UsageError: One of the pair is a published model, whose replies nobody has.
        """
        one, other = list(itertools.combinations(range(len(self._sources)), 2))[pair]
        a, b = self._sources[one], self._sources[other]
        if not isinstance(a, Evaluation) or not isinstance(b, Evaluation):
            raise UsageError("the paper published rates, not replies: there is no list of flipped prompts")
        decided = decisions(b)
        keys = [
            key
            for key, refused in decisions(a).items()
            if decided.get(key, refused) is not refused and category in (None, a.states[key].category)
        ]
        texts = [_texts(result, set(keys)) for result in (a, b)]
        for key in keys:
            first, second = a.states[key], b.states[key]
            assert first.outcome is not None
            assert second.outcome is not None
            yield Flip(
                split=key[0],
                prompt_id=key[1],
                category=first.category,
                kind=first.kind,
                refused_by=self.labels[one if is_refused(first.outcome, a.policy) else other],
                outcome_a=first.outcome,
                outcome_b=second.outcome,
                prompt=texts[0][key][0],
                response_a=texts[0][key][1],
                response_b=texts[1][key][1],
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers: what `--json` prints."""
        plain: dict[str, Any] = msgspec.to_builtins(
            {"runs": self.labels, "pairs": self.pairs, "notes": self.notes},
        )
        return plain

    def to_pandas(self) -> pandas.DataFrame:
        """One row a pair and rate, and a category where there is one."""
        import pandas

        rows = [
            {"first": pair.a, "second": pair.b, "paired": pair.paired, **msgspec.structs.asdict(difference)}
            for pair in self.pairs
            for difference in (*pair.axes, *pair.categories)
        ]
        return pandas.DataFrame(rows)

    def table(self, *, categories: bool = False) -> Table:
        """The comparison as a table, for the exports below."""
        from orbench.report.comparison import comparison_export

        return comparison_export(self, categories)

    def to_csv(self, *, categories: bool = False) -> str:
        """Comma-separated, shares as plain numbers."""
        return self.table(categories=categories).to_csv()

    def to_markdown(self, *, categories: bool = False) -> str:
        """A Markdown table."""
        return self.table(categories=categories).to_markdown()

    def to_latex(self, *, categories: bool = False) -> str:
        """A LaTeX table for the package booktabs."""
        return self.table(categories=categories).to_latex()

    def __str__(self) -> str:
        """The table that the command prints."""
        from orbench.report.comparison import comparison_table

        return comparison_table(self)

    def __repr__(self) -> str:
        """One line for people."""
        return f"Comparison({', '.join(self.labels)})"


def compare(*runs: Source | str | Path, policy: str | None = None) -> Comparison:
    """Set runs side by side, prompt by prompt.

    Every pair is compared on the prompts that both have a verdict on, so runs that are not finished can be compared
    too. The p-values are adjusted by Holm's method over all pairs and both rates.

    Args:
        runs: Two or more results, run folders, or `published:NAME` for a row of the paper's leaderboard, which has
            rates only.
        policy: Read all runs under this policy; by default they must have been read under the same.

    Raises:
        UsageError: Fewer than two runs, or runs that cannot be compared; the message says how to make them so.
        RunError: No run folder, or a damaged one.
    """
    if len(runs) < 2:
        raise UsageError("compare needs at least two runs")
    sources = [open_source(run, policy) for run in runs]
    notes = check_comparable(sources)
    labels = label(sources)
    decided = [decisions(source) if isinstance(source, Evaluation) else {} for source in sources]
    pairs = []
    for one, other in itertools.combinations(range(len(sources)), 2):
        a, b = sources[one], sources[other]
        if isinstance(a, Evaluation) and isinstance(b, Evaluation):
            pairs.append(_paired(a, b, decided[one], decided[other], labels[one], labels[other]))
        else:
            pairs.append(_unpaired(a, b, labels[one], labels[other]))
    if not any(pair.axes for pair in pairs):
        raise UsageError("these runs share no prompt that both have a verdict on; finish them first")
    return Comparison(sources, labels, _adjust(pairs), notes)


def label(sources: Sequence[Source]) -> list[str]:
    """A name for each: the model's, with the run folder where two runs are of one model."""
    names = [source.model if isinstance(source, Evaluation) else published.PREFIX + source.name for source in sources]
    return [
        f"{name} ({source.run})" if names.count(name) > 1 and isinstance(source, Evaluation) else name
        for name, source in zip(names, sources, strict=True)
    ]


def decisions(result: Evaluation) -> dict[Key, bool]:
    """(split, prompt id) to whether it was refused; rows that the policy leaves out are not there."""
    meaning = {outcome: is_refused(outcome, result.policy) for outcome in Outcome}
    return {
        key: refused
        for key, row in result.states.items()
        if row.outcome is not None and (refused := meaning[row.outcome]) is not None
    }


def _paired(a: Evaluation, b: Evaluation, of_a: dict[Key, bool], of_b: dict[Key, bool], *labels: str) -> Pair:
    counts: dict[tuple[Kind, str], list[int]] = {}
    for key, refused in of_a.items():
        other = of_b.get(key)
        if other is not None:
            row = a.states[key]
            cells = counts.setdefault((row.kind, row.category), [0, 0, 0, 0])
            cells[(0 if other else 1) if refused else (2 if other else 3)] += 1
    totals = {
        kind: Pairs(*map(sum, zip(*(cells for (k, _), cells in counts.items() if k == kind), strict=True)))
        for kind in KINDS
        if any(k == kind for k, _ in counts)
    }
    shared = sum(a.splits[name].prompts for name in a.splits if name in b.splits)
    return Pair(
        a=labels[0],
        b=labels[1],
        paired=True,
        over_refusal=_difference("safe", None, totals["safe"]) if "safe" in totals else None,
        toxic_rejection=_difference("toxic", None, totals["toxic"]) if "toxic" in totals else None,
        categories=tuple(_difference(kind, name, Pairs(*counts[kind, name])) for kind, name in _sorted(counts, a)),
        left_out=shared - sum(total.prompts for total in totals.values()),
    )


def _sorted(counts: Mapping[tuple[Kind, str], Any], result: Evaluation) -> list[tuple[Kind, str]]:
    """Safe before toxic, categories in the order of the splits."""
    order = {name: n for n, name in enumerate(c for split in result.splits.values() for c in split.categories)}
    return sorted(counts, key=lambda key: (KINDS.index(key[0]), order.get(key[1], len(order))))


def _difference(kind: Kind, category: str | None, pairs: Pairs) -> Difference:
    low, high = paired_difference(pairs)
    p = mcnemar(pairs.only_a, pairs.only_b)
    return Difference(
        kind=kind,
        category=category,
        a=pairs.refused_a / pairs.prompts,
        b=pairs.refused_b / pairs.prompts,
        value=(pairs.only_b - pairs.only_a) / pairs.prompts,
        low=low,
        high=high,
        p=p,
        p_holm=p,
        prompts=pairs.prompts,
        only_a=pairs.only_a,
        only_b=pairs.only_b,
    )


def _unpaired(a: Source, b: Source, *labels: str) -> Pair:
    found: dict[tuple[Kind, str | None], Difference] = {}
    for kind in KINDS:
        of_a, of_b = _counts(a, kind), _counts(b, kind)
        for category in of_a:
            if category in of_b and of_a[category][1] and of_b[category][1]:
                (hits_a, n_a), (hits_b, n_b) = of_a[category], of_b[category]
                low, high = unpaired_difference(hits_a, n_a, hits_b, n_b)
                p = unpaired_test(hits_a, n_a, hits_b, n_b)
                found[kind, category] = Difference(
                    kind=kind,
                    category=category,
                    a=hits_a / n_a,
                    b=hits_b / n_b,
                    value=hits_b / n_b - hits_a / n_a,
                    low=low,
                    high=high,
                    p=p,
                    p_holm=p,
                    prompts=None,
                    only_a=None,
                    only_b=None,
                )
    return Pair(
        a=labels[0],
        b=labels[1],
        paired=False,
        over_refusal=found.get(("safe", None)),
        toxic_rejection=found.get(("toxic", None)),
        categories=tuple(difference for (_, category), difference in found.items() if category is not None),
        left_out=0,
    )


def _counts(source: Source, kind: Kind) -> dict[str | None, tuple[int, int]]:
    """Refused and scored prompts by category, None for all together."""
    if isinstance(source, PublishedModel):
        safe = kind == "safe"
        total = (source.refused_safe, source.safe_prompts) if safe else (source.refused_toxic, source.toxic_prompts)
        table = published.categories("hard-1k" if safe else "toxic")[source.name]
        sizes = published.category_sizes("hard-1k" if safe else "toxic", source.prompt_set)
        return {None: total, **{name: (round(table[name] * size), size) for name, size in sizes.items()}}
    splits = [split for split in source.splits.values() if split.kind == kind]
    rate = source.over_refusal_rate if kind == "safe" else source.toxic_rejection_rate
    counts: dict[str | None, tuple[int, int]] = {None: (rate.refused, rate.scored)}
    for split in splits:
        for name, found in split.categories.items():
            before = counts.get(name, (0, 0))
            counts[name] = (before[0] + found.refused, before[1] + found.scored)
    return counts


def _adjust(pairs: Sequence[Pair]) -> list[Pair]:
    adjusted = iter(holm([difference.p for pair in pairs for difference in pair.axes]))
    found = []
    for pair in pairs:
        axes = {d.kind: msgspec.structs.replace(d, p_holm=next(adjusted)) for d in pair.axes}
        categories: list[Difference] = []
        for kind in KINDS:
            own = [d for d in pair.categories if d.kind == kind]
            values = holm([d.p for d in own])
            categories += [msgspec.structs.replace(d, p_holm=p) for d, p in zip(own, values, strict=True)]
        found.append(
            msgspec.structs.replace(
                pair,
                over_refusal=axes.get("safe"),
                toxic_rejection=axes.get("toxic"),
                categories=tuple(categories),
            )
        )
    return found


def _texts(result: Evaluation, keys: set[Key]) -> dict[Key, tuple[str, str]]:
    return {
        response.key: (response.prompt, response.response)
        for response in read_responses(result.run)
        if response.key in keys
    }
