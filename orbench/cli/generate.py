"""`orbench generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from orbench.cli import options
from orbench.cli.output import plain, say
from orbench.errors import UsageError


def generate(
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder of the data set.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="YAML; options given beside it go before it.")
    ] = None,
    init: Annotated[
        Path | None, typer.Option("--init", metavar="FILE", help="Write a commented configuration and stop.")
    ] = None,
    category: Annotated[
        list[str] | None,
        typer.Option(
            "--category",
            metavar="NAME",
            help="What prompts are made for, or NAME=DEFINITION for one's own; repeatable.",
        ),
    ] = None,
    language: Annotated[
        str | None, typer.Option("--language", metavar="NAME", help="Language of the prompts; default English.")
    ] = None,
    language_code: Annotated[
        str | None,
        typer.Option(
            "--language-code", metavar="CODE", help="ISO 639-1; models' prompts in another are dropped; none: no check."
        ),
    ] = None,
    seeds_per_category: Annotated[
        int | None, typer.Option("--seeds-per-category", metavar="N", help="Target; default 2000, as in the paper.")
    ] = None,
    rewrites: Annotated[
        int | None, typer.Option("--rewrites", metavar="N", help="Rewrites a seed; default 5, as in the paper.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option("--rounds", metavar="N", help="Times that what stayed toxic is rewritten; default 0.")
    ] = None,
    seeds_per_call: Annotated[
        int | None,
        typer.Option("--seeds-per-call", metavar="N", help="Asked for at once; default 20, the paper's."),
    ] = None,
    seeds: Annotated[
        Path | None, typer.Option("--seeds", metavar="FILE", help="Given seeds: column prompt, perhaps category.")
    ] = None,
    from_prompts: Annotated[
        Path | None, typer.Option("--from-prompts", metavar="FILE", help="Given prompts, moderated as they are.")
    ] = None,
    column: options.ColumnOption = None,
    seeder: Annotated[str | None, typer.Option("--seeder", metavar="MODEL", help="Writes the seeds.")] = None,
    rewriter: Annotated[str | None, typer.Option("--rewriter", metavar="MODEL", help="Rewrites them.")] = None,
    moderator: Annotated[
        list[str] | None, typer.Option("--moderator", metavar="MODEL", help="Votes on rewrites; repeatable.")
    ] = None,
    rescue: Annotated[
        str | None,
        typer.Option(
            "--rescue", metavar="MODEL", help="Without safety training; a safe answer of its brings a prompt back."
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            "--rule", metavar="NAME", help="paper (majority, rescue), majority, unanimous, at-least:K, weighted."
        ),
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option("--weight", metavar="MODEL=W", help="Of a moderator, for --rule weighted; repeatable."),
    ] = None,
    panel: Annotated[
        list[str] | None, typer.Option("--panel", metavar="MODEL", help="Chooses the Hard split; repeatable.")
    ] = None,
    panel_judge: Annotated[
        str | None, typer.Option("--panel-judge", metavar="MODEL", help="Reads the panel's unclear replies.")
    ] = None,
    hard_min: Annotated[
        int | None, typer.Option("--hard-min", metavar="K", help="Of the panel that must refuse; default 3.")
    ] = None,
    hard_size: Annotated[
        int | None, typer.Option("--hard-size", metavar="N", help="Prompts of the Hard split; default 1000.")
    ] = None,
    toxic_size: Annotated[
        int | None, typer.Option("--toxic-size", metavar="N", help="Prompts of the Toxic split; default 600.")
    ] = None,
    test_share: Annotated[
        float | None,
        typer.Option("--test-share", metavar="SHARE", help="Of the kept prompts, for splits/test; default 0."),
    ] = None,
    min_characters: Annotated[
        int | None, typer.Option("--min-characters", metavar="N", help="Shorter prompts are dropped; default 15.")
    ] = None,
    max_characters: Annotated[
        int | None, typer.Option("--max-characters", metavar="N", help="Longer prompts are dropped; default 1000.")
    ] = None,
    likeness: Annotated[
        float | None,
        typer.Option("--likeness", metavar="SHARE", help="Shared words of near duplicates; default 0.8."),
    ] = None,
    personal_data: Annotated[
        str | None,
        typer.Option("--personal-data", metavar="WHAT", help="flag (default), scrub or drop prompts that hold it."),
    ] = None,
    overlap_with: Annotated[
        Path | None, typer.Option("--overlap-with", metavar="FILE", help="Prompts to report overlap with.")
    ] = None,
    bertscore: Annotated[
        str | None, typer.Option("--bertscore", metavar="MODEL", help="Model of transformers, for diversity; extra hf.")
    ] = None,
    review_size: Annotated[
        int | None, typer.Option("--review-size", metavar="N", help="Prompts drawn for people; default 100.")
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--labels", metavar="NAME=FILE", help="A person's copy of splits/review.csv; repeatable."),
    ] = None,
    base_url: options.BaseUrl = None,
    concurrency: options.Concurrency = None,
    rpm: options.Rpm = None,
    tpm: options.Tpm = None,
    batch: options.Batch = False,
    max_cost: options.MaxCost = None,
    prices: options.Prices = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="Seed of samples; default 0.")] = None,
    stage: Annotated[
        str | None,
        typer.Option("--stage", metavar="NAME", help="seeds, rewrites, moderation or selection alone; default all."),
    ] = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Build new splits: seeds, rewrites, moderation, selection.

    The same command again goes on where it stopped and asks nothing twice.
    """
    from orbench.generation import generate as run
    from orbench.generation import make_config
    from orbench.generation.config import write_default

    if init is not None:
        write_default(init)
        say(f"{init}: fill in the models, then run orbench generate --config {init} --out DIR")
        return
    own, names = _categories(category or [])
    given: dict[str, Any] = {
        "out": out,
        "categories": names,
        "language": language,
        "language_code": language_code,
        "seeds_per_category": seeds_per_category,
        "seeds_per_call": seeds_per_call,
        "rewrites": rewrites,
        "rounds": rounds,
        "seeds": seeds,
        "from_prompts": from_prompts,
        "columns": options.pairs(column, "--column"),
        "seeder": seeder,
        "rewriter": rewriter,
        "moderators": moderator,
        "rescue": rescue,
        "rule": rule,
        "weights": _weights(weight),
        "panel": panel,
        "panel_judge": panel_judge,
        "hard_min": hard_min,
        "hard_size": hard_size,
        "toxic_size": toxic_size,
        "test_share": test_share,
        "min_characters": min_characters,
        "max_characters": max_characters,
        "likeness": likeness,
        "personal_data": personal_data,
        "overlap_with": overlap_with,
        "bertscore": bertscore,
        "review_size": review_size,
        "labels": options.pairs(labels, "--labels"),
        "base_url": base_url,
        "concurrency": concurrency,
        "rpm": rpm,
        "tpm": tpm,
        "batch": batch or None,
        "max_cost": max_cost,
        "prices": prices,
        "seed": seed,
    }
    changes = {name: value for name, value in given.items() if value not in (None, [], {})}
    if own:
        changes["own_categories"] = own
    checked = make_config(config or {}, **changes)
    if dry_run:
        _print_estimate(checked, stage, json=json)
        return
    result = run(checked, stage=stage, progress=False if quiet else None)
    if json:
        typer.echo(msgspec.json.encode(result.to_dict()).decode())
    elif not quiet:
        typer.echo("\n".join(plain(line) for line in str(result).split("\n")))
    raise typer.Exit(3 if result.open else 1 if result.is_empty else 0)


def _categories(given: list[str]) -> tuple[dict[str, str], list[str]]:
    """Own definitions, and the names of all."""
    own: dict[str, str] = {}
    names = []
    for each in given:
        name, equals, definition = each.partition("=")
        names.append(name.strip())
        if equals:
            if not definition.strip():
                raise UsageError(f"--category {each}: no definition behind the equals sign")
            if own.setdefault(name.strip(), definition.strip()) != definition.strip():
                raise UsageError(f"--category {each}: {name.strip()} was defined before as {own[name.strip()]!r}")
    return own, names


def _weights(given: list[str] | None) -> dict[str, float]:
    weights = {}
    for model, value in options.pairs(given, "--weight").items():
        try:
            weights[model] = float(value)
        except ValueError:
            raise UsageError(f"--weight {model}={value}: write MODEL=NUMBER") from None
    return weights


def _print_estimate(config: Any, stage: str | None, *, json: bool) -> None:
    from orbench.generation.estimate import estimate, warn_of_bound

    found = estimate(config, stage)
    warn_of_bound(config, found)
    typer.echo(msgspec.json.encode(found.to_dict()).decode() if json else str(found))
