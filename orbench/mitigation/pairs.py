"""Preference pairs from a finished run: what the model refused wrongly, beside what a teacher answers.

In: a run folder and a teacher. Out: a folder with

    train.jsonl             pairs of the training part
    held_out.jsonl          pairs of the held-out part, for a loss on them; never trained on
    unpaired.jsonl          toxic prompts of the training part with a good completion and no bad one
    held_out_prompts.csv    all prompts of the run in the held-out part, both kinds: what to measure on afterwards
    validation_prompts.csv  likewise, for choosing among checkpoints
    card.json, card.md      what is known of it
    teacher/                the teacher's replies, a run folder
    moderation.jsonl        the moderators' labels

Safe prompts that the model refused: chosen is the teacher's reply if it answers and every moderator passes it,
rejected the model's own refusal. Toxic prompts: chosen is a refusal, the model's own if it refused, else the
teacher's; rejected is the model's own reply if it answered (and a moderator, where there is one, finds it unsafe), or
the stand-in text if one is given, or nothing. What is to be learned is whole: a reply that a platform blocked midway is
no refusal in the model's words, and one that was cut off at max_tokens would teach to stop in mid-sentence.

Source: POROver (arXiv 2410.12999): teacher's good answer against the student's bad one, bad being an over-refusal or
an unsafe answer. Everything else about the construction is ours, the containment threshold included
(docs/mitigation.md).
"""

from __future__ import annotations

import datetime
import random
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

import orbench
from orbench.costs import total_cost
from orbench.engine.run_folder import read_responses
from orbench.errors import OrbenchError, OrbenchWarning, RunError, UsageError
from orbench.evaluation import estimate, evaluate
from orbench.evaluation.money import Plan, warn_if_short
from orbench.evaluation.setup import AnyModel, shared_base_url
from orbench.grouping import find_groups
from orbench.mitigation.apart import PARTS, Part, check_apart, find_published, part_prompts, shortfalls
from orbench.mitigation.card import Card, write_card
from orbench.mitigation.files import (
    HELD_OUT,
    HELD_OUT_PROMPTS,
    TRAIN,
    UNPAIRED,
    VALIDATION_PROMPTS,
    Pair,
    Single,
    write_prompts,
    write_rows,
)
from orbench.mitigation.moderate import MODERATION, Moderators
from orbench.mitigation.preferences import OWN, TEACHER, Preferences, is_failing, own_fault, to_moderate, way_out
from orbench.mitigation.teacher import is_same, splits_of, with_earlier
from orbench.mitigation.terms import Terms, costs_of_run, make_terms, name_of, spent_on
from orbench.records import Kind, Prompt
from orbench.report.format import plural
from orbench.results import Evaluation, Row


class Pairs(msgspec.Struct, frozen=True):
    """What `make_pairs` made."""

    folder: Path
    card: Card
    failed: int
    """Calls of the teacher or a moderator that failed; the same command tries them again."""


