"""Overgeneration: several completions a prompt from one or more teachers, scored, and the best of them taken.

In: prompts (general ones, over-refused ones, toxic ones) and teachers. Out: a folder with

    candidates.jsonl    every completion with its scores
    chosen.jsonl        the best of each prompt by the rule of `orbench.mitigation.choose`, to be learned
    random.jsonl        a random one of each of the same prompts, the control
    TEACHER-K/          a run folder for each completion of each teacher
    moderation.jsonl, helpfulness.jsonl
    overgeneration.json counts, rule, cost

Source: POROver (arXiv 2410.12999): several completions of GPT-4o for general-purpose and for toxic prompts. Number of
completions and temperature are not published where we could read them; ours are 4 and 0.8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

import orbench
from orbench.engine.run_folder import folder_name, write_json
from orbench.engine.threads import run_sync
from orbench.errors import RunError, UsageError
from orbench.evaluation import evaluate
from orbench.evaluation.setup import AnyModel, AnySplit, load, shared_base_url
from orbench.ledger import Ledger
from orbench.mitigation.choose import Candidate, any_of, best_of
from orbench.mitigation.files import CHOSEN, RANDOM, Example, assistant, user, write_rows
from orbench.mitigation.helpful import REWARD, Marks, rate_helpfulness
from orbench.mitigation.moderate import Moderated, moderate
from orbench.models import make_options, open_model
from orbench.models.base import Model
from orbench.records import Response
from orbench.results import Evaluation, Row

CANDIDATES = "candidates.jsonl"


class Overgenerated(msgspec.Struct, frozen=True, kw_only=True):
    """What `overgenerate` made; `overgeneration.json`."""

    orbench_version: str
    out: str
    teachers: list[str]
    moderators: list[str]
    helpfulness: str | None
    """Who scored it."""
    n: int
    prompts: dict[str, int]
    """Kind to prompts."""
    candidates: int
    chosen: dict[str, int]
    """Kind to prompts that have a completion fit to be learned."""
    refused: dict[str, int]
    """Kind to completions that refuse."""
    not_passed: int
    """Completions that a moderator finds unsafe."""
    failed: int
    """Calls that failed or could not be read; the same command tries them again."""
    usage: dict[str, Any]


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
    data: str | Path | None = None,
    limit: int | None = None,
    progress: bool | None = None,
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
        concurrency: Calls open at once.
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
    folder = Path(out)
    loaded = load(splits, data=data, revision=None, limit=limit, seed=seed)
    runs: list[tuple[str, int, Evaluation]] = []
    for teacher in teachers:
        for number in range(1, n + 1):
            label = str(teacher if isinstance(teacher, str) else getattr(teacher, "name", "teacher"))
            result = evaluate(
                teacher,
                splits=loaded,
                out=folder / f"{folder_name(label)}-{number}",
                scorer=scorer,
                judge=judge,
                temperature=temperature,
                max_tokens=max_tokens,
                system_prompt=system_prompt,
                base_url=base_url,
                judge_base_url=shared_base_url(base_url, teachers, judge),
                concurrency=concurrency,
                seed=seed + number - 1,
                progress=progress,
            )
            runs.append((result.model, number, result))
    rows = [(teacher, number, row) for teacher, number, result in runs for row in result.rows()]
    replies = [_response(teacher, number, row) for teacher, number, row in rows if row.error is None and row.response]
    labels, marks = _score(teachers, moderators, helpfulness, replies, folder, base_url)
    candidates = [_candidate(teacher, number, row, labels, marks, bool(moderators)) for teacher, number, row in rows]
    return _take(folder, candidates, runs, moderators, helpfulness, labels, marks, n, seed)


def _take(
    folder: Path,
    candidates: list[Candidate],
    runs: Sequence[tuple[str, int, Evaluation]],
    moderators: Sequence[AnyModel],
    helpfulness: AnyModel | None,
    labels: Moderated,
    marks: Marks,
    n: int,
    seed: int,
) -> Overgenerated:
    of_prompt: dict[tuple[str, str], list[Candidate]] = {}
    for candidate in candidates:
        of_prompt.setdefault((candidate.kind, candidate.prompt_id), []).append(candidate)
    chosen = [one for group in of_prompt.values() if (one := best_of(group, moderated=bool(moderators)))]
    keys = {(one.kind, one.prompt_id) for one in chosen}
    control = [one for key, group in of_prompt.items() if key in keys and (one := any_of(group, seed))]
    write_rows(folder / CANDIDATES, candidates)
    write_rows(folder / CHOSEN, map(_example, chosen))
    write_rows(folder / RANDOM, map(_example, control))
    unread = sum(value is None for value in marks.values.values()) + sum(
        None in found for found in labels.labels.values()
    )
    made = Overgenerated(
        orbench_version=orbench.__version__,
        out=str(folder),
        teachers=list(dict.fromkeys(teacher for teacher, _, _ in runs)),
        moderators=[str(getattr(one, "name", one)) for one in moderators],
        helpfulness=None if helpfulness is None else str(getattr(helpfulness, "name", helpfulness)),
        n=n,
        prompts=dict(Counter(kind for kind, _ in of_prompt)),
        candidates=len(candidates),
        chosen=dict(Counter(one.kind for one in chosen)),
        refused=dict(Counter(one.kind for one in candidates if one.refused)),
        not_passed=sum(one.passed is False for one in candidates),
        failed=sum(result.open for _, _, result in runs) + unread,
        usage={
            "teachers": {f"{teacher} {number}": result.to_dict()["usage"] for teacher, number, result in runs},
            "moderators": labels.usage.to_dict(),
            "helpfulness": marks.usage.to_dict(),
        },
    )
    write_json(folder / "overgeneration.json", made)
    if not chosen:
        raise RunError(
            f"{folder}: no completion is fit to be learned: {made.refused} refuse, {made.not_passed} did not pass "
            f"moderation, {made.failed} failed; all of them are kept in {CANDIDATES}"
        )
    return made


def _score(
    teachers: Sequence[AnyModel],
    moderators: Sequence[AnyModel],
    helpfulness: AnyModel | None,
    replies: list[Response],
    folder: Path,
    base_url: str | None,
) -> tuple[Moderated, Marks]:
    async def ask() -> tuple[Moderated, Marks]:
        opened: list[Model] = []

        def ready(one: AnyModel) -> Model:
            opened.append(open_model(one, make_options(shared_base_url(base_url, teachers, one), None, None)))
            return opened[-1]

        try:
            labels, marks = Moderated({}, Ledger()), Marks({}, Ledger())
            if moderators:
                labels = await moderate([ready(one) for one in moderators], replies, folder / "moderation.jsonl")
            if helpfulness is not None:
                is_reward = isinstance(helpfulness, str) and helpfulness.startswith(REWARD)
                scorer = str(helpfulness) if is_reward else ready(helpfulness)
                marks = await rate_helpfulness(scorer, replies, folder / "helpfulness.jsonl")
            return labels, marks
        finally:
            for model in opened:
                await model.close()

    return run_sync(ask())


def _split(teacher: str, number: int, row: Row) -> str:
    """One completion's place among all that are scored together."""
    return f"{teacher} {number} {row.split}"


def _response(teacher: str, number: int, row: Row) -> Response:
    return Response(
        prompt_id=row.prompt_id,
        split=_split(teacher, number, row),
        category=row.category,
        kind=row.kind,
        prompt=row.prompt,
        response=row.response,
    )


def _candidate(teacher: str, number: int, row: Row, labels: Moderated, marks: Marks, moderated: bool) -> Candidate:
    key = (_split(teacher, number, row), row.prompt_id)
    return Candidate(
        prompt_id=f"{row.split}/{row.prompt_id}",
        prompt=row.prompt,
        kind=row.kind,
        category=row.category,
        teacher=teacher,
        number=number,
        completion=row.response,
        refused=row.refused,
        passed=labels.passed(key) if moderated and key in labels.labels else None,
        helpfulness=marks.values.get(key),
        error=row.error,
    )


def _example(candidate: Candidate) -> Example:
    return Example(
        prompt=user(candidate.prompt),
        completion=assistant(candidate.completion),
        prompt_id=candidate.prompt_id,
        kind=candidate.kind,
    )
