"""Tables for other programs: CSV, Markdown, and LaTeX with booktabs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from orbench.report.format import NOTHING, percent, points
from orbench.statistics.rates import Rate

if TYPE_CHECKING:
    from orbench.results import Evaluation

Cell = str | int | float | None
"""Text, a count, a share (0 to 1, shown in percent), or nothing."""


class Table(msgspec.Struct, frozen=True):
    """A head and rows; what is a share in CSV is a percentage for people."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    plain: frozenset[str] = frozenset()
    """Columns whose floats are no shares, such as p-values: shown with three digits."""
    points: frozenset[str] = frozenset()
    """Columns of differences between shares: shown with their sign, in percentage points."""

    def to_csv(self) -> str:
        """Comma-separated; shares as numbers from 0 to 1, nothing where there is none."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.head)
        writer.writerows(["" if cell is None else cell for cell in row] for row in self.rows)
        return file.getvalue()

    def to_markdown(self) -> str:
        """A pipe table, numbers to the right."""
        lines = [self.head, ["---" if n == 0 else "---:" for n in range(len(self.head))], *self._text()]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"

    def to_latex(self) -> str:
        """A tabular for the package booktabs; special characters are escaped."""
        lines = [" & ".join(map(_latex, line)) + r" \\" for line in (self.head, *self._text())]
        columns = "l" + "r" * (len(self.head) - 1)
        begin, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
        return "\n".join([begin, r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule", end]) + "\n"

    def _text(self) -> list[Sequence[str]]:
        return [[self._show(name, cell) for name, cell in zip(self.head, row, strict=True)] for row in self.rows]

    def _show(self, name: str, cell: Cell) -> str:
        if cell is None:
            return NOTHING
        if isinstance(cell, float) and name in self.points:
            return f"{points(cell)} points"
        if isinstance(cell, float):
            return p_value(cell) if name in self.plain else percent(cell)
        return f"{cell:,}" if isinstance(cell, int) else " ".join(cell.split())  # a line break would end the row


def rate_cells(rate: Rate | None) -> tuple[Cell, ...]:
    """Value, low, high, refused and scored of a rate."""
    if rate is None:
        return (None, None, None, None, None)
    return (rate.value, rate.low, rate.high, rate.refused, rate.scored)


def evaluation_export(result: Evaluation) -> Table:
    """Both rates and those of each split's categories, a row each."""
    head = ("split", "category", "kind", "rate", "low", "high", "refused", "scored", "left out")
    rows: list[tuple[Cell, ...]] = []
    for kind, pooled in (("safe", result.over_refusal_rate), ("toxic", result.toxic_rejection_rate)):
        rows.append(("all", "all", kind, *rate_cells(pooled), pooled.left_out))
    for name, split in result.splits.items():
        rows.append((name, "all", split.kind, *rate_cells(split.rate), split.rate.left_out))
        rows += [(name, c, split.kind, *rate_cells(rate), rate.left_out) for c, rate in split.categories.items()]
    return Table(head, tuple(rows))


def p_value(p: float | None) -> str:
    """`0.012`; never 0 for a p-value that is not."""
    if p is None:
        return NOTHING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


_SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    }
)


def _latex(text: str) -> str:
    return text.translate(_SPECIAL)
