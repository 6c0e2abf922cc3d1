"""Overgeneration: several completions a prompt from one or more teachers, scored, and the best of them taken.

In: prompts (general ones, over-refused ones, toxic ones) and teachers. Out: a folder with

    candidates.jsonl    every completion with its scores
    chosen.jsonl        the best of each prompt by the rule of `orbench.mitigation.choose`, to be learned
    random.jsonl        a random one of each of the same prompts, the control; none that a moderator found unsafe
    held_out_prompts.csv, validation_prompts.csv    those of `held_out`, where it is given: training looks here
    TEACHER-K/          a run folder for each completion of each teacher
    moderation.jsonl, helpfulness.jsonl
    overgeneration.json its card: counts, settings, published splits, cost

Source: POROver (arXiv 2410.12999): several completions of GPT-4o for general-purpose and for toxic prompts. Number of
completions and temperature are not published where we could read them; ours are 4 and 0.8.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

import orbench
from orbench.costs import total_cost
from orbench.engine.run_folder import folder_name
from orbench.errors import OrbenchError, OrbenchWarning, UsageError
from orbench.evaluation import estimate, evaluate
from orbench.evaluation.money import Plan, warn_if_short
from orbench.evaluation.setup import AnyModel, AnySplit, describe_splits, load, refuse_repeated, shared_base_url
from orbench.ledger import Ledger
from orbench.mitigation.apart import find_published, like_any
from orbench.mitigation.choose import Candidate
from orbench.mitigation.files import (
    HELD_OUT_PROMPTS,
    VALIDATION_PROMPTS,
    has_prompts,
    write_prompts,
)
from orbench.mitigation.helpful import MARKS, Helpfulness, Marks
from orbench.mitigation.moderate import MODERATION, Moderated, Moderators
from orbench.mitigation.taken import Overgenerated, take
from orbench.mitigation.terms import Terms, added_costs, costs_of_run, make_terms, name_of, spent_on
from orbench.records import Prompt, Response
from orbench.results import Evaluation, Row
from orbench.splits import Split, load_split


def overgenerate(
    splits: AnySplit | Sequence[AnySplit],
    *,
    teachers: Sequence[AnyModel],
    out: str | Path,
    n: int = 4,
    moderators: Sequence[AnyModel] = (),
    helpfulness: AnyModel | None = None,
    scorer: str = "cascade",
    judge: AnyModel | None = None,
    temperature: float = 0.8,
    max_tokens: int = 1000,
    system_prompt: str | None = None,
    seed: int = 0,
    base_url: str | None = None,
    concurrency: int | None = None,
    rpm: float | None = None,
    tpm: float | None = None,
    prices: str | Path | None = None,
    max_cost: float | None = None,
    held_out: str | Path | None = None,
    data: str | Path | None = None,
    limit: int | None = None,
    progress: bool | None = None,
    _dry: bool = False,
) -> Overgenerated:
    """Draw completions, score them, take the best. The same call again goes on and asks nothing twice.

    Args:
        splits: Prompts, as `evaluate` takes them; general prompts are `safe` ones.
        teachers: One or more models.
        out: The folder to write.
        n: Completions of each teacher for each prompt, each in a run folder with a seed of its own.
        moderators: Each must find a completion safe.
        helpfulness: A judge, or `reward/PATH_OR_ID`; without one the first fit completion is taken.
        scorer: Says whether a completion refuses.
        judge: Settles what the scorer leaves open.
        temperature: Of the draws; with n above 1 it must be above 0.
        max_tokens: Longest completion.
        system_prompt: Of the teachers.
        seed: Of the draws and the control.
        base_url: Address of the teachers, and of others of their provider.
        concurrency: Calls open at once, of each model.
        rpm: Requests a minute at most, for each model by itself.
        tpm: Tokens a minute at most, sent and received, likewise.
        prices: CSV of prices over the shipped ones; see `orbench.costs.load_prices`.
        max_cost: USD that all models may spend together, earlier calls for the same folder included.
        held_out: Folder of `align pairs`, or a file of prompts: what is only measured on, or chosen by. Prompts of the
            splits that are of one group with any of them are left out.
        data: Folder of the named splits.
        limit: Prompts of each split.
        progress: Show a progress bar.

    Raises:
        orbench.UsageError: Options that cannot be meant.
        orbench.ModelError: A model cannot be used at all.
        orbench.RunError: The folder cannot be used, or no completion is fit to be learned.
    """
    if n < 1:
        raise UsageError(f"n is {n}: at least 1")
    if n > 1 and temperature == 0:
        raise UsageError("with temperature 0 all completions of a prompt would be alike: raise it, or take n 1")
    if not teachers:
        raise UsageError("no teacher given")
    terms = make_terms(concurrency=concurrency, rpm=rpm, tpm=tpm, prices=prices, max_cost=max_cost)
    folder = Path(out)
    names = [name_of(teacher) for teacher in teachers]
    refuse_repeated([folder_name(name) for name in names], "two teachers are called {}: name each once")
    parts = {} if held_out is None else _read_parts(held_out)
    loaded = load(splits, data=data, revision=None, limit=limit, seed=seed)
    every = [prompt for split in loaded for prompt in split]
    away = like_any(every, [prompt for part in parts.values() for prompt in part])
    loaded = _without(loaded, away)
    published = find_published(describe_splits(loaded))
    options: dict[str, Any] = {
        "scorer": scorer,
        "judge": judge,
        "temperature": temperature,
        "max_tokens": max_tokens,
        "system_prompt": system_prompt,
        "base_url": base_url,
        "judge_base_url": shared_base_url(base_url, teachers, judge),
        "concurrency": concurrency,
        "rpm": rpm,
        "tpm": tpm,
        "prices": prices,
        "max_cost": terms.budget,
        "progress": progress,
    }
    draws = [
        (teacher, number, folder / f"{folder_name(name)}-{number}")
        for teacher, name in zip(teachers, names, strict=True)
        for number in range(1, n + 1)
    ]
    raters = Moderators(moderators, teachers, base_url, folder / MODERATION, terms)
    marker = None if helpfulness is None else Helpfulness(helpfulness, teachers, base_url, folder / MARKS, terms)
    raters.check()
    if marker is not None:
        marker.check()
    if _dry:
        planned: Any = _plans(draws, loaded, seed, raters, marker, options)
        warn_if_short(terms.budget, total_cost(planned))
        return planned  # type: ignore[no-any-return]  # estimate_overgeneration knows
    if published and not parts:
        warnings.warn(
            f"the prompts are of {', '.join(published)}: after training on completions to them, figures on all of it "
            "mean nothing. Hold a part out with --held-out, a folder of orbench align pairs or a file of prompts",
            OrbenchWarning,
            stacklevel=2,
        )
    runs = _draw(draws, loaded, seed, terms, options)
    rows = [(teacher, number, row) for teacher, number, result in runs for row in result.rows()]
    replies = [_response(teacher, number, row) for teacher, number, row in rows if row.error is None and row.response]
    labels = raters.moderate(replies)
    marks = Marks({}, Ledger()) if marker is None else marker.rate(replies)
    failed = (
        sum(result.open for _, _, result in runs)
        + sum(value is None for value in marks.values.values())
        + sum(None in found for found in labels.labels.values())
    )
    terms.warn_if_out(failed)
    linked = {(p.split, p.id): (p.seed_id, p.group_id) for split in loaded for p in split}
    candidates = [
        _candidate(teacher, number, row, labels, marks, linked[row.split, row.prompt_id])
        for teacher, number, row in rows
    ]
    made = take(
        folder,
        candidates,
        moderated=bool(moderators),
        failed=failed,
        why=next((why for _, _, run in runs if (why := run.call_failure or run.judge_failure)), None),
        about={
            "orbench_version": orbench.__version__,
            "out": str(folder),
            "teachers": list(dict.fromkeys(teacher for teacher, _, _ in runs)),
            "moderators": [name_of(one) for one in moderators],
            "helpfulness": None if marker is None else marker.name,
            "scorer": scorer,
            "judge": runs[0][2].config["scorer"]["judge"],
            "temperature": temperature,
            "max_tokens": max_tokens,
            "system_prompt": system_prompt,
            "seed": seed,
            "n": n,
            "splits": [split.name for split in loaded],
            "published": published,
            "left_out": len(away),
            "cost_usd": {
                **added_costs(costs_of_run(result, "teacher") for _, _, result in runs),
                **labels.cost_usd,
                **marks.cost_usd,
            },
            "usage": {
                "teachers": {f"{teacher} {number}": result.to_dict()["usage"] for teacher, number, result in runs},
                "moderators": {name: ledger.to_dict() for name, ledger in labels.usage.items()},
                "helpfulness": marks.usage.to_dict(),
            },
        },
    )
    for file, part in parts.items():
        write_prompts(folder / file, list(part))
    return made


def estimate_overgeneration(splits: AnySplit | Sequence[AnySplit], **options: Any) -> list[Plan]:
    """What `overgenerate(splits, **options)` would ask and spend; nothing is sent, nothing written.

    Returns:
        A plan for each completion of each teacher; moderators and helpfulness are in the first, for all of them.

    Raises:
        orbench.OrbenchError: As `overgenerate` raises it.
    """
    plans: Any = overgenerate(splits, _dry=True, **options)
    return list(plans)


_Draws = Sequence[tuple[AnyModel, int, Path]]
"""Teacher, number of the completion, run folder."""


def _plans(
    draws: _Draws,
    splits: Sequence[Split],
    seed: int,
    raters: Moderators,
    marker: Helpfulness | None,
    options: dict[str, Any],
) -> list[Plan]:
    plans: list[Plan] = []
    for teacher, number, run in draws:
        (plan,) = estimate([teacher], splits=splits, out=run, seed=seed + number - 1, **options)
        if isinstance(plan, OrbenchError):
            raise plan
        plans.append(plan)
    prompts = [prompt for split in splits for prompt in split]
    every = [
        msgspec.structs.replace(prompt, split=_place(plan.model, number, prompt.split))
        for plan, (_, number, _) in zip(plans, draws, strict=True)
        for prompt in prompts
    ]
    more = raters.estimate(every, options["max_tokens"])
    more += [] if marker is None else marker.estimate(every, options["max_tokens"])
    judges = [*plans[0].judges, *more]
    target = [plans[0].target] if plans[0].target else []
    plans[0] = msgspec.structs.replace(plans[0], judges=judges, cost_usd=total_cost([*target, *judges]))
    return plans


def _draw(
    draws: _Draws, splits: Sequence[Split], seed: int, terms: Terms, options: dict[str, Any]
) -> list[tuple[str, int, Evaluation]]:
    """The completions; what later folders have cost before counts from the beginning."""
    before = [0.0 if terms.budget is None else spent_on(run, terms) for _, _, run in draws]
    if terms.budget is not None:
        terms.budget.spent_usd += sum(before)
    runs = []
    for (teacher, number, run), spent in zip(draws, before, strict=True):
        if terms.budget is not None:
            terms.budget.spent_usd -= spent  # counted again by the evaluation
        result = evaluate(teacher, splits=splits, out=run, seed=seed + number - 1, **options)
        runs.append((result.model, number, result))
    return runs


def _read_parts(held_out: str | Path) -> dict[str, Split]:
    """What may not be learned from, by the file that it is to be in."""
    path = Path(held_out)
    if not path.is_dir():
        return {HELD_OUT_PROMPTS: load_split(path)}
    parts = {
        name: load_split(path / name) for name in (HELD_OUT_PROMPTS, VALIDATION_PROMPTS) if has_prompts(path / name)
    }
    if not parts:
        raise UsageError(
            f"held_out is {path}: no {HELD_OUT_PROMPTS} with prompts in it, as orbench align pairs makes it"
        )
    return parts


def _without(splits: Sequence[Split], away: Sequence[Prompt]) -> list[Split]:
    gone = {(prompt.split, prompt.id) for prompt in away}
    if not gone:
        return list(splits)
    found = [Split(s.name, [p for p in s if (p.split, p.id) not in gone], s.source) for s in splits]
    if not any(map(len, found)):
        raise UsageError("every prompt of the splits is held out, or nearly the same as one that is")
    return [split for split in found if len(split)]


def _place(teacher: str, number: int, split: str) -> str:
    """One completion's place among all that are scored together."""
    return f"{teacher} {number} {split}"


def _response(teacher: str, number: int, row: Row) -> Response:
    return Response(
        prompt_id=row.prompt_id,
        split=_place(teacher, number, row.split),
        category=row.category,
        kind=row.kind,
        prompt=row.prompt,
        response=row.response,
    )


def _candidate(
    teacher: str,
    number: int,
    row: Row,
    labels: Moderated,
    marks: Marks,
    linked: tuple[str | None, str | None],
) -> Candidate:
    key = (_place(teacher, number, row.split), row.prompt_id)
    return Candidate(
        prompt_id=f"{row.split}/{row.prompt_id}",
        prompt=row.prompt,
        kind=row.kind,
        category=row.category,
        teacher=teacher,
        number=number,
        completion=row.response,
        refused=row.refused,
        passed=labels.passed(key),
        helpfulness=marks.values.get(key),
        error=row.error,
        finish_reason=row.finish_reason,
        blocked_by=row.blocked_by,
        seed_id=linked[0],
        group_id=linked[1],
    )
