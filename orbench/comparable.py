"""Which results may stand side by side, and what to do where they may not.

Rates of different prompts, scorers or policies differ for reasons that are not the models'. Each refusal names the
command that makes the runs comparable.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from orbench import published
from orbench.errors import UsageError
from orbench.published import PublishedModel
from orbench.records import KINDS, Kind
from orbench.results import Evaluation, SplitResult
from orbench.splits.named import NAMED_SPLITS

SafeTable = Literal["hard-1k", "80k"]
"""Which of the paper's over-refusal rates."""
Source = Evaluation | PublishedModel
"""What a comparison or a leaderboard is made of."""


def open_source(run: Source | str | Path, policy: str | None = None) -> Source:
    """A result, loaded from its folder if need be, or a published model.

    Args:
        run: A result, a run folder, `published:NAME`, or a published model.
        policy: Read it under this policy; by default its own.

    Raises:
        UsageError: No such published model, or unknown policy.
        RunError: No run folder, or a damaged one.
    """
    if isinstance(run, PublishedModel):
        return run
    if isinstance(run, Evaluation):
        return run.with_policy(policy) if policy and policy != run.policy else run
    if str(run).startswith(published.PREFIX):
        return published.find(str(run))
    return Evaluation.load(run, policy)


def check_comparable(sources: Sequence[Source], *, pairwise: bool = False) -> list[str]:
    """Refuse what cannot stand side by side; return notes on what can, but should be known.

    Args:
        sources: What is to stand side by side.
        pairwise: Each pair is held against one another on the prompts that it shares, so one split in common is
            enough, and a run on the 80k split may stand beside published models, whose 80k rates are then taken. Else
            the rates stand in one list, and must all be of the same prompts.

    Raises:
        UsageError: Says what differs, and the command that mends it; or one is given twice.
    """
    runs = [source for source in sources if isinstance(source, Evaluation)]
    models = [source for source in sources if isinstance(source, PublishedModel)]
    _check_once(runs, models)
    for number, run in enumerate(runs):
        _check_one_scorer(run)
        for other in runs[:number]:
            _check_pair(other, run)
    if not pairwise:
        _check_same_splits(runs)
    table = published_table(runs) if pairwise else "hard-1k"
    for run in runs if models else ():
        _check_published(run, table)
    return [*_notes_on_runs(runs), *_notes_on_published(runs, models, table)]


def published_table(runs: Sequence[Evaluation]) -> SafeTable:
    """Which published over-refusal rates belong beside these runs: those of the 80K, or of Hard-1K."""
    return "80k" if any("80k" in run.splits for run in runs) else "hard-1k"


def _check_once(runs: Sequence[Evaluation], models: Sequence[PublishedModel]) -> None:
    """One run under two names would be two models that agree on everything."""
    seen: set[Path | str] = set()
    named: list[tuple[Path | str, str]] = [(run.run.resolve(), str(run.run)) for run in runs]
    for key, name in [*named, *((model.name, published.PREFIX + model.name) for model in models)]:
        if key in seen:
            raise UsageError(f"{name} is given twice: name each run once")
        seen.add(key)


def _check_pair(a: Evaluation, b: Evaluation) -> None:
    shared = [name for name in a.splits if name in b.splits]
    if not shared:
        raise UsageError(
            f"{a.run} and {b.run} share no split ({', '.join(a.splits)} against {', '.join(b.splits)}): "
            "evaluate both with the same --split"
        )
    for name in shared:
        one, other = a.splits[name], b.splits[name]
        if one.fingerprint != other.fingerprint:
            raise UsageError(
                f"{a.run} and {b.run} were asked other prompts of {name!r}: {one.prompts:,} (fingerprint "
                f"{one.fingerprint[:12]}) and {other.prompts:,} ({other.fingerprint[:12]}). Evaluate both with the "
                "same --split, --limit and --seed"
            )
    if a.policy != b.policy:
        raise UsageError(
            f"{a.run} is read under the policy {a.policy}, {b.run} under {b.policy}: add --policy {a.policy} to read "
            "both alike; it needs no call"
        )
    one_scorer, other_scorer = a.config["scorer"], b.config["scorer"]
    by_family = one_scorer["name"] == other_scorer["name"] == "paper" and one_scorer["judge"] == other_scorer["judge"]
    if one_scorer != other_scorer and not by_family:
        if other_scorer.get("safety_judge") and not one_scorer.get("safety_judge"):  # the first is to be scored again
            a, b, one_scorer, other_scorer = b, a, other_scorer, one_scorer
        judge = f" --judge {one_scorer['judge']}" if one_scorer["judge"] else ""
        if one_scorer.get("safety_judge") != other_scorer.get("safety_judge"):
            judge += f" --safety-judge {one_scorer['safety_judge']}"
        raise UsageError(
            f"{a.run} was scored by {_scorer(one_scorer)}, {b.run} by {_scorer(other_scorer)}: "
            f"orbench score {b.run} --scorer {one_scorer['name']}{judge} scores the second as the first was"
            + ("" if one_scorer["name"] != other_scorer["name"] else "; do the same for the first if it is older")
        )


