"""Two and more runs on the same prompts: `compare`.

In: results, run folders, or `published:NAME`. Out: paired differences with intervals and exact p-values, adjusted
over all pairs, and the prompts that flipped.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from orbench import published
from orbench.comparable import Source, check_comparable, open_source, published_table
from orbench.engine.run_folder import read_responses
from orbench.errors import UsageError
from orbench.grouping import Groups, prompt_groups
from orbench.published import CategoryTable, PublishedModel
from orbench.records import AXES, KINDS, Kind
from orbench.report.format import plural
from orbench.results import Evaluation
from orbench.run_state import Key
from orbench.scoring.outcomes import Outcome, is_refused
from orbench.statistics.paired import (
    Pairs,
    holm,
    mcnemar,
    unpaired_difference,
    unpaired_test,
)
from orbench.statistics.paired_groups import grouped_difference, sign_flip_test

if TYPE_CHECKING:
    import pandas

    from orbench.report.export import Table


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
    """Lower end of its 95 % interval: Tango's where prompts are paired, else Newcombe's. Prompts that belong together
    count as one group."""
    high: float
    p: float
    """Two-sided. Where prompts are paired the exact sign-flip test over groups of prompts, which is the exact McNemar
    test where each prompt stands alone; else the score test of two shares."""
    p_holm: float
    """Adjusted over all pairs and both rates of the comparison; for a category over those of its pair and rate."""
    prompts: int | None
    """Prompts that both have a verdict on; None where they are not paired."""
    only_a: int | None
    """Prompts that only the first refused; None where not paired."""
    only_b: int | None
    p_mcnemar: float | None
    """Exact McNemar, which takes all prompts as independent; None where not paired."""
    groups: int | None
    """Groups of prompts that belong together, single prompts counted as groups; None where not paired."""
    design_effect: float | None
    """By how much the groups raise the variance of the difference, at least 1; None where not paired."""


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
        grouped_by: What tells which prompts belong together; None without a pair of runs.
        notes: What should be known beside the numbers, in sentences.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        labels: Sequence[str],
        pairs: Sequence[Pair],
        notes: Sequence[str],
        groups: Groups | None,
    ) -> None:
        """Hold what was found; use `compare`."""
        self.grouped_by = groups.by if groups else None
        self.groups = groups
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
            UsageError: One of the pair is a published model, whose replies nobody has; or no run has the category.
        """
        one, other = list(itertools.combinations(range(len(self._sources)), 2))[pair]
        return _flips(self._sources, self.labels, one, other, category)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers: what `--json` prints."""
        plain: dict[str, Any] = msgspec.to_builtins(
            {"runs": self.labels, "pairs": self.pairs, "grouped_by": self.grouped_by, "notes": self.notes},
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
    too. Prompts that belong together (made from one seed, else sharing most of their words) count as one group. The
    p-values are adjusted by Holm's method over all pairs and both rates.

    Args:
        runs: Two or more results, run folders, or `published:NAME` for a row of the paper's leaderboard, which has
            rates only.
        policy: Read all runs under this policy; by default they must have been read under the same.

    Raises:
        UsageError: Fewer than two runs, or runs that cannot be compared; the message says how to make them so.
        RunError: No run folder, or a damaged one.
    """
    sources, notes = _open(runs, policy)
    labels = label(sources)
    decided = [decisions(source) if isinstance(source, Evaluation) else {} for source in sources]
    own = [source for source in sources if isinstance(source, Evaluation)]
    groups = prompt_groups(own) if len(own) > 1 else None
    pairs = []
    for one, other in itertools.combinations(range(len(sources)), 2):
        a, b = sources[one], sources[other]
        if groups and isinstance(a, Evaluation) and isinstance(b, Evaluation):
            pairs.append(_paired(a, b, decided[one], decided[other], groups, labels[one], labels[other]))
        else:
            pairs.append(_unpaired(a, b, published_table(own), labels[one], labels[other]))
    if not any(pair.axes for pair in pairs):
        raise UsageError(_nothing_shared(own))
    notes += _lacking(sources, labels, decided)
    return Comparison(sources, labels, _adjust(pairs), notes, groups)


