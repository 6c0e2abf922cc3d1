"""Evaluates models: prompts -> replies -> verdicts, saved as they come, and a result in the end.

This module says what happens to a prompt; how calls are made, saved and tried again is the engine's business, and
how a reply is read is the scorer's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from orbench.costs import Budget, load_prices, total_cost
from orbench.engine.limits import limit_for
from orbench.engine.run_folder import RunFolder, read_config
from orbench.engine.threads import run_sync
from orbench.errors import OrbenchError, UsageError
from orbench.evaluation.money import Plan, make_budget, warn_if_out, warn_if_short
from orbench.evaluation.run import Run, count_spent, plan_all, run_all
from orbench.evaluation.setup import (
    AnyModel,
    AnySplit,
    Judges,
    check,
    check_calibration,
    check_models,
    check_pace,
    check_ray,
    folder_of,
    load,
    make_config,
    policy_of,
    refuse_repeated,
    shared_base_url,
    warn_of_choosers,
    without_key,
)
from orbench.models import Options, make_options, open_model
from orbench.models.batch import in_batches
from orbench.precision import check_precision
from orbench.records import Sampling
from orbench.results import Evaluation
from orbench.run_state import scan
from orbench.scoring.audit import SHARE, check_share
from orbench.scoring.judge import TEMPLATE
from orbench.scoring.outcomes import check_policy
from orbench.scoring.scorers import make_scorer
from orbench.shards import parse_shard, take

DEFAULT_SPLITS = ("hard-1k", "toxic")


def evaluate(
    model: AnyModel,
    *,
    splits: AnySplit | Sequence[AnySplit] = DEFAULT_SPLITS,
    data: str | Path | None = None,
    revision: str | None = None,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    shard: str | None = None,
    precision: float | None = None,
    seed: int = 0,
    scorer: str = "cascade",
    judge: AnyModel | Sequence[AnyModel] | None = None,
    judge_template: str = TEMPLATE,
    judge_rule: str = "majority",
    safety_judge: AnyModel | None = None,
    audit: float = SHARE,
    calibration: str | Path | None = None,
    family: str | None = None,
    phrases: str | Path | None = None,
    policy: str | None = None,
    base_url: str | None = None,
    judge_base_url: str | None = None,
    temperature: float = 0.0,
    top_p: float | None = None,
    max_tokens: int = 1000,
    system_prompt: str | None = None,
    concurrency: int | None = None,
    rpm: float | None = None,
    tpm: float | None = None,
    prices: str | Path | None = None,
    max_cost: float | Budget | None = None,
    batch: bool = False,
    model_options: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """Ask a model the prompts, score its replies, and give both rates.

    The run is saved in a folder as it goes; the same call again goes on where it stopped and asks nothing twice.
    Works also inside a running event loop, such as a notebook's.

    Args:
        model: `provider/name`, a callable `str -> str` (synchronous or not), or an `orbench.Model`.
        splits: Names, files, `safe=FILE`, `toxic=FILE`, or splits already loaded.
        data: Folder of the named splits; else ORBENCH_DATA_DIR, else the Hub.
        revision: Revision of the Hub data set; default `main`.
        columns: Names of columns in files of prompts, where they differ from ours: `{"prompt": "question"}`.
        limit: Prompts of each split, sampled in proportion to its categories; default all.
        shard: `K/N`: only the K-th of N parts of the prompts; `orbench.merge` joins the runs.
        precision: Stop when half the width of each rate's interval, valid however often one looks, is this; the
            same call without it goes on to the end. See `orbench.precision`.
        seed: Seed of that sample or order, and of sampling models where temperature is not 0.
        scorer: `cascade`, `keywords`, `judge`, `paper` or `hf/PATH_OR_ID`.
        judge: Model that reads what the scorer leaves to it; several make a panel.
        judge_template: How it is asked: one of `orbench.scoring.judge.JUDGE_TEMPLATES`, or your own `FILE.jinja`.
        judge_rule: How a panel settles: `majority` or `unanimous`.
        safety_judge: Model that says whether replies to toxic prompts are unsafe; guard models are asked in their form.
        audit: Share of what earlier stages decided that the judge checks too, at least 50 replies; 0 for none.
        calibration: File of `orbench calibrate` for the same scorer, to correct the rates with.
        family: Family of phrases for `paper`, where the model's name does not say it.
        phrases: File of your own phrases, one a line, for `cascade` and `keywords` (docs/scoring.md).
        policy: `default`, `strict` or `paper`: which outcomes count as refused. By default that of the run which is
            gone on with, and `default` for a new one.
        base_url: Address of the models, and of a judge of the same provider.
        judge_base_url: Address of the judge.
        temperature: 0 (greedy, as in the paper) to 2.
        top_p: Nucleus sampling, above 0 to 1; by default the model's own.
        max_tokens: Longest reply; 1000 as in the paper's code.
        system_prompt: Sent before each prompt; none by default, as in the paper.
        concurrency: Calls open at once for each model by itself, judges too; default: found out while running.
        rpm: Requests a minute at most, for each model by itself, judges too.
        tpm: Tokens a minute at most, sent and received, likewise.
        prices: CSV of prices over the shipped ones; see `orbench.costs.load_prices`.
        max_cost: USD that the run may spend, earlier runs in the same folder and judges included; then it stops with
            what there is. A `Budget` is shared by several calls.
        batch: Ask through OpenAI's or Anthropic's batch API: half the price, done within a day. The call waits for
            it, may be stopped anywhere, and the same call goes on.
        model_options: Of single providers: `api`, `google_sdk`, `google_safety`, `timeout_s` (docs/providers.md),
            `engine` (docs/local-models.md), `ray` (docs/scale.md).
        out: Run folder. Default `runs/<provider>--<name>-<digest>`.
        progress: Show a progress bar; default: if standard error is a terminal.

    Raises:
        orbench.UsageError: Options that cannot be meant.
        orbench.SplitError: Prompts that cannot be had.
        orbench.ModelError: The model, or the judge, cannot be used at all.
        orbench.RunError: The run folder cannot be used.
    """
    (result,) = evaluate_all(
        [model],
        splits=splits,
        data=data,
        revision=revision,
        columns=columns,
        limit=limit,
        shard=shard,
        precision=precision,
        seed=seed,
        scorer=scorer,
        judge=judge,
        judge_template=judge_template,
        judge_rule=judge_rule,
        safety_judge=safety_judge,
        audit=audit,
        calibration=calibration,
        family=family,
        phrases=phrases,
        policy=policy,
        base_url=base_url,
        judge_base_url=judge_base_url,
        temperature=temperature,
        top_p=top_p,
        max_tokens=max_tokens,
        system_prompt=system_prompt,
        concurrency=concurrency,
        rpm=rpm,
        tpm=tpm,
        prices=prices,
        max_cost=max_cost,
        batch=batch,
        model_options=model_options,
        out=out,
        progress=progress,
    )
    if isinstance(result, OrbenchError):
        raise result
    return result


def evaluate_all(  # noqa: D417 - the arguments are described once
    models: Sequence[AnyModel],
    *,
    splits: AnySplit | Sequence[AnySplit] = DEFAULT_SPLITS,
    data: str | Path | None = None,
    revision: str | None = None,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    shard: str | None = None,
    precision: float | None = None,
    seed: int = 0,
    scorer: str = "cascade",
    judge: AnyModel | Sequence[AnyModel] | None = None,
    judge_template: str = TEMPLATE,
    judge_rule: str = "majority",
    safety_judge: AnyModel | None = None,
    audit: float = SHARE,
    calibration: str | Path | None = None,
    family: str | None = None,
    phrases: str | Path | None = None,
    policy: str | None = None,
    base_url: str | None = None,
    judge_base_url: str | None = None,
    temperature: float = 0.0,
    top_p: float | None = None,
    max_tokens: int = 1000,
    system_prompt: str | None = None,
    concurrency: int | None = None,
    rpm: float | None = None,
    tpm: float | None = None,
    prices: str | Path | None = None,
    max_cost: float | Budget | None = None,
    batch: bool = False,
    model_options: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    progress: bool | None = None,
    _do: Callable[[Sequence[Run | OrbenchError]], Awaitable[list[Any]]] = run_all,
) -> list[Evaluation | OrbenchError]:
    """Evaluate several models on the same prompts, those behind a wire side by side.

    Args:
        models: What to evaluate.
        max_cost: USD that all of them together may spend.
        out: For several models the folder of their run folders; for one the run folder itself.

    The other arguments are those of `evaluate`.

    Returns:
        For each model its result, or the error that stopped it; one model's error does not stop the others.

    Raises:
        orbench.UsageError: Options that cannot be meant.
        orbench.SplitError: Prompts that cannot be had.
        orbench.ModelError: A judge that cannot be used.
    """
    check_models(models)
    check(temperature, max_tokens, concurrency, limit, system_prompt, rpm, tpm, top_p)
    check_precision(precision)
    table, budget = load_prices(prices), make_budget(max_cost)
    check_policy(policy or "default")
    if batch and precision is not None:
        raise UsageError(
            "precision looks at replies as they come; a batch brings them all at once: leave one of them out"
        )
    check_share(audit)
    part = None if shard is None else parse_shard(shard)
    if part is not None and precision is not None:
        raise UsageError("--shard and --precision exclude each other: a part cannot know when the whole is enough")
    options = make_options(base_url, concurrency, model_options)
    limit_of = partial(limit_for, concurrency=concurrency, rpm=rpm, tpm=tpm)

    def judge_options(one: AnyModel) -> Options:
        return make_options(judge_base_url or shared_base_url(base_url, models, one), concurrency, model_options)

    if errors := run_sync(without_key(models, options, [judge, safety_judge], judge_options)):
        return [*errors]
    whole = load(splits, data=data, revision=revision, columns=columns, limit=limit, seed=seed)
    warn_of_choosers(models, whole)
    loaded = whole if part is None else take(whole, part)
    sampling = Sampling(
        temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed if temperature > 0 else None
    )
    check_ray(options, [*models, judge, safety_judge], precision)

    async def run() -> list[Evaluation | OrbenchError]:
        prepared: list[Run | OrbenchError] = []
        judges = Judges(judge, judge_template, judge_rule, safety_judge, judge_options, limit_of)
        try:
            for position, spec in enumerate(models):
                try:
                    model = open_model(spec, options)
                    config = make_config(model, loaded, sampling, system_prompt)
                    if part is not None:
                        of = make_config(model, whole, sampling, system_prompt)
                        config["shard"] = {**asdict(part), "digest": of["digest"], "splits": of["splits"]}
                    reader = make_scorer(scorer, judge=judges.judge, model=model.name, family=family, phrases=phrases)
                    check_calibration(calibration, reader)
                    folder = folder_of(out, model.name, config["digest"], many=len(models) > 1)
                    prepared.append(
                        Run(
                            model=in_batches(model, folder, config["digest"], quiet=progress is False)
                            if batch
                            else model,
                            splits=loaded,
                            folder=folder,
                            config={
                                **config,
                                "policy": policy_of(folder, policy),
                                "concurrency": concurrency,
                                "rpm": rpm,
                                "tpm": tpm,
                                "batch": batch,
                                "precision": None if precision is None else {"half_width": precision, "seed": seed},
                                "stopped_early": None,
                            },
                            scorer=reader,
                            safety=judges.safety,
                            audit=(audit, seed),
                            calibration=calibration,
                            limit=limit_of(model),
                            position=position,
                            progress=progress,
                            prices=table,
                            budget=budget,
                        )
                    )
                except UsageError:
                    raise
                except OrbenchError as error:
                    prepared.append(error)
            refuse_repeated(
                [str(run.folder) for run in prepared if isinstance(run, Run)],
                "two of the models would share the run folder {}: evaluate them apart",
            )
            count_spent(prepared)
            return await _do(prepared)
        finally:
            for each in prepared:
                if isinstance(each, Run):
                    await each.close()
            await judges.close()

    found = run_sync(run())
    if not isinstance(max_cost, Budget):
        _warn_of_bound(budget, found)
    return found


def estimate(models: Sequence[AnyModel], **options: Any) -> list[Plan | OrbenchError]:
    """What `evaluate_all(models, **options)` would ask and spend; nothing is sent, nothing written.

    Returns:
        For each model its plan, or the error that would stop it. A plan has ranges for calls, tokens and USD: from
        every reply a short refusal to every reply as long as `max_tokens` allows; None where a price is unknown.

    Raises:
        orbench.OrbenchError: As `evaluate_all` raises it.
    """
    plans: list[Any] = evaluate_all(models, **options, _do=plan_all)
    return plans


def score(
    run: str | Path,
    *,
    scorer: str | None = None,
    judge: AnyModel | Sequence[AnyModel] | None = None,
    judge_template: str = TEMPLATE,
    judge_rule: str = "majority",
    safety_judge: AnyModel | None = None,
    audit: float = SHARE,
    seed: int = 0,
    calibration: str | Path | None = None,
    labels: str | Path | None = None,
    family: str | None = None,
    phrases: str | Path | None = None,
    policy: str | None = None,
    judge_base_url: str | None = None,
    concurrency: int | None = None,
    rpm: float | None = None,
    tpm: float | None = None,
    prices: str | Path | None = None,
    max_cost: float | None = None,
    model_options: Mapping[str, Any] | None = None,
    batch: bool = False,
    progress: bool | None = None,
    _do: Callable[[Run], Awaitable[Any]] = Run.run,
) -> Evaluation:
    """Score a finished or partial run again; calls no model but the judges.

    The old verdicts stay in the file; the last one of a row counts, and `rescored` of the result sets them side by
    side. Where nothing is given but `policy`, `calibration` or `labels`, no verdict changes and nothing is asked.
    Options as in `evaluate_all`, and `labels` as in `Evaluation.correct`; `policy` None keeps the run's own. `batch`
    asks the judges through their vendors' batch APIs.

    Raises:
        orbench.OrbenchError: No such run, or options that cannot be meant.
    """
    from orbench.rescoring import compare_verdicts

    folder = Path(run)
    before = read_config(folder)
    check_share(audit)
    check_pace(concurrency, rpm, tpm)
    table, budget = load_prices(prices), make_budget(max_cost)
    config = {**before, "policy": check_policy(policy or before.get("policy", "default"))}
    verdicts = any(option is not None for option in (scorer, judge, family, phrases))
    given = verdicts or safety_judge is not None
    if safety_judge is not None and not verdicts:
        _check_keeps(before["scorer"])
    if not given and (policy or calibration or labels) and _do is Run.run:
        return _recount(folder, config, calibration, labels)

    async def again() -> Any:
        options = make_options(judge_base_url, concurrency, model_options)
        check_ray(options, [judge, safety_judge], None)
        limit_of = partial(limit_for, concurrency=concurrency, rpm=rpm, tpm=tpm)
        judges = Judges(judge, judge_template, judge_rule, safety_judge, lambda _: options, limit_of)
        try:
            reader = make_scorer(
                scorer or "cascade", judge=judges.judge, model=before["model"], family=family, phrases=phrases
            )
            check_calibration(calibration, reader)
            if batch:
                judges.ask_in_batches(folder, progress is False)
            was = before.get("scorer_before") or before["scorer"]
            old = Evaluation(
                folder, {**before, "scorer": was}, scan(folder, before["model"], was["digest"]), config["policy"]
            )
            work = Run(
                model=None,
                splits=[],
                folder=folder,
                config=config,
                scorer=reader,
                safety=judges.safety,
                audit=(audit, seed),
                calibration=calibration,
                labels=labels,
                limit=None,
                position=0,
                progress=progress,
                compare=lambda new: compare_verdicts(old, new),
                prices=table,
                budget=budget,
            )
            work.count_spent()
            return await _do(work)
        finally:
            await judges.close()

    result: Evaluation = run_sync(again())
    _warn_of_bound(budget, [result])
    return result


def _warn_of_bound(budget: Budget | None, found: Sequence[Any]) -> None:
    """Say in one line what the bound has cut off of runs, or may cut off of plans."""
    warn_if_out(budget, [result for result in found if isinstance(result, Evaluation)])
    warn_if_short(budget, total_cost(plan for plan in found if isinstance(plan, Plan)))


def _check_keeps(before: Mapping[str, Any]) -> None:
    """A safety judge alone shall not put the cascade's verdicts in the place of dearer ones.

    Raises:
        UsageError: The run was scored by more than the cascade.
    """
    judges = before.get("judges") or ()
    if before["name"] != "cascade" or judges:
        same = " ".join([f"--scorer {before['name']}", *(f"--judge {judge}" for judge in judges)])
        raise UsageError(
            f"this run was scored with {same}: give the same to keep its verdicts, or --scorer cascade to replace them"
        )


def estimate_score(run: str | Path, **options: Any) -> Plan:
    """What `score(run, **options)` would ask and spend; nothing is sent, nothing written.

    Raises:
        orbench.OrbenchError: As `score` raises it.
    """

    async def plan(work: Run) -> Plan:
        return work.plan()

    found: Any = score(run, **options, _do=plan)
    assert isinstance(found, Plan)
    return found


def _recount(
    folder: Path, config: dict[str, Any], calibration: str | Path | None, labels: str | Path | None
) -> Evaluation:
    """The same verdicts under another policy, or corrected."""
    opened = RunFolder(folder, config)
    try:
        result = Evaluation.load(folder)
        if calibration or labels:
            result.correct(calibration=calibration, labels=labels)
        opened.write_result(result.to_dict())
        return result
    finally:
        opened.close()
