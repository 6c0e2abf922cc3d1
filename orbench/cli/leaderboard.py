"""`orbench leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from orbench.cli import options
from orbench.errors import UsageError

if TYPE_CHECKING:
    from orbench.categories_of import Panel

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
    from orbench.categories_of import TITLES, category_rates
    from orbench.report.comparison import notes

    if not runs and not published:
        raise UsageError("no model given: name run folders, or --published for the paper's tables")
    found = category_rates(runs, published=published, policy=policy)
    if json:
        typer.echo(msgspec.json.encode(found.to_dict()).decode())
    elif format == "text":
        for rate, rows in found.panels.items():
            typer.echo(f"{TITLES[rate]}\n{_text(rows)}\n")
        for line in notes(found.notes):
            typer.echo(line)
    else:
        typer.echo(options.export(found.table(), format), nl=False)
    if plot is not None:
        from orbench.report.heatmap import draw_heatmap

        drawn = draw_heatmap({TITLES[rate]: rows for rate, rows in found.panels.items()}, plot)
        _say(f"drawn in {drawn}", json or format != "text")


def _text(panel: Panel) -> str:
    from orbench.categories_of import category_names
    from orbench.report.format import NOTHING
    from orbench.report.table import columns, shorten

    names = category_names(panel.values())
    rows = [["model", *(name[:7] for name in names)]]
    for model, row in panel.items():
        shares = [row.get(name) for name in names]
        rows.append([shorten(model, 26), *(NOTHING if s is None else f"{100 * s:.1f}" for s in shares)])
    return "\n".join(columns(rows))


def _say(sentence: str, elsewhere: bool) -> None:
    """On standard error where standard output is for other programs."""
    typer.echo(sentence, err=elsewhere)
