"""`orbench align`: from a run to training data to a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from orbench.cli import options
from orbench.cli.output import plain

app = typer.Typer(
    help="From diagnosis to cure: training data from a run, training, and the same measurement again.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Teacher = Annotated[
    str, typer.Option("--teacher", metavar="MODEL", help="Whom to ask what the model refused; see `orbench models`.")
]
Moderators = Annotated[
    list[str] | None,
    typer.Option("--moderator", metavar="MODEL", help="Must find a reply safe; repeatable; guards in their own form."),
]
Folder = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; the same command goes on in it.")]


@app.command("pairs")
def pairs(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with over-refused prompts.")],
    teacher: Teacher,
    out: Folder,
    moderator: Moderators = None,
    held_out: Annotated[
        float, typer.Option("--held-out", metavar="SHARE", help="Of the run's prompts, only ever measured on.")
    ] = 0.2,
    validation: Annotated[
        float, typer.Option("--validation", metavar="SHARE", help="Of the run's prompts, to choose checkpoints on.")
    ] = 0.15,
    containment: Annotated[
        float, typer.Option("--containment", metavar="SHARE", help="Least share of toxic rows; safe ones give way.")
    ] = 0.0,
    stand_in: Annotated[
        str | None,
        typer.Option("--stand-in", metavar="TEXT|@FILE", help="Neutral text as `rejected` of refused toxic prompts."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the parts and of what containment drops.")] = 0,
    scorer: options.ScorerOption = "cascade",
    judge: options.JudgeOption = None,
    base_url: options.BaseUrl = None,
    temperature: options.Temperature = 0.0,
    max_tokens: options.MaxTokens = 1000,
    system_prompt: options.SystemPrompt = None,
    concurrency: options.Concurrency = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Preference pairs in TRL's formats: a teacher's answers beside the run's over-refusals; a part is held out."""
    from orbench.mitigation.card import card_text
    from orbench.mitigation.pairs import make_pairs

    made = make_pairs(
        run,
        teacher=teacher,
        out=out,
        moderators=moderator or [],
        held_out=held_out,
        validation=validation,
        containment=containment,
        stand_in=options.text_or_file(stand_in),
        seed=seed,
        scorer=scorer,
        judge=judge,
        base_url=base_url,
        temperature=temperature,
        max_tokens=max_tokens,
        system_prompt=options.text_or_file(system_prompt),
        concurrency=concurrency,
        progress=False if quiet else None,
    )
    if json:
        typer.echo(msgspec.json.encode(made.card).decode())
    elif not quiet:
        typer.echo("\n".join(plain(line) for line in card_text(made.card).rstrip().split("\n")))
    raise typer.Exit(3 if made.failed else 0)
