"""How results and messages leave the program: a table or JSON on standard output, lines on standard error."""

from __future__ import annotations

import os
import sys

import msgspec
import typer

from orbench.results import Evaluation


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


def say(message: str) -> None:
    """Print a message for people as one line on standard error."""
    print(f"orbench: {plain(message)}", file=sys.stderr)


def plain(text: str) -> str:
    """Without control characters and line breaks, so that no reply can steer the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def bold(text: str) -> str:
    """Bold on a terminal that wants it; NO_COLOR is honoured (no-color.org)."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        return f"\033[1m{text}\033[0m"
    return text


def exit_code(results: list[Evaluation]) -> int:
    """3 if any row ended in an error or with a judge that failed, else 0."""
    return 3 if any(result.open for result in results) else 0
