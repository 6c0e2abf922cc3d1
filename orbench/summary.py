"""What one run allows to be said beyond its rates: `summarise`.

In: a result. Out: both rates with intervals that know which prompts belong together, one statement about both at
once, and the categories, with the number of categories in mind.
"""

from __future__ import annotations

from typing import Any

import msgspec

from orbench.comparison import decisions
from orbench.grouping import GroupedBy, Groups, prompt_groups
from orbench.records import KINDS, Kind
from orbench.results import Evaluation
from orbench.statistics.clusters import ClusteredRate, clustered_rate
from orbench.statistics.intervals import wilson
from orbench.statistics.joint import Joint, joint_intervals
from orbench.statistics.paired import fisher_exact, holm


class CategoryFinding(msgspec.Struct, frozen=True, kw_only=True):
    """One category against the rest of its kind."""

    kind: Kind
    category: str
    value: float | None
    """Refused share; None if no prompt of it has a verdict."""
    low: float | None
    """Lower end of an interval that holds for all categories of the kind at once, with 95 % confidence."""
    high: float | None
    refused: int
    scored: int
    p: float | None
    """Fisher's exact test, two-sided: is the category refused as often as all others together?"""
    p_holm: float | None
    """Adjusted over the categories of the kind."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What `summarise` found."""

    grouped_by: GroupedBy
    """What tells which prompts belong together: the seeds they were made from, else their words."""
    over_refusal: ClusteredRate | None
    """None if no safe prompt has a verdict."""
    toxic_rejection: ClusteredRate | None
    joint: Joint | None
    """None without both rates."""
    categories: tuple[CategoryFinding, ...]

    def __str__(self) -> str:
        """What `orbench show RUN --statistics` prints."""
        from orbench.report.summary import summary_table

        return summary_table(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


def summarise(result: Evaluation, groups: Groups | None = None) -> Summary:
    """Intervals that know which prompts belong together, a joint statement, and categories.

    Args:
        result: A finished or partial run.
        groups: Which prompts belong together. By default those made from one seed, where the prompts say so, and else
            those that share six in ten of their words.
    """
    decided = decisions(result)
    found = groups or prompt_groups([result])
    rates: dict[Kind, ClusteredRate | None] = {}
    for kind in KINDS:
        keys = [key for key in decided if result.states[key].kind == kind]
        rates[kind] = clustered_rate([decided[k] for k in keys], [found.of.get(k, k) for k in keys]) if keys else None
    over, toxic = result.over_refusal_rate, result.toxic_rejection_rate
    both = over.scored and toxic.scored
    return Summary(
        grouped_by=found.by,
        over_refusal=rates["safe"],
        toxic_rejection=rates["toxic"],
        joint=joint_intervals((over.refused, over.scored), (toxic.refused, toxic.scored)) if both else None,
        categories=tuple(found for kind in KINDS for found in _categories(result, kind)),
    )


def _categories(result: Evaluation, kind: Kind) -> list[CategoryFinding]:
    counts = {name: (found.refused, found.scored) for name, found in result.pooled_categories(kind).items()}
    there = {name: cell for name, cell in counts.items() if cell[1]}
    all_refused, all_scored = (sum(cell[n] for cell in there.values()) for n in (0, 1))
    tested = []
    for refused, scored in there.values():
        tested.append(fisher_exact(refused, scored, all_refused - refused, all_scored - scored))
    adjusted = dict(zip(there, zip(tested, holm(tested), strict=True), strict=True)) if len(there) > 1 else {}
    level = 0.95 ** (1 / max(1, len(there)))  # Sidak: categories are other prompts, so their rates are independent
    return [
        CategoryFinding(
            kind=kind,
            category=name,
            value=refused / scored if scored else None,
            low=wilson(refused, scored, level)[0] if scored else None,
            high=wilson(refused, scored, level)[1] if scored else None,
            refused=refused,
            scored=scored,
            p=adjusted[name][0] if name in adjusted else None,
            p_holm=adjusted[name][1] if name in adjusted else None,
        )
        for name, (refused, scored) in counts.items()
    ]
