"""`orbench leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from orbench.cli import options
from orbench.errors import UsageError

if TYPE_CHECKING:
    from orbench.report.export import Table

Plot = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Draw it: .png, .svg or .pdf (needs the extra `plot`).")
]


def leaderboard(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN...]", help="Run folders, or published:NAME for a row.")
    ] = None,
    published: Annotated[bool, typer.Option("--published", help="Add the 32 models of the paper.")] = False,
    category: Annotated[bool, typer.Option("--category", help="Rates by category instead; --plot: a map.")] = False,
    plot: Plot = None,
    policy: options.PolicyOption = None,
    draws: Annotated[int, typer.Option("--draws", metavar="N", help="Bootstrap draws.")] = 10_000,
    seed: options.Seed = 0,
    format: options.Format = "text",
    json: options.Json = False,
) -> None:
    """Models side by side: both rates, ranks that the data allow, correlation, picture."""
    from orbench.leaderboards import leaderboard as make

    if plot is not None:
        from orbench.report.drawing import check_suffix

        check_suffix(plot)
    if category:
        _categories(runs or [], published, policy, plot, format, json)
        return
    board = make(runs or [], published=published, policy=policy, draws=draws, seed=seed)
    if json:
        typer.echo(msgspec.json.encode(board.to_dict()).decode())
    elif format == "text":
        typer.echo(str(board))
    else:
        typer.echo(options.export(board.table(), format), nl=False)
    if plot is not None:
        _say(f"drawn in {board.plot(plot)}", json or format != "text")


def _categories(
    runs: list[str], published: bool, policy: str | None, plot: Path | None, format: str, json: bool
) -> None:
    from orbench.categories_of import category_rates, category_table

    if not runs and not published:
        raise UsageError("no model given: name run folders, or --published for the paper's tables")
    panels = category_rates(runs, published=published, policy=policy)
    if json:
        typer.echo(msgspec.json.encode(panels).decode())
    elif format == "text":
        for title, rows in panels.items():
            typer.echo(f"{title}\n{_text(category_table(rows))}\n")
    else:
        for rows in panels.values():
            typer.echo(options.export(category_table(rows), format))
    if plot is not None:
        from orbench.report.heatmap import draw_heatmap

        drawn = {title: rows for title, rows in panels.items() if len(rows) == max(map(len, panels.values()))}
        _say(f"drawn in {draw_heatmap(drawn, plot)}", json or format != "text")


def _text(table: Table) -> str:
    from orbench.report.format import NOTHING
    from orbench.report.table import columns, shorten

    head = [table.head[0], *(name[:7] for name in table.head[1:])]
    rows = [
        [shorten(str(row[0]), 26), *(NOTHING if cell is None else f"{100 * float(cell):.1f}" for cell in row[1:])]
        for row in table.rows
    ]
    return "\n".join(columns([head, *rows]))


def _say(sentence: str, elsewhere: bool) -> None:
    """On standard error where standard output is for other programs."""
    typer.echo(sentence, err=elsewhere)