def _nothing_shared(runs: Sequence[Evaluation]) -> str:
    """Why no prompt has a verdict of two of the runs, and what helps."""
    why = []
    for run in runs:
        by_policy = [
            f"{count:,} {outcome}"
            for outcome, count in run.outcomes.items()
            if is_refused(outcome, run.policy) is None and is_refused(outcome, "strict") is not None
        ]
        if run.open:
            why.append(f"{run.run}: {plural(run.open, 'prompt')} to finish, by the same `orbench evaluate` again")
        if by_policy:
            left_out = f"the policy {run.policy} leaves out its {' and '.join(by_policy)}"
            why.append(f"{run.run}: {left_out}, which --policy strict counts as refused")
        if run.unsure:
            unsure = plural(run.unsure, "reply", "replies")
            why.append(f"{run.run}: no stage was sure of {unsure}, which orbench score {run.run} --judge MODEL settles")
        if run.config.get("stopped_early"):
            why.append(f"{run.run}: stopped early; the same `orbench evaluate` without --precision asks the rest")
    return f"these runs share no prompt that both have a verdict on. {'; '.join(why)}"


def flips(
    *runs: Source | str | Path, policy: str | None = None, category: str | None = None
) -> list[tuple[str, str, Iterator[Flip]]]:
    """The flipped prompts of every pair, as `Comparison.flips` has them, without comparing anything else.

    Args:
        runs: As in `compare`.
        policy: As in `compare`.
        category: Only this category.

    Returns:
        For each pair both labels and its flips.

    Raises:
        UsageError: As in `compare`, or as in `Comparison.flips`; before the first flip.
        RunError: No run folder, or a damaged one.
    """
    sources, _ = _open(runs, policy)
    labels = label(sources)
    pairs = itertools.combinations(range(len(sources)), 2)
    return [(labels[a], labels[b], _flips(sources, labels, a, b, category)) for a, b in pairs]


def _open(runs: Sequence[Source | str | Path], policy: str | None) -> tuple[list[Source], list[str]]:
    """What is to be compared, and notes on it."""
    if len(runs) < 2:
        raise UsageError("compare needs at least two runs")
    sources = [open_source(run, policy) for run in runs]
    return sources, check_comparable(sources, pairwise=True)


def _flips(
    sources: Sequence[Source], labels: Sequence[str], one: int, other: int, category: str | None
) -> Iterator[Flip]:
    a, b = sources[one], sources[other]
    if not isinstance(a, Evaluation) or not isinstance(b, Evaluation):
        raise UsageError("the paper published rates, not replies: there is no list of flipped prompts")
    runs = [source for source in sources if isinstance(source, Evaluation)]
    known = sorted({name for run in runs for split in run.splits.values() for name in split.categories})
    if category is not None and category not in known:
        raise UsageError(f"unknown category {category!r}: there are {', '.join(known)}")
    return _read_flips(a, b, labels[one], labels[other], category)


def _read_flips(a: Evaluation, b: Evaluation, label_a: str, label_b: str, category: str | None) -> Iterator[Flip]:
    of_a, of_b = decisions(a), decisions(b)
    keys = [
        key
        for key, refused in of_a.items()
        if of_b.get(key, refused) is not refused and category in (None, a.states[key].category)
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
            refused_by=label_a if of_a[key] else label_b,
            outcome_a=first.outcome,
            outcome_b=second.outcome,
            prompt=texts[0][key][0],
            response_a=texts[0][key][1],
            response_b=texts[1][key][1],
        )


def _lacking(sources: Sequence[Source], labels: Sequence[str], decided: Sequence[Mapping[Key, bool]]) -> list[str]:
    """Which rate cannot be compared, because of which runs."""
    notes = []
    for kind in KINDS:
        bare = [
            name
            for source, name, of in zip(sources, labels, decided, strict=True)
            if isinstance(source, Evaluation) and not any(source.states[key].kind == kind for key in of)
        ]
        if bare:
            why = f"no {kind} prompt with a verdict that counts"
            notes.append(f"no {AXES[kind]} of {', '.join(bare)} to compare: {why}")
    return notes


