"""The refused share of each category, of runs and of the paper's tables, in one shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from orbench import published as paper
from orbench.categories import CATEGORIES
from orbench.comparable import Source, check_comparable, open_source
from orbench.comparison import label
from orbench.records import AXES, KINDS, Kind
from orbench.report.export import Cell, Table
from orbench.results import Evaluation

Panel = dict[str, dict[str, float | None]]
"""Model to category to refused share, 0 to 1; None where no prompt has a verdict."""

OVERALL = "overall"
LARGE = "over-refusal, 80k"
"""The paper's rates on the 80K, by keywords, for 20 of its models."""
TITLES: Mapping[str, str] = {
    AXES["safe"]: "safe prompts refused (over-refusal), %",
    AXES["toxic"]: "toxic prompts refused, %",
    LARGE: "80K refused (by keywords), %",
}
"""What stands above each panel for people."""


class CategoryRates(msgspec.Struct, frozen=True):
    """Rates by category of several models."""

    panels: dict[str, Panel]
    """A panel a rate, by the rate's name, a key of `TITLES`; each holds only models that have the rate."""
    notes: tuple[str, ...]
    """What should be known beside the numbers, in sentences."""

    def table(self) -> Table:
        """All panels as one table, a row a rate and model."""
        names = category_names(row for panel in self.panels.values() for row in panel.values())
        rows: list[tuple[Cell, ...]] = [
            (rate, model, *(row.get(name) for name in names))
            for rate, panel in self.panels.items()
            for model, row in panel.items()
        ]
        return Table(("rate", "model", *names), tuple(rows))

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


def category_rates(
    runs: Sequence[Source | str | Path] = (), *, published: bool = False, policy: str | None = None
) -> CategoryRates:
    """Over-refusal and toxic rejection by category, and for the paper's models also on the 80K.

    Args:
        runs: As in `orbench.leaderboard`.
        published: Add the models of the paper: Tables 2 and 6 (32 models, by a GPT-4 judge) and 7 (20, by keywords).
        policy: As in `orbench.leaderboard`.

    Raises:
        UsageError: Runs that cannot stand side by side.
        RunError: No run folder, or a damaged one.
    """
    sources = [open_source(run, policy) for run in runs]
    if published:
        there = [source.name for source in sources if not isinstance(source, Evaluation)]
        sources += [model for model in paper.leaderboard() if model.name not in there]
    notes = check_comparable(sources)
    panels: dict[str, Panel] = {rate: {} for rate in TITLES}
    bare: dict[Kind, list[str]] = {kind: [] for kind in KINDS}
    for source, name in zip(sources, label(sources), strict=True):
        if isinstance(source, Evaluation):
            for kind in KINDS:
                if source.splits_of(kind):
                    panels[AXES[kind]][name] = _of_run(source, kind)
                else:
                    bare[kind].append(name)
            continue
        panels[AXES["safe"]][source.name] = dict(paper.categories("hard-1k")[source.name])
        panels[AXES["toxic"]][source.name] = dict(paper.categories("toxic")[source.name])
        if published and source.name in paper.categories("80k"):
            panels[LARGE][source.name] = dict(paper.categories("80k")[source.name])
    notes += [f"no {AXES[kind]} of {', '.join(of)}: no {kind} prompts were asked" for kind, of in bare.items() if of]
    return CategoryRates({rate: rows for rate, rows in panels.items() if rows}, tuple(notes))


def category_names(rows: Iterable[Mapping[str, float | None]]) -> list[str]:
    """The categories of some rows: the ten in the order of `orbench.categories`, then others, then `overall`."""
    there = dict.fromkeys(name for row in rows for name in row)
    names = [name for name in CATEGORIES if name in there]
    return [*names, *(name for name in there if name not in {*names, OVERALL}), OVERALL]


def _of_run(result: Evaluation, kind: Kind) -> dict[str, float | None]:
    rates = {**result.pooled_categories(kind), OVERALL: result.rate_of(kind)}
    return {name: found.value for name, found in rates.items()}
