"""A sweep as text, as a table for other programs, and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orbench.report.comparison import wrap
from orbench.report.drawing import COLOURS, FAINT, INK, canvas, require, save, tidy
from orbench.report.export import Cell as TableCell
from orbench.report.export import Table
from orbench.report.format import NOTHING, interval, percent, plural, points
from orbench.report.table import WIDTH, columns, shorten

if TYPE_CHECKING:
    from orbench.sweeps import CellRate, Sweep

AXES = {"over_refusal": "over-refusal", "toxic_rejection": "toxic rejection"}


def sweep_table(sweep: Sweep) -> str:
    """Both rates of every cell, how far from the first, and how steady."""
    repeat = len(sweep.results[0])
    lines = [shorten(sweep.model, WIDTH), f"{plural(len(sweep.cells), 'cell')}, {plural(repeat, 'run')} each", ""]
    for name, axis in AXES.items():
        if not _has_rate(sweep, name):
            lines += [*wrap(f"{axis}: no prompt of this kind has a verdict in any cell."), ""]
            continue
        rows = [[axis, "rate", "95 % int.", "vs first", "95 % interval", "changed", "steady"]]
        rows += [[shorten(cell.label, 32), *_cells(getattr(cell, name))] for cell in sweep.cells]
        lines += [*columns(rows), ""]
    lines += wrap(
        "vs first: in points, on the same prompts; its interval is for one cell at a time. changed: prompts whose "
        "usual verdict is another than in the first cell. steady: prompts whose repetitions all agree."
    )
    lines += [
        f"note: {cell.label}: {plural(cell.undecided, 'reply', 'replies')} without a verdict, left out"
        for cell in sweep.cells
        if cell.undecided
    ]
    if owed := sum(result.open for of_cell in sweep.results for result in of_cell):
        replies = plural(owed, "reply is", "replies are")
        lines += wrap(f"note: {replies} missing or unread: the same `orbench sweep` command asks for them again")
    return "\n".join(lines)


def _has_rate(sweep: Sweep, name: str) -> bool:
    return any(getattr(cell, name).rate is not None for cell in sweep.cells)


def _cells(found: CellRate) -> list[str]:
    if found.rate is None:
        return [NOTHING] * 6
    apart = [NOTHING, NOTHING]
    if found.difference is not None and found.low is not None and found.high is not None:
        apart = [points(found.difference), f"{points(found.low)} to {points(found.high)}"]
    span = interval(found.rate.low, found.rate.high).removesuffix(" %")
    return [percent(found.rate.value), span, *apart, percent(found.changed), percent(found.stable)]


def sweep_export(sweep: Sweep) -> Table:
    """A row a cell and rate."""
    head = ("condition", "rate of", "rate", "low", "high", "vs first", "vs low", "vs high", "changed", "steady")
    rows: list[tuple[TableCell, ...]] = []
    for cell in sweep.cells:
        for name, axis in AXES.items():
            f: CellRate = getattr(cell, name)
            value = (f.rate.value, f.rate.low, f.rate.high) if f.rate else (None, None, None)
            rows.append((cell.label, axis, *value, f.difference, f.low, f.high, f.changed, f.stable))
    return Table(head, tuple(rows), points=frozenset({"vs first", "vs low", "vs high"}))


def draw_sweep(sweep: Sweep, path: Path) -> Path:
    """Draw a line a cell: both rates with intervals, and the share of prompts whose verdict is not steady.

    Raises:
        UsageError: No such kind of file.
        MissingExtraError: The extra `plot` is not installed.
    """
    require(path)
    count = len(sweep.cells)
    figure, axes = canvas(11, 1.7 + 0.42 * count, ncols=3, sharey=True, width_ratios=(4, 4, 3))
    titles = ("safe prompts refused, %", "toxic prompts refused, %", "prompts whose verdict moves, %")
    for ax, title in zip(axes, titles, strict=True):
        tidy(ax)
        ax.set_title(title, loc="left", fontsize=9.5, color=INK)
    looks = dict(zip(AXES, ((COLOURS[1], "o"), (COLOURS[0], "s")), strict=True))
    for ax, (name, (colour, mark)) in zip(axes, looks.items(), strict=False):
        first: CellRate = getattr(sweep.cells[0], name)
        if first.rate:
            ax.axvline(100 * first.rate.value, color=FAINT, linewidth=0.8, linestyle=":")
        for y, cell in enumerate(sweep.cells):
            rate = getattr(cell, name).rate
            if rate is not None:
                ax.plot([100 * rate.low, 100 * rate.high], [y, y], color=colour, linewidth=2.4, alpha=0.45)
                ax.plot(100 * rate.value, y, mark, color=colour, markersize=6.5)
                ax.annotate(f"{100 * rate.value:.1f}", (100 * rate.value, y), xytext=(0, 6),
                            textcoords="offset points", ha="center", fontsize=7.5, color=INK)  # fmt: skip
        ax.margins(x=0.12)
        if not _has_rate(sweep, name):
            ax.set_xticks([])
            ax.annotate("no verdict on such prompts", (0.5, 0.5), xycoords="axes fraction", ha="center", color=FAINT)
    _movement(axes[2], sweep, looks)
    axes[0].set_yticks(range(count), [shorten(cell.label, 44) for cell in sweep.cells], fontsize=8.5)
    axes[0].set_ylim(count - 0.4, -0.7)
    figure.suptitle(shorten(sweep.model, 80), x=0.01, ha="left", fontsize=10, color=INK)
    return save(figure, path)


def _movement(ax: object, sweep: Sweep, looks: dict[str, tuple[str, str]]) -> None:
    """From repetition to repetition (filled) and against the first cell (open)."""
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    assert isinstance(ax, Axes)
    for y, cell in enumerate(sweep.cells):
        for shift, (name, (colour, mark)) in zip((-0.12, 0.12), looks.items(), strict=True):
            found: CellRate = getattr(cell, name)
            if found.stable is not None:
                ax.plot(100 * (1 - found.stable), y + shift, mark, color=colour, markersize=6)
            if found.changed is not None:
                ax.plot(100 * found.changed, y + shift, mark, color=colour, markersize=6, fillstyle="none")
    handles = [Line2D([], [], color=INK, marker="o", linestyle="", fillstyle="none", label="against the first cell")]
    if any(cell.over_refusal.stable is not None or cell.toxic_rejection.stable is not None for cell in sweep.cells):
        handles.insert(0, Line2D([], [], color=INK, marker="o", linestyle="", label="between repetitions"))
    ax.legend(handles=handles, fontsize=7.5, frameon=False, loc="lower right", bbox_to_anchor=(1.02, -0.02))
    ax.margins(x=0.1)
    ax.set_xlim(-1, max(5, ax.get_xlim()[1]))
