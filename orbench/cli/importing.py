"""`orbench import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orbench.cli import options
from orbench.cli.output import exit_code, print_results


def import_(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE", help="Logs of inspect_ai, lm-eval; tables with prompt, response (safe=FILE, toxic=FILE)."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The run folder to make.")],
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Who replied; of several in a file, the one to take.")
    ] = None,
    column: options.ColumnOption = None,
    scorer: options.AnyScorer = None,
    family: options.Family = None,
    policy: options.PolicyOption = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a run of replies that another tool got, and score them; no model is called."""
    from orbench.imports import import_run

    result = import_run(
        files,
        out,
        model=model,
        columns=options.pairs(column, "--column"),
        scorer=scorer,
        family=family,
        policy=policy,
    )
    print_results([result], json=json, quiet=quiet)
    raise typer.Exit(exit_code([result]))
