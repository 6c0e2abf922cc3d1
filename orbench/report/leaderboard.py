"""A leaderboard as text and as a table for other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orbench import published
from orbench.records import AXES
from orbench.report.comparison import notes, wrap
from orbench.report.export import Cell, Table, rate_cells
from orbench.report.format import NOTHING, interval, percent, score
from orbench.report.table import columns, shorten
from orbench.statistics.correlation import Correlation

if TYPE_CHECKING:
    from orbench.leaderboards import Leaderboard, LeaderboardRow
    from orbench.statistics.ranks import Rank
    from orbench.statistics.rates import Rate


def leaderboard_table(board: Leaderboard) -> str:
    """Every model with both rates and the ranks that the data allow, then what goes with what."""
    rows = [["model", "safe %", "95 % int.", "rank", "toxic %", "95 % int.", "rank", "F1"]]
    rows += [_row(row) for row in board.rows]
    marks = _MARKS if any(row.published for row in board.rows) else ""
    lines = [*columns(rows), "", *wrap(_LEGEND + marks), ""]
    lines += _correlations(board)
    if len(board.points) >= FIT and board.curve:
        curve = board.curve
        lines += wrap(
            f"quadratic fit, in percent: y = {100 * curve.constant:.2f} {_signed(curve.linear, 4)} x "
            f"{_signed(curve.quadratic / 100, 6)} x^2, R2 {curve.r_squared:.3f}"
        )
    lines += [*_neighbours(board), *_groups(board), "", *notes(board.notes)]
    return "\n".join(lines).rstrip()


FIT = 6
"""Models below which a curve of three numbers says nothing."""
_FEW = 12

_LEGEND = (
    "safe %: over-refusal; toxic %: toxic rejection; rank: the best and worst that the data allow, all of a column at "
    "once with 95 % confidence."
)
_MARKS = " * measured on prompts never released; H among the six that chose Hard-1K; M moderator."


def correlation_text(found: Correlation) -> str:
    """`0.893 (95 % bootstrap interval 0.743 to 0.958, over 32 models)`, or why there is none."""
    if found.value is None:
        return f"none: {found.why}"
    if found.low is None or found.high is None:
        return f"{found.value:.3f} (no interval: {found.why})"
    over = " and their prompts" if found.over == "models and prompts" else ""
    span = f"{found.low:.3f} to {found.high:.3f}"
    return f"{found.value:.3f} (95 % bootstrap interval {span}, over {found.models} models{over})"


def _correlations(board: Leaderboard) -> list[str]:
    if board.spearman.value is None:
        return wrap(f"No correlation of the two rates: {board.spearman.why}")
    lines = []
    if board.subsets:
        for name, found in board.subsets.items():
            lines += wrap(f"Spearman, {name}: {correlation_text(found)}")
    if not board.subsets or len(board.rows) > len(published.leaderboard()):
        models = len(board.rows)
        which = f"all {models} models" if len(board.points) == models else "the models with both rates"
        lines += wrap(f"Spearman, {which}: {correlation_text(board.spearman)}")
    return lines + wrap(f"Kendall: {correlation_text(board.kendall)}")


def _neighbours(board: Leaderboard) -> list[str]:
    said = []
    for kind, axis in AXES.items():
        alike, pairs = board.neighbours(kind)
        if pairs:
            said.append(f"{alike} of {pairs} on {axis}")
    return wrap(f"neighbours in rank that cannot be told apart (5 %, two at a time): {', '.join(said)}") if said else []


def _groups(board: Leaderboard) -> list[str]:
    """Which models cannot be told apart, where there are few enough for a sentence to help."""
    if len(board.rows) > _FEW:
        return []
    lines = []
    for axis, name in zip(AXES.values(), ("over_refusal_rank", "toxic_rejection_rank"), strict=True):
        members: dict[int, list[LeaderboardRow]] = {}
        for row in board.rows:
            rank: Rank | None = getattr(row, name)
            for group in rank.groups if rank else ():
                members.setdefault(group, []).append(row)
        said = [", ".join(row.name for row in group) for _, group in sorted(members.items()) if len(group) > 1]
        if said:
            lines += wrap(f"alike on {axis} (5 %, Holm over all pairs): {'; '.join(said)}")
    return lines


def _row(row: LeaderboardRow) -> list[str]:
    marks = ("*" if row.prompt_set == "older" else "") + "H" * row.chose_hard_1k + "M" * row.moderator
    name = shorten(row.name, 24) + (f" {marks}" if marks else "")
    cells = [name]
    for rate, rank in ((row.over_refusal, row.over_refusal_rank), (row.toxic_rejection, row.toxic_rejection_rank)):
        cells += [percent(rate.value).removesuffix(" %"), interval(rate.low, rate.high).removesuffix(" %"), _rank(rank)]
    return [*cells, score(row.f1)]


def _rank(rank: Rank | None) -> str:
    if rank is None:
        return NOTHING
    return str(rank.low) if rank.low == rank.high else f"{rank.low}-{rank.high}"


def _signed(value: float, digits: int) -> str:
    return f"{'-' if value < 0 else '+'} {abs(value):.{digits}f}"


def leaderboard_export(board: Leaderboard) -> Table:
    """A row a model."""
    names = [f"{axis} {part}" for axis in AXES.values() for part in _PARTS]
    head = ("model", "family", *names, "F1", "source")
    rows: list[tuple[Cell, ...]] = []
    for row in board.rows:
        source = f"paper, {row.prompt_set} prompts" if row.published else row.run
        rates = [
            *_cells(row.over_refusal, row.over_refusal_rank),
            *_cells(row.toxic_rejection, row.toxic_rejection_rank),
        ]
        rows.append((row.name, row.family, *rates, row.f1, source))
    return Table(head, tuple(rows), frozenset({"F1"}))


_PARTS = ("rate", "low", "high", "refused", "scored", "rank low", "rank high")


def _cells(rate: Rate, rank: Rank | None) -> tuple[Cell, ...]:
    return (*rate_cells(rate), rank.low if rank else None, rank.high if rank else None)