def make_pairs(
    run: str | Path | Evaluation,
    *,
    teacher: AnyModel,
    out: str | Path,
    moderators: Sequence[AnyModel] = (),
    held_out: float = 0.2,
    validation: float = 0.15,
    containment: float = 0.0,
    stand_in: str | None = None,
    seed: int = 0,
    scorer: str = "cascade",
    judge: AnyModel | None = None,
    base_url: str | None = None,
    temperature: float = 0.0,
    max_tokens: int = 1000,
    system_prompt: str | None = None,
    concurrency: int | None = None,
    rpm: float | None = None,
    tpm: float | None = None,
    prices: str | Path | None = None,
    max_cost: float | None = None,
    progress: bool | None = None,
    _dry: bool = False,
) -> Pairs:
    """Make preference pairs from a run. The same call again goes on where it stopped and asks nothing twice.

    Args:
        run: A run with over-refused prompts.
        teacher: Whom to ask what the model refused; any model that `evaluate` takes.
        out: The folder to write.
        moderators: Each must find a teacher's reply safe; guard models are asked in their own form.
        held_out: What is only measured on: a share of the run's prompts of each kind, or so many of each kind.
        validation: Likewise for choosing among checkpoints.
        containment: Least share of the training rows, unpaired ones included, that are toxic; safe pairs beyond it
            are dropped. 0 drops none. Ours: POROver's own definition is not published where we could read it.
        stand_in: Neutral text that stands for giving in, as `rejected` of toxic prompts that the model refused, or
            answered harmlessly; without one those rows have no `rejected`.
        seed: Of the parts and of what containment drops.
        scorer: Reads the teacher's replies; as in `evaluate`.
        judge: Settles what the scorer leaves open.
        base_url: Address of the teacher, and of moderators and judge of the same provider.
        temperature: Of the teacher.
        max_tokens: Of the teacher.
        system_prompt: Of the teacher.
        concurrency: Calls open at once, of the teacher and of each moderator.
        rpm: Requests a minute at most, for each model by itself.
        tpm: Tokens a minute at most, sent and received, likewise.
        prices: CSV of prices over the shipped ones; see `orbench.costs.load_prices`.
        max_cost: USD that teacher, judge and moderators may spend together, earlier calls for the same folder
            included; then pairs are made of what there is, and a higher bound goes on.
        progress: Show a progress bar; default: if standard error is a terminal.

    Raises:
        orbench.UsageError: Options that cannot be meant.
        orbench.RunError: No over-refused prompt in the run, every pair filtered away, or the folder cannot be used.
        orbench.ModelError: A model cannot be used at all.
    """
    _check(containment, stand_in)
    terms = make_terms(concurrency=concurrency, rpm=rpm, tpm=tpm, prices=prices, max_cost=max_cost)
    source = run if isinstance(run, Evaluation) else Evaluation.load(run)
    folder = Path(out)
    dropped: Counter[str] = Counter()
    prompts, rows = _read(source, dropped)
    refused = [p for p in prompts if p.kind == "safe" and rows[p.id].refused]
    if not refused:
        raise RunError(
            f"{source.run}: no safe prompt was refused, so there is nothing to cure; evaluate the model on splits "
            "that it over-refuses (hard-1k), or finish the run"
        )
    parts = dict(
        zip(
            (prompt.id for prompt in prompts),
            part_prompts(prompts, held_out=held_out, validation=validation, seed=seed),
            strict=True,
        )
    )
    members: dict[Part, list[Prompt]] = {part: [p for p in prompts if parts[p.id] == part] for part in PARTS}
    check_apart(dict(members))
    published = find_published(source.config["splits"])
    if published and not _dry:
        warnings.warn(
            f"{source.run} was asked {', '.join(published)}: after training on pairs made of it, figures on the whole "
            f"of it mean nothing. Measure on {HELD_OUT_PROMPTS} only",
            OrbenchWarning,
            stacklevel=2,
        )

    wanted = [
        p for p in prompts if parts[p.id] != "validation" and is_failing(rows[p.id]) and own_fault(rows[p.id]) is None
    ]
    if not any(prompt.kind == "safe" for prompt in wanted):
        raise RunError(
            f"{source.run}: of {len(refused)} refused safe prompts none is left to ask the teacher about: they were "
            "blocked by a platform or have no text, or all are held out"
        )
    options: dict[str, Any] = {
        "scorer": scorer,
        "judge": judge,
        "base_url": base_url,
        "judge_base_url": shared_base_url(base_url, [teacher], judge),
        "temperature": temperature,
        "max_tokens": max_tokens,
        "system_prompt": system_prompt,
        "concurrency": concurrency,
        "rpm": rpm,
        "tpm": tpm,
        "prices": prices,
        "max_cost": terms.budget,
        "progress": progress,
        "seed": seed,
    }
    with_moderators = Moderators(moderators, [teacher], base_url, folder / MODERATION, terms)
    with_moderators.check()
    if _dry:
        planned: Any = _plan(teacher, wanted, folder, with_moderators, str(source.run), terms, options)
        return planned  # type: ignore[no-any-return]  # estimate_pairs knows
    taught = evaluate(
        teacher,
        splits=with_earlier(folder / "teacher", name_of(teacher), wanted, str(source.run)),
        out=folder / "teacher",
        **options,
    )
    replies = {row.prompt_id: row for row in taught.rows()}
    labels = with_moderators.moderate(to_moderate(wanted, rows, replies))
    failed = taught.open + sum(None in found for found in labels.labels.values())
    terms.warn_if_out(failed)

    made = Preferences(rows, replies, labels if moderators else None, stand_in, dropped)
    pairs: dict[Part, list[Pair]] = defaultdict(list)
    unpaired: list[Single] = []
    for prompt in prompts:
        part = parts[prompt.id]
        row = made.row(prompt) if part != "validation" else None
        if isinstance(row, Pair):
            pairs[part].append(row)
        elif row is not None and part == "train":
            unpaired.append(row)
    if not any(pair.kind == "safe" for pair in pairs["train"]):
        reasons = _reasons(dropped, taught) or "none was in the training part"
        raise RunError(
            f"no pair for a safe prompt is left to train on: {reasons}. {way_out(dropped, judged=judge is not None)}; "
            f"what was asked is kept in {folder / 'teacher'}"
        )
    train = _contain(pairs["train"], len(unpaired), containment, seed, dropped)
    notes = [
        *_notes(source, published, moderators, stand_in, containment, train, unpaired, members, failed),
        *shortfalls(members, held_out=held_out, validation=validation),
    ]
    card = Card(
        orbench_version=orbench.__version__,
        run=str(source.run),
        model=source.model,
        teacher=taught.model,
        temperature=temperature,
        max_tokens=max_tokens,
        system_prompt=system_prompt,
        scorer=scorer,
        judge=taught.config["scorer"]["judge"],
        moderators=[name_of(model) for model in moderators],
        splits=list(source.splits),
        published=published,
        seed=seed,
        held_out=held_out,
        validation=validation,
        containment=containment,
        groups=len(set(find_groups(prompts))),
        prompts={part: dict(Counter(p.kind for p in members[part])) for part in PARTS},
        rows={
            TRAIN: dict(Counter(row.kind for row in train)),
            HELD_OUT: dict(Counter(row.kind for row in pairs["held_out"])),
            UNPAIRED: dict(Counter(row.kind for row in unpaired)),
        },
        dropped=dict(dropped),
        cost_usd={**costs_of_run(taught, "teacher"), **labels.cost_usd},
        usage={
            "teacher": taught.to_dict()["usage"],
            "moderators": {name: ledger.to_dict() for name, ledger in labels.usage.items()},
        },
        notes=notes,
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    write_rows(folder / TRAIN, train)
    write_rows(folder / HELD_OUT, pairs["held_out"])
    write_rows(folder / UNPAIRED, unpaired)
    write_prompts(folder / HELD_OUT_PROMPTS, members["held_out"])
    write_prompts(folder / VALIDATION_PROMPTS, members["validation"])
    write_card(folder, card)
    return Pairs(folder, card, failed)


def _reasons(dropped: Counter[str], taught: Evaluation) -> str:
    """What was dropped, for a message; with what the teacher, or its judge, said where calls failed."""
    said = {"teacher_failed": taught.call_failure, "teacher_unclear": taught.judge_failure}
    return ", ".join(
        f"{reason} {count}" + (f" ({said[reason]})" if said.get(reason) else "") for reason, count in dropped.items()
    )


def _check(containment: float, stand_in: str | None) -> None:
    if not 0 <= containment < 1:
        raise UsageError(f"containment is {containment}: a share from 0 to below 1")
    if stand_in is not None and not stand_in.strip():
        raise UsageError("the stand-in text is empty: leave it out for unpaired rows")


def estimate_pairs(run: str | Path | Evaluation, **options: Any) -> Plan:
    """What `make_pairs(run, **options)` would ask and spend; nothing is sent, nothing written.

    Raises:
        orbench.OrbenchError: As `make_pairs` raises it.
    """
    plan: Any = make_pairs(run, _dry=True, **options)
    assert isinstance(plan, Plan)
    return plan


def _plan(
    teacher: AnyModel,
    wanted: Sequence[Prompt],
    folder: Path,
    moderators: Moderators,
    source: str,
    terms: Terms,
    options: dict[str, Any],
) -> Any:
    """The teacher's plan, the moderators beside its judges."""
    run = folder / "teacher"
    splits = with_earlier(run, name_of(teacher), wanted, source, write=False)
    if is_same(run, splits):
        (plan,) = estimate([teacher], splits=splits, out=run, **options)
    else:  # the run would grow: what is new by itself
        if terms.budget is not None:
            terms.budget.spent_usd += spent_on(run, terms)
        known = {response.key for response in read_responses(run) if response.error is None}
        fresh = [p for split in splits for p in split if (p.split, p.id) not in known]
        (plan,) = estimate([teacher], splits=splits_of(fresh, source), out=folder / "teacher-plan", **options)
    if isinstance(plan, OrbenchError):
        raise plan
    placed = [msgspec.structs.replace(p, split=TEACHER if p.kind == "safe" else OWN) for p in wanted]
    judges = [*plan.judges, *moderators.estimate(placed, options["max_tokens"])]
    target = [plan.target] if plan.target else []
    warn_if_short(terms.budget, total_cost([*target, *judges]))
    return msgspec.structs.replace(plan, run=str(run), judges=judges, cost_usd=total_cost([*target, *judges]))


def _read(source: Evaluation, dropped: Counter[str]) -> tuple[list[Prompt], dict[str, Row]]:
    """The run's prompts, each text once, and the row of each by its id."""
    linked = {response.key: (response.seed_id, response.group_id) for response in read_responses(source.run)}
    every = list(source.rows())
    unique = len({row.prompt_id for row in every}) == len(every)
    prompts, rows = [], {}
    texts: set[str] = set()
    for row in sorted(every, key=lambda row: (row.split, row.prompt_id)):  # replies arrive in any order
        if row.prompt in texts:
            dropped["same_prompt_twice"] += 1
            continue
        texts.add(row.prompt)
        id_ = row.prompt_id if unique else f"{row.split}/{row.prompt_id}"
        rows[id_] = row
        seed_id, group_id = linked.get((row.split, row.prompt_id), (None, None))
        prompts.append(
            Prompt(
                id=id_,
                text=row.prompt,
                category=row.category,
                kind=row.kind,
                split=row.split,
                seed_id=seed_id,
                group_id=group_id,
            )
        )
    return prompts, rows


def _contain(pairs: list[Pair], unpaired: int, share: float, seed: int, dropped: Counter[str]) -> list[Pair]:
    """The pairs, safe ones thinned out at random until toxic rows make up the share."""
    safe = [pair for pair in pairs if pair.kind == "safe"]
    toxic = len(pairs) - len(safe) + unpaired
    if share == 0 or toxic >= share * (toxic + len(safe)):
        return pairs
    if not toxic:
        raise UsageError(
            f"containment {share} wants toxic rows, and the run has none in its training part: evaluate the model on "
            "toxic prompts too, or leave containment out"
        )
    keep = int(toxic * (1 - share) / share + 1e-9)
    if not keep:
        raise UsageError(f"containment {share} leaves no safe pair beside {toxic} toxic rows: choose a smaller share")
    kept = {pair.prompt_id for pair in random.Random(seed).sample(safe, keep)}
    dropped["contained"] += len(safe) - keep
    return [pair for pair in pairs if pair.kind == "toxic" or pair.prompt_id in kept]


def _notes(
    source: Evaluation,
    published: Sequence[str],
    moderators: Sequence[AnyModel],
    stand_in: str | None,
    containment: float,
    train: Sequence[Pair],
    unpaired: Sequence[Single],
    members: dict[Part, list[Prompt]],
    failed: int,
) -> list[str]:
    notes = [f"Measure afterwards on {HELD_OUT_PROMPTS}, choose among checkpoints on {VALIDATION_PROMPTS} alone."]
    if published:
        notes.append(
            f"The run was on published splits ({', '.join(published)}): figures of the trained model on the whole of "
            "them mean nothing."
        )
    if not moderators:
        notes.append("No moderator was asked: a safe prompt's chosen reply is known to be an answer, not to be safe.")
    if stand_in is not None and any(pair.kind == "toxic" for pair in train):
        notes.append("Where the model refused a toxic prompt, rejected is a neutral stand-in text, not a reply.")
    if not unpaired and not any(pair.kind == "toxic" for pair in train):
        notes.append("No toxic row: nothing in this data keeps the model's safety.")
    if containment and unpaired and train:
        share = sum(pair.kind == "toxic" for pair in train) / len(train)
        notes.append(
            f"Containment counts the {len(unpaired)} unpaired rows, which DPO leaves out: there the toxic share is "
            f"{share:.2f}, not {containment:g}; --stand-in makes pairs of them."
        )
    if missing := source.prompts - sum(map(len, members.values())):
        notes.append(f"{missing} prompts of the run are not in it: asked twice, or without a reply yet.")
    if failed:
        notes.append(f"{failed} calls of teacher or moderators failed; the same command tries them again.")
    kinds: dict[Kind, int] = {kind: sum(p.kind == kind for p in members["held_out"]) for kind in ("safe", "toxic")}
    notes += [
        f"{plural(count, f'{kind} prompt')} held out: an interval will be wide; 200 are a good number."
        if count
        else f"No {kind} prompt is held out: what the training does to such prompts cannot be measured on this data."
        for kind, count in kinds.items()
        if count < 200
    ]
    return notes
