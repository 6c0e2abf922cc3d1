"""The refused share of each category, of runs and of the paper's tables, in one shape."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orbench import published as paper
from orbench.categories import CATEGORIES
from orbench.comparable import Source, check_comparable, open_source
from orbench.comparison import label
from orbench.records import Kind
from orbench.report.export import Cell, Table
from orbench.results import Evaluation

Panel = dict[str, dict[str, float | None]]
"""Model to category to refused share, 0 to 1; None where no prompt has a verdict. `overall` comes last."""

OVERALL = "overall"


def category_rates(
    runs: Sequence[Source | str | Path] = (), *, published: bool = False, policy: str | None = None
) -> dict[str, Panel]:
    """Title to panel: over-refusal and toxic rejection, and for the paper's models also 80K.

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
    check_comparable(sources)
    over, toxic, large = "safe prompts refused (over-refusal), %", "toxic prompts refused, %", "80K refused, %"
    panels: dict[str, Panel] = {over: {}, toxic: {}}
    if published:
        panels[large] = {}
    for source, name in zip(sources, label(sources), strict=True):
        if isinstance(source, Evaluation):
            panels[over][name] = _of_run(source, "safe")
            panels[toxic][name] = _of_run(source, "toxic")
            continue
        panels[over][source.name] = dict(paper.categories("hard-1k")[source.name])
        panels[toxic][source.name] = dict(paper.categories("toxic")[source.name])
        if published and source.name in paper.categories("80k"):
            panels[large][source.name] = dict(paper.categories("80k")[source.name])
    return {title: rows for title, rows in panels.items() if rows}


def category_table(rows: Panel) -> Table:
    """A panel as a table, the ten categories in the order of `orbench.categories`, then others."""
    names = [name for name in CATEGORIES if any(name in row for row in rows.values())]
    names += [n for n in dict.fromkeys(n for row in rows.values() for n in row) if n not in {*names, OVERALL}]
    names.append(OVERALL)
    lines: list[tuple[Cell, ...]] = [(model, *(row.get(name) for name in names)) for model, row in rows.items()]
    return Table(("model", *names), tuple(lines))


def _of_run(result: Evaluation, kind: Kind) -> dict[str, float | None]:
    rates = {**result.pooled_categories(kind), OVERALL: result.rate_of(kind)}
    return {name: found.value for name, found in rates.items()}
