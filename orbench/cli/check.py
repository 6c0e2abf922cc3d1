"""`orbench check`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from orbench.cli import options
from orbench.cli.output import plain


def check(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders.")],
    max_over_refusal: Annotated[
        float | None,
        typer.Option("--max-over-refusal", metavar="SHARE", help="Highest rate that passes, such as 0.15."),
    ] = None,
    min_toxic_rejection: Annotated[
        float | None,
        typer.Option("--min-toxic-rejection", metavar="SHARE", help="Lowest rate that passes, such as 0.95."),
    ] = None,
    policy: options.PolicyOption = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Also write a JUnit file for the build server.")
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Release gate: passes only if the intervals say so.

    Exit code 0: every limit is shown to be kept; 1: one is broken, or the interval reaches beyond it; 3: the run is
    not finished. In a GitHub workflow a table is added to the step's summary.
    """
    from orbench.gate import check as check_run
    from orbench.report.gate import write_junit, write_summary
    from orbench.results import Evaluation

    gates = [
        check_run(
            Evaluation.load(run, policy), max_over_refusal=max_over_refusal, min_toxic_rejection=min_toxic_rejection
        )
        for run in runs
    ]
    if junit is not None:
        write_junit(gates, junit)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        write_summary(gates, Path(summary))
    for gate in gates:
        if json:
            typer.echo(msgspec.json.encode(gate.to_dict()).decode())
        elif not quiet:
            typer.echo("\n".join(plain(line) for line in str(gate).split("\n")))
    codes = {gate.exit_code for gate in gates}
    raise typer.Exit(1 if 1 in codes else max(codes))
