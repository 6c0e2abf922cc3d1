"""`orbench compare`."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from orbench.cli import options
from orbench.errors import UsageError


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN", help="Two or more run folders, or published:NAME for the paper's rates."),
    ],
    flips: Annotated[bool, typer.Option("--flips", help="List the prompts that one refused, the other not.")] = False,
    categories: Annotated[bool, typer.Option("--categories", help="Compare each category too.")] = False,
    category: Annotated[str | None, typer.Option("--category", metavar="NAME", help="List flips of this one.")] = None,
    policy: options.PolicyOption = None,
    format: options.Format = "text",
    json: options.Json = False,
) -> None:
    """Compare runs prompt by prompt: paired differences, intervals, exact p-values."""
    from orbench.comparison import compare as compare_runs
    from orbench.report.comparison import comparison_table

    found = compare_runs(*runs, policy=policy)
    if flips:
        _list_flips(found, category, json=json)
    elif category is not None:
        raise UsageError("--category is for --flips; --categories compares each category")
    elif json:
        typer.echo(msgspec.json.encode(found.to_dict()).decode())
    elif format == "text":
        typer.echo(comparison_table(found, categories=categories))
    else:
        typer.echo(options.export(found.table(categories=categories), format), nl=False)


def _list_flips(found: object, category: str | None, *, json: bool) -> None:
    from orbench.cli.output import plain
    from orbench.comparison import Comparison
    from orbench.report.table import shorten

    assert isinstance(found, Comparison)
    for number, pair in enumerate(found.pairs):
        if not json:
            typer.echo(f"A {pair.a}\nB {pair.b}")
        for flip in found.flips(number, category):
            if json:
                typer.echo(msgspec.json.encode({"a": pair.a, "b": pair.b, **msgspec.structs.asdict(flip)}).decode())
            else:
                by = "A" if flip.refused_by == pair.a else "B"
                typer.echo(f"{flip.split}  {flip.category}  refused by {by} ({flip.outcome_a} / {flip.outcome_b})")
                typer.echo(f"  > {plain(shorten(flip.prompt, 300))}")
                typer.echo(f"  A {plain(shorten(flip.response_a, 300))}")
                typer.echo(f"  B {plain(shorten(flip.response_b, 300))}")
