"""`orbench evaluate` and `orbench score`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from orbench.cli import options
from orbench.cli.output import exit_code, print_plans, print_results, say
from orbench.errors import OrbenchError


def evaluate(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help="provider/name; see `orbench models`.")],
    split: options.Splits = None,
    data: options.Data = None,
    revision: options.Revision = None,
    column: options.ColumnOption = None,
    limit: options.Limit = None,
    shard: options.ShardOption = None,
    precision: options.Precision = None,
    seed: options.Seed = 0,
    scorer: options.ScorerOption = "cascade",
    judge: options.JudgeOption = None,
    judge_template: options.JudgeTemplateOption = "three-classes",
    judge_rule: options.JudgeRule = "majority",
    safety_judge: options.SafetyJudge = None,
    audit: options.Audit = 0.05,
    calibration: options.CalibrationOption = None,
    family: options.Family = None,
    phrases: options.Phrases = None,
    policy: options.PolicyOption = None,
    base_url: options.BaseUrl = None,
    judge_base_url: options.JudgeBaseUrl = None,
    temperature: options.Temperature = 0.0,
    max_tokens: options.MaxTokens = 1000,
    system_prompt: options.SystemPrompt = None,
    concurrency: options.Concurrency = None,
    rpm: options.Rpm = None,
    tpm: options.Tpm = None,
    dry_run: options.DryRun = False,
    max_cost: options.MaxCost = None,
    prices: options.Prices = None,
    batch: options.Batch = False,
    api: options.Api = None,
    google_sdk: options.GoogleSdk = None,
    google_safety: options.GoogleSafety = None,
    timeout: options.Timeout = None,
    engine: options.Engine = None,
    engine_option: options.EngineOption = None,
    ray_address: options.RayAddress = None,
    workers: options.Workers = None,
    out: options.Out = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Ask the models the prompts, score the replies, print both rates.

    The same command again goes on where it stopped and asks nothing twice.
    """
    from orbench.evaluation import DEFAULT_SPLITS, estimate, evaluate_all

    given: dict[str, Any] = {
        "splits": split or DEFAULT_SPLITS,
        "data": data,
        "revision": revision,
        "columns": options.pairs(column, "--column"),
        "limit": limit,
        "shard": shard,
        "precision": precision,
        "seed": seed,
        "scorer": scorer,
        "judge": judge,
        "judge_template": judge_template,
        "judge_rule": judge_rule,
        "safety_judge": safety_judge,
        "audit": audit,
        "calibration": calibration,
        "family": family,
        "phrases": phrases,
        "policy": policy,
        "base_url": base_url,
        "judge_base_url": judge_base_url,
        "temperature": temperature,
        "max_tokens": max_tokens,
        "system_prompt": options.text_or_file(system_prompt),
        "concurrency": concurrency,
        "batch": batch,
        "rpm": rpm,
        "tpm": tpm,
        "max_cost": max_cost,
        "prices": prices,
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
    }
    if dry_run:
        raise typer.Exit(print_plans(estimate(models, **given), json=json))
    found = evaluate_all(models, **given)
    results = [result for result in found if not isinstance(result, OrbenchError)]
    errors = [result for result in found if isinstance(result, OrbenchError)]
    print_results(results, json=json, quiet=quiet)
    for error in errors:
        say(str(error))
    raise typer.Exit(1 if errors else exit_code(results))


def score(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    scorer: options.AnyScorer = None,
    judge: options.JudgeOption = None,
    judge_template: options.JudgeTemplateOption = "three-classes",
    judge_rule: options.JudgeRule = "majority",
    safety_judge: options.SafetyJudge = None,
    audit: options.Audit = 0.05,
    seed: options.Seed = 0,
    calibration: options.CalibrationOption = None,
    labels: options.LabelsOption = None,
    family: options.Family = None,
    phrases: options.Phrases = None,
    policy: options.PolicyOption = None,
    judge_base_url: options.JudgeBaseUrl = None,
    concurrency: options.Concurrency = None,
    rpm: options.Rpm = None,
    tpm: options.Tpm = None,
    dry_run: options.DryRun = False,
    max_cost: options.MaxCost = None,
    prices: options.Prices = None,
    engine: options.Engine = None,
    engine_option: options.EngineOption = None,
    ray_address: options.RayAddress = None,
    workers: options.Workers = None,
    batch: options.Batch = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Score a finished or partial run again; calls no model but the judges.

    The old verdicts are kept and shown against the new ones. With --policy, --calibration or --labels alone no
    verdict changes and nothing is asked.
    """
    from orbench.evaluation import estimate_score
    from orbench.evaluation import score as score_run

    given: dict[str, Any] = {
        "scorer": scorer,
        "judge": judge,
        "judge_template": judge_template,
        "judge_rule": judge_rule,
        "safety_judge": safety_judge,
        "audit": audit,
        "seed": seed,
        "calibration": calibration,
        "labels": labels,
        "family": family,
        "phrases": phrases,
        "policy": policy,
        "judge_base_url": judge_base_url,
        "model_options": {
            "engine": options.engine_options(engine_option),
            "ray": options.ray_options(engine, ray_address, workers),
        },
        "batch": batch,
        "concurrency": concurrency,
        "rpm": rpm,
        "tpm": tpm,
        "max_cost": max_cost,
        "prices": prices,
        "progress": False if quiet else None,
    }
    if dry_run:
        raise typer.Exit(print_plans([estimate_score(run, **given)], json=json))
    result = score_run(run, **given)
    print_results([result], json=json, quiet=quiet)
    raise typer.Exit(exit_code([result]))
