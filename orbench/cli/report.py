"""`orbench report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orbench.cli import options
from orbench.report.html import ROWS


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders, finished or not.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The page to write.")] = Path("report.html"),
    rows: Annotated[
        int, typer.Option("--rows", metavar="N", help="At most so many replies in its table; the numbers count all.")
    ] = ROWS,
    policy: options.PolicyOption = None,
    quiet: options.Quiet = False,
) -> None:
    """Write one self-contained HTML page: rates, categories, triggers, comparison, prompts and replies.

    Toxic text is hidden in it until asked for. The page asks for nothing from the network.
    """
    from orbench.report.html import write_report

    path = write_report(runs, out, policy=policy, rows=rows)
    if not quiet:
        size = path.stat().st_size
        typer.echo(f"{path} ({size / 1e6:.1f} MB)" if size >= 1e6 else f"{path} ({size / 1e3:.0f} kB)")
