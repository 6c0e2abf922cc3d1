"""`orbench merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orbench.cli import options
from orbench.cli.output import exit_code, print_results


def merge(
    shards: Annotated[list[Path], typer.Argument(metavar="SHARD", help="Run folders made with --shard, all of them.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The run folder to make.")],
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make one run of the shards of an evaluation; they must belong together and be complete."""
    from orbench.shards import merge as merge_runs

    result = merge_runs(shards, out)
    print_results([result], json=json, quiet=quiet)
    raise typer.Exit(exit_code([result]))
