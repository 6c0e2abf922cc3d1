"""A comparison as text and as a table for other programs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from orbench.grouping import HOW
from orbench.records import AXES
from orbench.report.export import Cell, Table, p_value
from orbench.report.format import NOTHING, percent, plural, points
from orbench.report.table import WIDTH, columns, shorten

if TYPE_CHECKING:
    from orbench.comparison import Comparison, Difference, Flip, Pair


def comparison_table(comparison: Comparison, *, categories: bool = False) -> str:
    """Every pair with both rates, what may be concluded, and the notes."""
    lines: list[str] = []
    for pair in comparison.pairs:
        lines += [*_head(pair), "", *_rates(pair), *(_categories(pair) if categories else ()), ""]
        lines += _mcnemar(pair) if pair.paired else []
        lines += [*wrap(_verdict(pair, len(comparison.pairs))), ""]
    if said := grouping(comparison):
        lines += [*wrap(said), ""]
    return "\n".join([*lines, *notes(comparison.notes)]).rstrip()


def grouping(comparison: Comparison) -> str:
    """Which prompts count together, and which interval and test that makes; nothing without a pair of runs."""
    if comparison.groups is None:
        return ""
    most = {
        kind: max(
            (d for pair in comparison.pairs for d in pair.axes if d.kind == kind and d.groups), default=None, key=_size
        )
        for kind in AXES
    }
    there = {AXES[kind]: d for kind, d in most.items() if d is not None}
    if all(d.groups == d.prompts for d in there.values()):
        alike = HOW[comparison.groups.by]
        return f"No prompts {alike}: each counts alone. Interval: Tango's; p: exact McNemar test."
    sizes = "; ".join(
        f"{axis}: {d.prompts or 0:,} prompts in {plural(d.groups or 0, 'group')}" for axis, d in there.items()
    )
    return (
        f"Prompts {HOW[comparison.groups.by]} count as one group ({sizes}). Interval: Tango's at the effective number "
        "of prompts; p: exact sign-flip test of the groups, which is McNemar's where each prompt stands alone."
    )


def _size(difference: Difference) -> int:
    return difference.prompts or 0


def _mcnemar(pair: Pair) -> list[str]:
    """McNemar's p-values, where groups make another test of it."""
    grouped = [d for d in pair.axes if d.groups != d.prompts]
    said = ", ".join(f"{AXES[d.kind]} {p_value(d.p_mcnemar)}" for d in grouped)
    return wrap(f"McNemar's exact p, with all prompts taken as independent: {said}") if grouped else []


def notes(sentences: Iterable[str]) -> list[str]:
    """Notes as wrapped lines."""
    return [line for sentence in sentences for line in wrap(f"note: {sentence}")]


def wrap(text: str) -> list[str]:
    """At most 80 columns, later lines indented."""
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _head(pair: Pair) -> list[str]:
    how = "same prompts, pair by pair" if pair.paired else "as two shares: not paired"
    out = f"; {plural(pair.left_out, 'prompt')} left out, not decided in both" if pair.left_out else ""
    return [f"A  {shorten(pair.a, WIDTH - 3)}", f"B  {shorten(pair.b, WIDTH - 3)}", *wrap(f"{how}{out}")]


def _rates(pair: Pair) -> list[str]:
    rows = [["", "A", "B", "B - A", "95 % interval", "only A", "only B", "p", "Holm"]]
    rows += [_row(AXES[difference.kind], difference) for difference in pair.axes]
    return columns(rows)


def _row(label: str, d: Difference) -> list[str]:
    only = [NOTHING if count is None else f"{count:,}" for count in (d.only_a, d.only_b)]
    span = f"{points(d.low)} to {points(d.high)}"
    return [label, percent(d.a), percent(d.b), points(d.value), span, *only, p_value(d.p), p_value(d.p_holm)]


def _categories(pair: Pair) -> list[str]:
    lines = []
    for kind, axis in AXES.items():
        own = [d for d in pair.categories if d.kind == kind]
        if own:
            head = [axis, "A", "B", "B - A", "95 % interval", "only A", "only B", "p", "Holm"]
            lines += ["", *columns([head, *(_row(shorten(d.category or "", 15), d) for d in own)])]
    return lines


def _verdict(pair: Pair, pairs: int) -> str:
    said = []
    for d in pair.axes:
        axis = AXES[d.kind]
        if d.p_holm < 0.05:
            more = "B refuses more" if d.value > 0 else "A refuses more"
            said.append(f"{axis}: {more}, by {abs(100 * d.value):.1f} points")
        else:
            said.append(f"{axis}: cannot be told apart")
    over = len(pair.axes) * pairs
    adjusted = f" (5 %, Holm over {over} tests)" if over > 1 else " (5 %)"
    return "; ".join(said) + adjusted + "." if said else "No shared prompt with a verdict."


def comparison_export(comparison: Comparison, categories: bool) -> Table:
    """A row a pair and rate, and a category if asked for."""
    names = ("first", "second", "rate", "category", "A", "B", "B - A", "low", "high", "only A", "only B", "p", "Holm")
    head = (*names, "McNemar", "prompts", "groups")
    rows: list[tuple[Cell, ...]] = []
    for pair in comparison.pairs:
        for d in (*pair.axes, *(pair.categories if categories else ())):
            counts = (d.only_a, d.only_b)
            tests = (d.p, d.p_holm, d.p_mcnemar, d.prompts, d.groups)
            line = (d.category or "all", d.a, d.b, d.value, d.low, d.high, *counts, *tests)
            rows.append((pair.a, pair.b, AXES[d.kind], *line))
    return Table(head, tuple(rows), frozenset({"p", "Holm", "McNemar"}), frozenset({"B - A", "low", "high"}))


def flips_export(pairs: Iterable[tuple[str, str, Iterable[Flip]]]) -> Table:
    """A row a flipped prompt, its replies whole."""
    head = ("first", "second", "split", "id", "category", "kind", "refused by", "outcome A", "outcome B")
    rows: list[tuple[Cell, ...]] = []
    for a, b, found in pairs:
        for flip in found:
            names = (a, b, flip.split, flip.prompt_id, flip.category, flip.kind, flip.refused_by)
            outcomes = (flip.outcome_a.value, flip.outcome_b.value)
            rows.append((*names, *outcomes, flip.prompt, flip.response_a, flip.response_b))
    return Table((*head, "prompt", "reply A", "reply B"), tuple(rows))