def label(sources: Sequence[Source]) -> list[str]:
    """A name for each: the model's, with the run folder where two runs are of one model."""
    names = [source.model if isinstance(source, Evaluation) else published.PREFIX + source.name for source in sources]
    return [
        f"{name} ({source.run})" if names.count(name) > 1 and isinstance(source, Evaluation) else name
        for name, source in zip(names, sources, strict=True)
    ]


def decisions(result: Evaluation) -> dict[Key, bool]:
    """(split, prompt id) to whether it was refused; rows that the policy leaves out are not there."""
    return {
        key: refused
        for key, row in result.states.items()
        if row.outcome is not None and (refused := is_refused(row.outcome, result.policy)) is not None
    }


def _paired(
    a: Evaluation, b: Evaluation, of_a: dict[Key, bool], of_b: dict[Key, bool], groups: Groups, *labels: str
) -> Pair:
    found: dict[tuple[Kind, str | None], _Table] = {}
    for key, refused in of_a.items():
        other = of_b.get(key)
        if other is not None:
            row = a.states[key]
            for category in (None, row.category):
                found.setdefault((row.kind, category), _Table()).add(groups.of[key], refused, other)
    totals = {kind: _difference(kind, None, found[kind, None]) for kind in KINDS if (kind, None) in found}
    shared = sum(a.splits[name].prompts for name in a.splits if name in b.splits)
    return Pair(
        a=labels[0],
        b=labels[1],
        paired=True,
        over_refusal=totals.get("safe"),
        toxic_rejection=totals.get("toxic"),
        categories=tuple(_difference(kind, name, found[kind, name]) for kind, name in _sorted(found)),
        left_out=shared - sum(total.prompts or 0 for total in totals.values()),
    )


def _sorted(found: Iterable[tuple[Kind, str | None]]) -> list[tuple[Kind, str]]:
    """Safe before toxic, categories by name."""
    named = [(kind, category) for kind, category in found if category is not None]
    return sorted(named, key=lambda key: (KINDS.index(key[0]), key[1]))


class _Table:
    """Counts of some prompts that both models have a verdict on, by who refused them and by group."""

    def __init__(self) -> None:
        self.cells = [0, 0, 0, 0]
        self.groups: dict[str, list[int]] = {}
        """Group to prompts that the second alone refused less those that the first alone refused, and prompts."""

    def add(self, group: str, first: bool, second: bool) -> None:
        """One more prompt."""
        self.cells[(0 if second else 1) if first else (2 if second else 3)] += 1
        own = self.groups.setdefault(group, [0, 0])
        own[0] += second - first
        own[1] += 1


def _difference(kind: Kind, category: str | None, table: _Table) -> Difference:
    pairs = Pairs(*table.cells)
    found = grouped_difference(pairs, [(net, size) for net, size in table.groups.values()])
    p = sign_flip_test([net for net, _ in table.groups.values()])
    return Difference(
        kind=kind,
        category=category,
        a=pairs.refused_a / pairs.prompts,
        b=pairs.refused_b / pairs.prompts,
        value=(pairs.only_b - pairs.only_a) / pairs.prompts,
        low=found.low,
        high=found.high,
        p=p,
        p_holm=p,
        prompts=pairs.prompts,
        only_a=pairs.only_a,
        only_b=pairs.only_b,
        p_mcnemar=mcnemar(pairs.only_a, pairs.only_b),
        groups=found.groups,
        design_effect=found.design_effect,
    )


def _unpaired(a: Source, b: Source, safe: CategoryTable, *labels: str) -> Pair:
    found: dict[tuple[Kind, str | None], Difference] = {}
    for kind in KINDS:
        of_a, of_b = (_counts(source, kind, safe if kind == "safe" else "toxic") for source in (a, b))
        for category in sorted(of_a, key=lambda name: name or ""):
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
                    p_mcnemar=None,
                    groups=None,
                    design_effect=None,
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


def _counts(source: Source, kind: Kind, table: CategoryTable) -> Mapping[str | None, tuple[int, int]]:
    """Refused and scored prompts by category, None for all together."""
    if isinstance(source, PublishedModel):
        return published.counts(source, table)
    whole = source.rate_of(kind)
    counts: dict[str | None, tuple[int, int]] = {None: (whole.refused, whole.scored)}
    for name, found in source.pooled_categories(kind).items():
        counts[name] = (found.refused, found.scored)
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
