"""`orbench align`: from a run to training data to a trained model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
import typer

from orbench.cli import options
from orbench.cli.output import plain, print_plans
from orbench.mitigation.config import Dpo, Raft, Sft, Training

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
OneJudge = Annotated[str | None, typer.Option("--judge", metavar="MODEL", help="Settles what the scorer leaves open.")]
Folder = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; the same command goes on in it.")]


@app.command("pairs")
def pairs(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with over-refused prompts.")],
    teacher: Teacher,
    out: Folder,
    moderator: Moderators = None,
    held_out: Annotated[
        float,
        typer.Option("--held-out", metavar="SHARE|N", help="Of the run's prompts of each kind, only ever measured on."),
    ] = 0.2,
    validation: Annotated[
        float,
        typer.Option(
            "--validation", metavar="SHARE|N", help="Of the run's prompts of each kind, to choose checkpoints."
        ),
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
    judge: OneJudge = None,
    base_url: options.BaseUrl = None,
    temperature: options.Temperature = 0.0,
    max_tokens: options.MaxTokens = 1000,
    system_prompt: options.SystemPrompt = None,
    concurrency: options.Concurrency = None,
    rpm: options.Rpm = None,
    tpm: options.Tpm = None,
    dry_run: options.DryRun = False,
    max_cost: options.MaxCost = None,
    prices: options.Prices = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Preference pairs in TRL's formats: a teacher's answers beside the run's over-refusals; a part is held out."""
    from orbench.mitigation.card import card_text
    from orbench.mitigation.pairs import estimate_pairs, make_pairs

    given: dict[str, Any] = {
        "teacher": teacher,
        "out": out,
        "moderators": moderator or [],
        "held_out": held_out,
        "validation": validation,
        "containment": containment,
        "stand_in": options.text_or_file(stand_in),
        "seed": seed,
        "scorer": scorer,
        "judge": judge,
        "base_url": base_url,
        "temperature": temperature,
        "max_tokens": max_tokens,
        "system_prompt": options.text_or_file(system_prompt),
        "concurrency": concurrency,
        "rpm": rpm,
        "tpm": tpm,
        "max_cost": max_cost,
        "prices": prices,
        "progress": False if quiet else None,
    }
    if dry_run:
        raise typer.Exit(print_plans([estimate_pairs(run, **given)], json=json))
    made = make_pairs(run, **given)
    if json:
        typer.echo(msgspec.json.encode(made.card).decode())
    elif not quiet:
        typer.echo("\n".join(plain(line) for line in card_text(made.card).rstrip().split("\n")))
    raise typer.Exit(3 if made.failed else 0)


