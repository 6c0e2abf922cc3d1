"""The application and its commands, in the order in which `orbench --help` lists them."""

from __future__ import annotations

from typing import Annotated

import typer

import orbench
from orbench.cli import compare, evaluate, inform, leaderboard, report

app = typer.Typer(
    name="orbench",
    help="Does this model refuse what it should answer, and answer what it should refuse?",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"orbench {orbench.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Does this model refuse what it should answer, and answer what it should refuse?"""


app.command("evaluate")(evaluate.evaluate)
app.command("score")(evaluate.score)
app.command("show")(inform.show)
app.command("compare")(compare.compare)
app.command("leaderboard")(leaderboard.leaderboard)
app.command("report")(report.report)
app.command("splits")(inform.splits)
app.command("models")(inform.models)
app.command("path")(inform.path)
