"""How results and messages leave the program: a table or JSON on standard output, lines on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import typer

from orbench.errors import OrbenchError
from orbench.results import Evaluation

if TYPE_CHECKING:
    from orbench.evaluation.money import Plan


def print_results(results: list[Evaluation], *, json: bool, quiet: bool) -> None:
    """Print each result as one JSON line, or as a table with remarks; without a table these go to standard error."""
    from orbench.report.table import remarks

    for number, result in enumerate(results):
        if json:
            typer.echo(msgspec.json.encode(result.to_dict()).decode())
        elif not quiet:
            if number:
                typer.echo("")
            title, *lines = (plain(line) for line in str(result).split("\n"))
            typer.echo("\n".join([bold(title), *lines]))
        if json or quiet:
            about = f"{result.model}: " if len(results) > 1 else ""
            for remark in remarks(result):
                say(about + remark)


def print_plans(plans: Sequence[Plan | OrbenchError], *, json: bool) -> int:
    """Print what `--dry-run` found out, as tables or one JSON line a model, and return the exit code."""
    shown = [plan for plan in plans if not isinstance(plan, OrbenchError)]
    for number, plan in enumerate(shown):
        if json:
            typer.echo(msgspec.json.encode(plan.to_dict()).decode())
        else:
            typer.echo("\n" * (number > 0) + "\n".join(plain(line) for line in str(plan).split("\n")))
    if len(shown) > 1 and not json:
        from orbench.report.costs import plans_line

        typer.echo("\n" + plans_line(shown))
    for error in plans:
        if isinstance(error, OrbenchError):
            say(str(error))
    return 1 if len(shown) < len(plans) else 0


def say(message: str) -> None:
    """Print a message for people as one line on standard error, without any key that a service put into it."""
    from orbench.models.keys import without_keys

    print(f"orbench: {plain(without_keys(message))}", file=sys.stderr)


def plain(text: str) -> str:
    """Without control characters and line breaks, so that no reply can steer the terminal."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else " " for character in text)


def bold(text: str) -> str:
    """Bold on a terminal that wants it; NO_COLOR is honoured (no-color.org)."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        return f"\033[1m{text}\033[0m"
    return text


def exit_code(results: list[Evaluation]) -> int:
    """3 if any row ended in an error or with a judge that failed, else 0."""
    return 3 if any(result.open for result in results) else 0
