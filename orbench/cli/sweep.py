"""`orbench sweep`."""

from __future__ import annotations

from itertools import chain
from typing import Annotated, Any

import msgspec
import typer

from orbench.cli import options
from orbench.cli.leaderboard import Plot
from orbench.cli.output import exit_code, plain, print_plans, say


def sweep(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="provider/name; see `orbench models`.")],
    temperature: Annotated[
        list[float] | None,
        typer.Option("--temperature", metavar="T", help="0 to 2; repeatable. The first is the base."),
    ] = None,
    system_prompt: Annotated[
        list[str] | None, typer.Option("--system-prompt", metavar="TEXT|@FILE", help="A cell with it; repeatable.")
    ] = None,
    defense: Annotated[
        list[str] | None,
        typer.Option(
            "--defense",
            metavar="NAME",
            help="A cell behind it: self-reminder, in-context-refusal, smoothllm, response-check; repeatable.",
        ),
    ] = None,
    repeat: Annotated[int, typer.Option("--repeat", metavar="N", help="Runs of each cell.")] = 1,
    grid: Annotated[bool, typer.Option("--grid", help="All combinations, not one change at a time.")] = False,
    unstable: Annotated[bool, typer.Option("--unstable", help="List the prompts whose verdict moves.")] = False,
    plot: Plot = None,
    split: options.Splits = None,
    data: options.Data = None,
    revision: options.Revision = None,
    column: options.ColumnOption = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    scorer: options.ScorerOption = "cascade",
    judge: options.JudgeOption = None,
    judge_template: options.JudgeTemplateOption = "three-classes",
    judge_rule: options.JudgeRule = "majority",
    safety_judge: options.SafetyJudge = None,
    audit: options.Audit = 0.05,
    family: options.Family = None,
    policy: options.PolicyOption = None,
    base_url: options.BaseUrl = None,
    judge_base_url: options.JudgeBaseUrl = None,
    max_tokens: options.MaxTokens = 1000,
    concurrency: options.Concurrency = None,
    rpm: options.Rpm = None,
    tpm: options.Tpm = None,
    dry_run: options.DryRun = False,
    max_cost: options.MaxCost = None,
    prices: options.Prices = None,
    api: options.Api = None,
    google_sdk: options.GoogleSdk = None,
    google_safety: options.GoogleSafety = None,
    timeout: options.Timeout = None,
    engine: options.Engine = None,
    engine_option: options.EngineOption = None,
    ray_address: options.RayAddress = None,
    workers: options.Workers = None,
    out: options.Out = None,
    format: options.Format = "text",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Both rates under several temperatures, system prompts, defences, repetitions.

    Each cell is a run of its own; the same command again goes on where it stopped.
    """
    from orbench.evaluation import DEFAULT_SPLITS
    from orbench.sweeps import estimate_sweep
    from orbench.sweeps import sweep as run_sweep

    if plot is not None:
        from orbench.report.drawing import require

        require(plot)
    given: dict[str, Any] = {
        "temperatures": temperature or [0.0],
        "system_prompts": [options.text_or_file(text) or "" for text in system_prompt or []],
        "defenses": defense or [],
        "repeat": repeat,
        "grid": grid,
        "splits": split or DEFAULT_SPLITS,
        "data": data,
        "revision": revision,
        "columns": options.pairs(column, "--column"),
        "limit": limit,
        "seed": seed,
        "scorer": scorer,
        "judge": judge,
        "judge_template": judge_template,
        "judge_rule": judge_rule,
        "safety_judge": safety_judge,
        "audit": audit,
        "family": family,
        "policy": policy,
        "base_url": base_url,
        "judge_base_url": judge_base_url,
        "max_tokens": max_tokens,
        "concurrency": concurrency,
        "model_options": {
            "api": api,
            "google_sdk": google_sdk,
            "google_safety": google_safety,
            "timeout_s": timeout,
            "engine": options.engine_options(engine_option),
            "ray": options.ray_options(engine, ray_address, workers),
        },
        "out": out,
        "progress": False if quiet else None,
        "rpm": rpm,
        "tpm": tpm,
        "max_cost": max_cost,
        "prices": prices,
    }
    if dry_run:
        raise typer.Exit(print_plans(estimate_sweep(model, **given), json=json))
    found = run_sweep(model, **given)
    if unstable:
        _list_unstable(found, json=json)
    elif json:
        typer.echo(msgspec.json.encode(found.to_dict()).decode())
    elif format != "text":
        typer.echo(options.export(found.table(), format), nl=False)
    elif not quiet:
        typer.echo("\n".join(plain(line) for line in str(found).split("\n")))
    if plot is not None:
        say(f"drawn in {found.plot(plot)}")
    raise typer.Exit(exit_code(list(chain.from_iterable(found.results))))


def _list_unstable(found: Any, *, json: bool) -> None:
    from orbench.report.format import percent
    from orbench.report.table import shorten

    texts = {(row.split, row.prompt_id): row.prompt for row in found.results[0][0].rows()}
    if not json:
        typer.echo("\n".join(f"{number}  {cell.label}" for number, cell in enumerate(found.cells, start=1)))
    for prompt in found.prompts():
        if prompt.is_steady:
            continue
        if json:
            typer.echo(msgspec.json.encode(prompt).decode())
        else:
            shares = "  ".join(f"{n}: {percent(share, 0)}" for n, share in enumerate(prompt.refused, start=1))
            typer.echo(f"{prompt.split}  {prompt.category}  refused in {shares}")
            typer.echo(f"  > {plain(shorten(texts.get((prompt.split, prompt.prompt_id), ''), 300))}")