def same_splits(runs: Sequence[Evaluation], kind: Kind) -> bool:
    """Whether all were asked the same prompts of that kind, so that their rates may stand in one list."""
    return len({frozenset((split.name, split.fingerprint) for split in run.splits_of(kind)) for run in runs}) <= 1


def _check_same_splits(runs: Sequence[Evaluation]) -> None:
    """A run may lack one kind of prompt; but a rate of other prompts has no place in the same list."""
    for kind in KINDS:
        asked = [run for run in runs if run.splits_of(kind)]
        for first, run in itertools.pairwise(asked):
            if not same_splits([first, run], kind):
                one, other = (", ".join(split.name for split in each.splits_of(kind)) for each in (first, run))
                raise UsageError(
                    f"{first.run} and {run.run} were asked other {kind} prompts ({one} against {other}): one list of "
                    "rates needs the same. Evaluate both with the same --split; orbench compare looks at the prompts "
                    "that two runs share"
                )


def _check_one_scorer(run: Evaluation) -> None:
    if run.stale:
        name = run.config["scorer"]["name"]
        raise UsageError(
            f"{run.run}: {run.stale:,} verdicts are of another scorer than the run's: orbench score {run.run} "
            f"--scorer {name} scores all of it alike"
        )


def _scorer(scorer: dict[str, str | None]) -> str:
    judge = f" with judge {scorer['judge']}" if scorer["judge"] else ""
    safety = f" and safety judge {scorer['safety_judge']}" if scorer.get("safety_judge") else ""
    return f"{scorer['name']}{judge}{safety} ({scorer['digest']})"


def _check_published(run: Evaluation, table: SafeTable) -> None:
    for split in run.splits.values():
        wanted = table if split.kind == "safe" else "toxic"
        if split.name != wanted:
            raise UsageError(
                f"{run.run}: the published rates are of {table} and toxic, this run's {split.kind} prompts are "
                f"{split.name!r}: evaluate with --split {table} --split toxic"
                + (f", or orbench compare {run.run} published:NAME" if split.name == "80k" else "")
            )


def _notes_on_runs(runs: Sequence[Evaluation]) -> list[str]:
    notes = []
    for run in runs:
        missing = run.prompts - sum(run.outcomes.values())
        early = run.config.get("stopped_early")
        if missing and early:
            notes.append(
                f"{run.run} stopped early, as --precision {early['half_width']:g} asked for: {early['asked']:,} of "
                f"{early['prompts']:,} prompts were asked, the others have no verdict"
            )
        elif missing:
            notes.append(f"{run.run} is not finished: {missing:,} of {run.prompts:,} prompts have no outcome yet")
    if len({run.config["scorer"]["digest"] for run in runs}) > 1:
        notes.append("scorer paper: each model's replies were read with its own family's phrases, as in the paper")
    versions = sorted({run.config["orbench_version"] for run in runs})
    if len(versions) > 1:
        notes.append(f"the runs were made by orbench {' and '.join(versions)}; their scorers are the same")
    return notes


def _notes_on_published(runs: Sequence[Evaluation], models: Sequence[PublishedModel], table: SafeTable) -> list[str]:
    if not models:
        return []
    notes = []
    older = sum(model.prompt_set == "older" for model in models)
    chose = [model.name for model in models if model.chose_hard_1k]
    who = f"{older} of the {len(models)} published models" if len(models) > 1 else f"published:{models[0].name}"
    were = "were" if len(models) > 1 else "was"
    safe, toxic = published.SIZES["older"]
    if table == "80k":
        notes.append(
            "the published 80k rates are of keywords, each model's replies read with phrases of its own (Table 7): "
            f"orbench score {runs[0].run} --scorer paper reads a run with the phrases that were released. The sizes of "
            "its categories are worked out from printed shares"
        )
        if older and any("toxic" in run.splits for run in runs):
            notes.append(f"{who} {were} measured on {toxic} toxic prompts that were never released")
    else:
        if older:
            notes.append(
                f"{who} {were} measured on {safe:,} safe and {toxic} toxic prompts that were never released; the "
                "released files hold 1,319 and 655. A rerun of such a model will not meet its published rates exactly"
            )
        if chose:
            notes.append(
                f"{', '.join(chose)}: among the six models whose refusals chose the Hard-1K prompts, so their own "
                "over-refusal rates are pushed up"
            )
    if runs:
        judge = "" if table == "80k" else ", and its GPT-4 judge may read replies otherwise than this run's scorer"
        shares = "such a pair is compared as two shares, not prompt by prompt"
        notes.append(f"the paper published rates, not replies: {shares}{judge}")
        partial = [
            f"{run.run} ({split.name})" for run in runs for split in run.splits.values() if not _is_released(split)
        ]
        if partial:
            notes.append(f"not the released prompts, but others or a sample of them: {', '.join(partial)}")
    return notes


def _is_released(split: SplitResult) -> bool:
    released = NAMED_SPLITS[split.name]
    return split.fingerprint == released.fingerprint if released.fingerprint else split.prompts == released.rows
