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

    if category is not None and not flips:
        raise UsageError("--category is for --flips; --categories compares each category")
    if flips:
        _list_flips(runs, policy, category, format, json=json)
        return
    found = compare_runs(*runs, policy=policy)
    if json:
        typer.echo(msgspec.json.encode(found.to_dict()).decode())
    elif format == "text":
        typer.echo(comparison_table(found, categories=categories))
    else:
        typer.echo(options.export(found.table(categories=categories), format), nl=False)


def _list_flips(runs: list[str], policy: str | None, category: str | None, format: str, *, json: bool) -> None:
    from orbench.cli.output import plain
    from orbench.comparison import flips
    from orbench.report.comparison import flips_export
    from orbench.report.table import shorten

    pairs = flips(*runs, policy=policy, category=category)
    if format != "text" and not json:
        typer.echo(options.export(flips_export(pairs), format), nl=False)
        return
    for a, b, found in pairs:
        if not json:
            typer.echo(f"A {a}\nB {b}")
        for flip in found:
            if json:
                typer.echo(msgspec.json.encode({"a": a, "b": b, **msgspec.structs.asdict(flip)}).decode())
            else:
                by = "A" if flip.refused_by == a else "B"
                outcomes = f"{flip.outcome_a} / {flip.outcome_b}"
                prompt, *replies = (plain(shorten(t, 300)) for t in (flip.prompt, flip.response_a, flip.response_b))
                typer.echo(
                    f"{flip.split}  {flip.category}  refused by {by} ({outcomes})\n"
                    f"  > {prompt}\n  A {replies[0]}\n  B {replies[1]}"
                )
