"""The categories of many models at one glance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from orbench.categories_of import category_names
from orbench.errors import UsageError
from orbench.report.drawing import INK, canvas, require, save


def draw_heatmap(panels: Mapping[str, Mapping[str, Mapping[str, float | None]]], path: Path) -> Path:
    """Draw one panel a rate: models downwards, categories to the right, the refused share as shade and number.

    Args:
        panels: Title to model to category to refused share, 0 to 1, or None where there is none. A panel whose models
            are not those of the one before names its own.
        path: `.png`, `.svg` or `.pdf`.

    Raises:
        UsageError: Nothing to draw, or no such kind of file.
        MissingExtraError: The extra `plot` is not installed.
    """
    require(path)
    import numpy as np

    panels = {title: rows for title, rows in panels.items() if rows}
    if not panels:
        raise UsageError("no model has rates by category, so there is nothing to draw")
    lists = [list(rows) for rows in panels.values()]
    most = max(map(len, lists))
    named = [not n or lists[n] != lists[n - 1] for n in range(len(lists))]
    figure, axes = canvas(2.6 * sum(named) + 5.2 * len(panels), 1.6 + 0.24 * most, ncols=len(panels), squeeze=False)
    for ax, (title, rows), models, own in zip(axes[0], panels.items(), lists, named, strict=True):
        categories = category_names(rows.values())
        values = np.array([[_number(rows[model].get(name)) for name in categories] for model in models])
        # cividis is made to look the same to colour-blind eyes (Nunez et al., PLoS ONE 13 (2018) e0199239).
        ax.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
        ax.set_ylim(most - 0.5, -0.5)  # cells of one height in all panels
        ax.spines["bottom"].set_position(("data", len(models) - 0.5))
        ax.set_xticks(range(len(categories)), categories, rotation=45, ha="right", fontsize=8)
        ax.set_yticks(range(len(models)), _fit(models) if own else [""] * len(models), fontsize=8)
        ax.set_title(title, loc="left", fontsize=10, color=INK)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        for y in range(len(models)):
            for x in range(len(categories)):
                value = values[y, x]
                if not np.isnan(value):
                    colour = "white" if value < 55 else "black"
                    ax.text(x, y, f"{value:.0f}", ha="center", va="center", fontsize=6.5, color=colour)
    return save(figure, path)


def _number(share: float | None) -> float:
    return float("nan") if share is None else 100 * share


def _fit(models: Sequence[str]) -> list[str]:
    from orbench.report.table import shorten

    return [shorten(name, 32) for name in models]
