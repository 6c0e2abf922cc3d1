"""The paper's headline picture: safe prompts refused to the right, toxic prompts refused upwards, a mark a model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from orbench.errors import UsageError
from orbench.published import FAMILIES
from orbench.report.drawing import FAINT, INK, canvas, require, save, style, tidy
from orbench.report.labels import place
from orbench.report.leaderboard import FIT
from orbench.statistics.joint import joint_region

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import BboxBase as Bbox

    from orbench.leaderboards import Leaderboard, LeaderboardRow

_REGIONS = 60
"""Models above which regions would only be fog."""


def draw_scatter(board: Leaderboard, path: Path) -> Path:
    """Draw both rates of each model with the 95 % region of the pair, the quadratic fit and the best corner.

    Runs stand out beside published models: their marks are larger, with a dark edge, and their names bold.

    Raises:
        UsageError: No model has both rates, or no such kind of file.
        MissingExtraError: The extra `plot` is not installed.
    """
    require(path)
    rows = [row for row in board.rows if row.f1 is not None]
    if not rows:
        raise UsageError("no model has both rates, so there is nothing to draw")
    figure, axes = canvas(10.5, 8.0)
    tidy(axes)
    both = len({row.published for row in rows}) == 2
    look = style([row.family for row in rows], first=FAMILIES)
    for row in rows:
        _model(axes, row, *look[row.family], own=both and not row.published, region=len(rows) <= _REGIONS)
    _limits(axes, board.points)
    _curve(axes, board)
    _corner(axes)
    axes.set_xlabel("safe prompts refused (over-refusal), %", color=INK)
    axes.set_ylabel("toxic prompts refused, %", color=INK)
    axes.set_title(_title(board), loc="left", fontsize=10, color=INK)
    _legend(axes, rows, look, both)
    figure.draw_without_rendering()  # settles the layout, so that labels are placed where they will stand
    _names(axes, board, rows, both)
    return save(figure, path)


def _model(axes: Axes, row: LeaderboardRow, colour: str, mark: str, *, own: bool, region: bool) -> None:
    x, y = _place(row)
    if region:
        over, toxic = row.over_refusal, row.toxic_rejection
        edge = joint_region((over.refused, over.scored), (toxic.refused, toxic.scored))
        axes.fill(
            [100 * a for a, _ in edge], [100 * b for _, b in edge], color=colour, alpha=0.13, linewidth=0, zorder=2
        )
    edge_colour, width, size = (INK, 1.3, 80) if own else ("white", 0.6, 46)
    axes.scatter(x, y, s=size, c=colour, marker=mark, edgecolors=edge_colour, linewidths=width, zorder=4)


def _place(row: LeaderboardRow) -> tuple[float, float]:
    assert row.over_refusal.value is not None
    assert row.toxic_rejection.value is not None
    return 100 * row.over_refusal.value, 100 * row.toxic_rejection.value


def _limits(axes: Axes, points: list[tuple[float, float]]) -> None:
    lowest = min(100 * y for _, y in points)
    axes.set_xlim(-3, 106)
    floor = max(0.0, lowest - 6) if lowest < 90 else 80.0
    axes.set_ylim(floor - 0.02 * (100 - floor), 100 + 0.13 * (100 - floor))
    axes.set_xticks(range(0, 101, 10))
    axes.set_yticks([tick for tick in range(0, 101, 5 if floor > 50 else 10) if tick >= floor])


def _curve(axes: Axes, board: Leaderboard) -> None:
    line = _on_curve(board, 100)
    axes.plot([x for x, _ in line], [y for _, y in line], "--", color=FAINT, linewidth=1.2, zorder=3)


def _on_curve(board: Leaderboard, steps: int) -> list[tuple[float, float]]:
    """Points of the fit in percent, from the smallest to the largest x; none for a handful of models."""
    curve, points = board.curve, board.points
    if curve is None or len(points) < FIT:
        return []
    low, high = min(x for x, _ in points), max(x for x, _ in points)
    xs = [low + (high - low) * n / steps for n in range(steps + 1)]
    return [(100 * x, 100 * curve(x)) for x in xs if 0 <= curve(x) <= 1]


def _corner(axes: Axes) -> None:
    axes.scatter(0, 100, s=260, marker="*", c="#F0B000", edgecolors=INK, linewidths=0.8, zorder=5, clip_on=False)
    axes.annotate("best: answers what is safe,\nrefuses what is toxic", (0, 100), xytext=(10, 7),
                  textcoords="offset points", fontsize=8, color=INK, va="bottom")  # fmt: skip


def _title(board: Leaderboard) -> str:
    found = board.spearman
    if found.value is None:
        return f"{len(board.points)} models"
    span = "" if found.low is None or found.high is None else f" (95 % interval {found.low:.2f} to {found.high:.2f})"
    return f"{found.models} models; Spearman {found.value:.2f}{span}; shaded: 95 % region of each model's two rates"


def _legend(axes: Axes, rows: list[LeaderboardRow], look: dict[str, tuple[str, str]], both: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, marker=mark, linestyle="", markersize=7, label=family)
        for family, (colour, mark) in look.items()
    ]
    if len(rows) >= FIT:
        whose = "quadratic fit, paper" if both else "quadratic fit"
        handles.append(Line2D([], [], color=FAINT, linestyle="--", linewidth=1.2, label=whose))
    axes.legend(handles=handles, loc="lower right", fontsize=8.5, frameon=False, ncols=2)


def _names(axes: Axes, board: Leaderboard, rows: list[LeaderboardRow], both: bool) -> None:
    """Put each name beside its mark, with a line to it where it stands further off."""
    size = 8.0 if len(rows) <= 40 else 6.5
    ground = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.6}
    taken = [_box(text.get_window_extent()) for text in axes.texts]
    texts = [
        axes.text(
            *_place(row),
            _short(row.name),
            fontsize=size,
            color=INK,
            ha="center",
            va="center",
            zorder=6,
            bbox=ground,
            fontweight="bold" if both and not row.published else "normal",
        )
        for row in rows
    ]
    extents = [text.get_window_extent() for text in texts]
    to_pixels, reach = axes.transData, 4.5 * axes.figure.dpi / 72
    marks = [(float(x), float(y)) for x, y in map(to_pixels.transform, map(_place, rows))]
    middles = place(
        marks,
        [(extent.width, extent.height) for extent in extents],
        _box(axes.get_window_extent()),
        reach=reach,
        line=[(float(x), float(y)) for x, y in map(to_pixels.transform, _on_curve(board, 60))],
        taken=taken,
    )
    for text, extent, mark, middle in zip(texts, extents, marks, middles, strict=True):
        x, y = to_pixels.inverted().transform(middle)
        text.set_position((float(x), float(y)))
        near = (
            min(max(mark[0], middle[0] - extent.width / 2), middle[0] + extent.width / 2),
            min(max(mark[1], middle[1] - extent.height / 2), middle[1] + extent.height / 2),
        )
        if math.dist(mark, near) > 2.2 * reach:
            ends = to_pixels.inverted().transform([mark, near])
            axes.plot(ends[:, 0], ends[:, 1], color="#888888", linewidth=0.6, zorder=3.5)


def _box(box: Bbox) -> tuple[float, float, float, float]:
    return (float(box.x0), float(box.y0), float(box.x1), float(box.y1))


def _short(name: str) -> str:
    """A model's name without its provider and run folder, as far as a picture has room."""
    from orbench.report.table import shorten

    return shorten(name.partition(" (")[0].rpartition("/")[2], 28)
