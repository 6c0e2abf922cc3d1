"""The application and its commands, in the order in which `orbench --help` lists them, and how errors end it."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import orbench
from orbench.cli import (
    align,
    check,
    compare,
    evaluate,
    generate,
    importing,
    inform,
    judging,
    leaderboard,
    merge,
    push,
    report,
    sweep,
)
from orbench.cli.grouped import GroupedCommand
from orbench.cli.output import say
from orbench.cli.signals import orderly_sigterm
from orbench.engine.jsonl import without_surrogates
from orbench.errors import OrbenchError, OrbenchWarning, UsageError


class _Commands(TyperGroup):
    """All commands. Turns what they raise on purpose into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was typed."""
        with orderly_sigterm() as ended:
            return self._invoke(ctx, ended)

    def _invoke(self, ctx: Any, ended: list[int]) -> Any:
        try:
            if odd := [argument for argument in sys.argv[1:] if without_surrogates(argument) != argument]:
                raise UsageError(f"not text in UTF-8: {os.fsencode(odd[0])!r}")
            said: set[str] = set()

            def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
                """Say ours, each once: a model that is opened twice warns twice."""
                if issubclass(category, OrbenchWarning) and str(message) not in said:
                    said.add(str(message))
                    say(f"warning: {message}")

            with warnings.catch_warnings():
                warnings.showwarning = show
                return super().invoke(ctx)
        except OrbenchError as error:
            say(str(error))
            raise typer.Exit(2 if isinstance(error, UsageError) else 1) from None
        except KeyboardInterrupt:
            how = "ended by SIGTERM" if ended else "interrupted"
            say(f"{how}. Everything received is saved; run the same command again to go on")
            raise typer.Exit(143 if ended else 130) from None
        except BrokenPipeError:
            # The reader of our output has gone, as `| head` does. Python must not try to write the rest at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from None
        except OSError as error:
            if error.filename is None:
                raise  # not about a path that was typed
            say(f"{error.filename}: {error.strerror}; check that path, and what may be done with it")
            raise typer.Exit(1) from None


app = typer.Typer(
    name="orbench",
    cls=_Commands,
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


_COMMANDS = (
    ("evaluate", evaluate.evaluate, "Ask models the prompts, read the replies, print both rates."),
    ("score", evaluate.score, "Score a run again with another scorer, judge or policy."),
    ("show", inform.show, "The result of a run again, or the rows behind its numbers."),
    ("calibrate", judging.calibrate, "Measure a scorer or judge against labels by people."),
    ("label", judging.label, "Label replies of a run by hand; feeds calibrate."),
    ("compare", compare.compare, "Two runs or more, prompt by prompt."),
    ("sweep", sweep.sweep, "One model under temperatures, system prompts, defences."),
    ("generate", generate.generate, "New splits: seeds, rewrites, moderation, selection."),
    ("push", push.push, "A generated data set to the Hub."),
    ("leaderboard", leaderboard.leaderboard, "Many models: table, ranks, correlation, picture."),
    ("report", report.report, "One HTML page about one run or several."),
    ("merge", merge.merge, "One run from the shards of an evaluation."),
    ("import", importing.import_, "A run from replies that another tool got."),
    ("check", check.check, "Release gate: passes only if the intervals say so."),
    ("splits", inform.splits, "What can be evaluated by name, and where it comes from."),
    ("models", inform.models, "The providers: which are installed and have a key."),
    ("doctor", inform.doctor, "What is wrong with this set-up, and what to do."),
    ("path", inform.path, "Where a shipped file lies."),
)
for _name, _function, _help in _COMMANDS:
    app.command(_name, short_help=_help, cls=GroupedCommand)(_function)
app.add_typer(align.app, name="align", short_help="From a run to training data to a trained model.")