@app.command("overgenerate")
def overgenerate(
    teacher: Annotated[
        list[str], typer.Option("--teacher", metavar="MODEL", help="Whom to ask; repeatable; see `orbench models`.")
    ],
    out: Folder,
    split: Annotated[
        list[str],
        typer.Option(
            "--split", metavar="NAME|PATH", help="Prompts to learn from; as in `orbench evaluate`; repeatable."
        ),
    ],
    held_out: Annotated[
        Path | None,
        typer.Option(
            "--held-out", metavar="DIR|FILE", help="Folder of the pairs, or prompts: leave out what is like them."
        ),
    ] = None,
    data: options.Data = None,
    limit: options.Limit = None,
    n: Annotated[int, typer.Option("--n", metavar="N", help="Completions of each teacher for each prompt.")] = 4,
    moderator: Moderators = None,
    helpfulness: Annotated[
        str | None,
        typer.Option("--helpfulness", metavar="MODEL", help="A judge that gives marks, or reward/PATH_OR_ID."),
    ] = None,
    scorer: options.ScorerOption = "cascade",
    judge: OneJudge = None,
    base_url: options.BaseUrl = None,
    temperature: options.Temperature = 0.8,
    max_tokens: options.MaxTokens = 1000,
    system_prompt: options.SystemPrompt = None,
    seed: options.Seed = 0,
    concurrency: options.Concurrency = None,
    rpm: options.Rpm = None,
    tpm: options.Tpm = None,
    dry_run: options.DryRun = False,
    max_cost: options.MaxCost = None,
    prices: options.Prices = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Several completions a prompt from teachers, scored; the best and, as a control, a random one to learn from."""
    from orbench.mitigation.overgenerate import estimate_overgeneration
    from orbench.mitigation.overgenerate import overgenerate as make
    from orbench.mitigation.terms import cost_text

    given: dict[str, Any] = {
        "teachers": teacher,
        "out": out,
        "n": n,
        "moderators": moderator or [],
        "helpfulness": helpfulness,
        "scorer": scorer,
        "judge": judge,
        "temperature": temperature,
        "max_tokens": max_tokens,
        "system_prompt": options.text_or_file(system_prompt),
        "seed": seed,
        "base_url": base_url,
        "concurrency": concurrency,
        "rpm": rpm,
        "tpm": tpm,
        "max_cost": max_cost,
        "prices": prices,
        "held_out": held_out,
        "data": data,
        "limit": limit,
        "progress": False if quiet else None,
    }
    if dry_run:
        raise typer.Exit(print_plans(estimate_overgeneration(split, **given), json=json))
    made = make(split, **given)
    if json:
        typer.echo(msgspec.json.encode(made).decode())
    elif not quiet:
        shares = ", ".join(f"{made.chosen.get(kind, 0)} of {count} {kind}" for kind, count in made.prompts.items())
        found = f"{made.candidates:,} completions in {plain(made.out)}; prompts with one fit to learn: {shares}"
        typer.echo("\n".join([found, *(f"- {plain(note)}" for note in made.notes)]))
        typer.echo(f"Cost: {plain(cost_text(made.cost_usd))}.")
    raise typer.Exit(3 if made.failed else 0)


@app.command("report")
def report(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="Run folder of the model before training.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="Run folder of the trained model, same prompts.")],
    general: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--general", metavar="BEFORE AFTER", help="Run folders of both on general prompts."),
    ] = None,
    helpfulness: Annotated[
        str | None,
        typer.Option("--helpfulness", metavar="MODEL", help="Marks those replies: a judge, or reward/PATH_OR_ID."),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option("--pairs", metavar="DIR", help="Folder of the pairs: adds the ranking figure of local models."),
    ] = None,
    lm_eval: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--lm-eval", metavar="BEFORE AFTER", help="Result files of lm-eval: boolq, openbookqa, piqa..."),
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write a page of both runs.")] = None,
    policy: options.PolicyOption = None,
    base_url: options.BaseUrl = None,
    concurrency: options.Concurrency = None,
    rpm: options.Rpm = None,
    tpm: options.Tpm = None,
    max_cost: options.MaxCost = None,
    prices: options.Prices = None,
    json: options.Json = False,
) -> None:
    """Before and after, on the same prompts: the papers' measures, three ways of replying, paired tests."""
    from orbench.mitigation.report import report_loop

    loop = report_loop(
        before,
        after,
        general=general,
        helpfulness=helpfulness,
        pairs=pairs,
        lm_eval=lm_eval,
        policy=policy,
        html=html,
        base_url=base_url,
        concurrency=concurrency,
        rpm=rpm,
        tpm=tpm,
        max_cost=max_cost,
        prices=prices,
    )
    if json:
        typer.echo(msgspec.json.encode(loop).decode())
    else:
        typer.echo("\n".join(plain(line) for line in str(loop).split("\n")))
    raise typer.Exit(3 if loop.failed else 0)


def _train(name: str, kind: type[Training], run: Callable[[Any], Any], words: str) -> None:
    """A command whose options are the fields of a record of settings."""

    def command(**given: Any) -> None:
        from orbench.mitigation.config import make_config

        file, preset, json, quiet = (given.pop(each) for each in ("config", "preset", "json", "quiet"))
        trained = run(make_config(kind, given, file=file, preset=preset))
        from orbench.mitigation.folder import is_first_process

        if not is_first_process():
            return
        if json:
            typer.echo(msgspec.json.encode(trained).decode())
        elif not quiet:
            from orbench.report.training import training_table

            typer.echo("\n".join(plain(line) for line in training_table(trained).split("\n")))

    hints = get_type_hints(kind, include_extras=True)
    options_: dict[str, tuple[Any, Any]] = {
        "config": (Path | None, typer.Option("--config", metavar="FILE", help="YAML of these settings; flags win.")),
        "preset": (
            str | None,
            typer.Option("--preset", metavar="NAME", help="A paper's settings; docs/mitigation.md."),
        ),
    }
    for field in msgspec.structs.fields(kind):
        hint, *about = get_args(hints[field.name])
        said = next(meta.description for meta in reversed(about) if getattr(meta, "description", None))
        default = "" if field.required or field.default in (None, False) else f" Default: {field.default}."
        type_ = next(each for each in (get_args(hint) or (hint,)) if each is not type(None))
        if get_origin(hint) is not None and isinstance(type_, str):  # one of some names
            said, type_ = f"{said} One of {', '.join(get_args(hint))}.", str
        options_[field.name] = (
            type_ | None,
            typer.Option(f"--{field.name.replace('_', '-')}", help=f"{said}{default}", show_default=False),
        )
    options_ |= {
        "json": (bool, typer.Option("--json", help="Standard output carries JSON alone.")),
        "quiet": (bool, typer.Option("--quiet", help="No table, no progress; errors and warnings still show.")),
    }
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                each,
                inspect.Parameter.KEYWORD_ONLY,
                default=False if each in ("json", "quiet") else None,
                annotation=Annotated[type_, option],
            )
            for each, (type_, option) in options_.items()
        ]
    )
    command.__annotations__ = {each: Annotated[type_, option] for each, (type_, option) in options_.items()}
    command.__doc__ = words
    app.command(name)(command)


def _sft(config: Sft) -> Any:
    from orbench.mitigation.trainer import sft

    return sft(config)


def _raft(config: Raft) -> Any:
    from orbench.mitigation.raft import raft

    return raft(config)


def _dpo(config: Dpo) -> Any:
    from orbench.mitigation.trainer import dpo

    return dpo(config)


_train(
    "sft",
    Sft,
    _sft,
    "Fine-tune on good replies; with --safety, safety instruction tuning. The best checkpoint is kept.",
)
_train("raft", Raft, _raft, "Sample replies, fine-tune on the best of them, again. The best iteration is kept.")
_train("dpo", Dpo, _dpo, "Optimise preferences (DPO, or --loss kto). The best checkpoint is kept.")
