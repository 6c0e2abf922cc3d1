"""Before and after: the papers' measures of two runs on the same prompts, tested in pairs.

In: two run folders (before, after), and where there are such, runs on general prompts, lm-eval result files and a
folder of pairs. Out: `Loop`, which prints a table in the papers' form.

Sources: POROver (arXiv 2410.12999): safety = not-unsafe rate, usefulness = not-overrefusal rate, F1 of the two. Safe to
Serve (arXiv 2412.00074): safety on benchmark files, helpfulness by a reward model, BoolQ, OpenBookQA, PIQA.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import msgspec

from orbench.comparison import Comparison, compare
from orbench.errors import RunError, UsageError
from orbench.evaluation.setup import AnyModel
from orbench.mitigation.checkpoints import replies_of
from orbench.mitigation.files import HELD_OUT_PROMPTS
from orbench.mitigation.helpful import rate_rows
from orbench.results import Evaluation
from orbench.splits import load_split


class Ways(msgspec.Struct, frozen=True, kw_only=True):
    """The three ways a reply can be, as shares of all prompts of a kind; they add up to 1."""

    refused: float
    answered: float
    neither: float
    """Empty, cut off while thinking, failed, or without a verdict."""
    prompts: int


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two models."""

    model: str
    run: str
    not_unsafe: float | None
    """POROver's safety; None if no safety judge was asked."""
    not_overrefusal: float | None
    """POROver's usefulness: 1 - over-refusal."""
    f1: float | None
    """Harmonic mean of usefulness and safety, by not-unsafe where it is known, else by toxic rejection."""
    toxic_rejection: float | None
    safe: Ways | None
    toxic: Ways | None
    general: Ways | None = None
    """On general prompts: without it an over-refusal rate means nothing."""
    helpfulness: float | None = None
    """Mean mark on the general prompts."""
    ranking: float | None = None
    """See `orbench.mitigation.ranking`."""
    tasks: dict[str, float] = {}
    """lm-eval task to accuracy."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """How far the mean mark on general prompts moved, with its 95 % interval."""

    value: float
    low: float
    high: float
    replies: int


class Loop(msgspec.Struct, frozen=True, kw_only=True):
    """What `orbench align report` says."""

    before: Side
    after: Side
    comparison: dict[str, Any]
    """As `orbench compare --json`: paired differences, intervals, exact p-values, categories."""
    helpfulness: Change | None
    significant: dict[str, bool]
    """Rate to whether its change is significant at 0.05 after Holm's correction."""

    def __str__(self) -> str:
        """The table that the command prints."""
        from orbench.report.loop import loop_table

        return loop_table(self)


def report_loop(
    before: str | Path,
    after: str | Path,
    *,
    general: tuple[str | Path, str | Path] | None = None,
    helpfulness: AnyModel | None = None,
    pairs: str | Path | None = None,
    lm_eval: tuple[str | Path, str | Path] | None = None,
    policy: str | None = None,
    html: str | Path | None = None,
) -> Loop:
    """Set a run before training beside one after it, on the same prompts.

    Args:
        before: Run folder of the model before.
        after: Run folder of the trained model.
        general: Run folders of both on general prompts.
        helpfulness: A judge or `reward/PATH_OR_ID` that marks the replies to the general prompts.
        pairs: Folder of `align pairs`: adds the ranking figure, where both models are `hf/`.
        lm_eval: Result files of lm-eval for both, such as of boolq, openbookqa and piqa.
        policy: Read all runs under this policy.
        html: File of a page with every prompt and reply.

    Raises:
        orbench.UsageError: Runs that cannot be compared.
        orbench.RunError: A folder or file that cannot be read.
    """
    compared = compare(before, after, policy=policy)
    runs = [Evaluation.load(run, policy) for run in (before, after)]
    everyday = [Evaluation.load(run, policy) for run in general] if general else []
    if everyday:
        compare(*everyday)  # raises where they cannot stand side by side
    marks = [_marks(run, helpfulness) for run in everyday] if helpfulness is not None and everyday else []
    if helpfulness is not None and not everyday:
        raise UsageError("helpfulness is scored on general prompts: name their runs with --general BEFORE AFTER")
    figures = _rankings(runs, Path(pairs)) if pairs is not None else [None, None]
    tasks = [_tasks(Path(file)) for file in lm_eval] if lm_eval else [{}, {}]
    sides = [
        _side(run, everyday[n] if everyday else None, marks[n] if marks else {}, figures[n], tasks[n])
        for n, run in enumerate(runs)
    ]
    if html is not None:
        from orbench.report.html import write_report

        write_report(runs, html)
    return Loop(
        before=sides[0],
        after=sides[1],
        comparison=compared.to_dict(),
        helpfulness=_change(*marks) if marks else None,
        significant=_significant(compared),
    )


def _side(
    run: Evaluation,
    general: Evaluation | None,
    marks: dict[tuple[str, str], float],
    ranking: float | None,
    tasks: dict[str, float],
) -> Side:
    over = run.over_refusal_rate.value
    safety = run.not_unsafe_rate
    return Side(
        model=run.model,
        run=str(run.run),
        not_unsafe=safety.value if safety else None,
        not_overrefusal=None if over is None else 1 - over,
        f1=run.f1_not_unsafe if safety else run.f1,
        toxic_rejection=run.toxic_rejection_rate.value,
        safe=_ways(run, "safe"),
        toxic=_ways(run, "toxic"),
        general=_ways(general, "safe") if general else None,
        helpfulness=fmean(marks.values()) if marks else None,
        ranking=ranking,
        tasks=tasks,
    )


def _ways(run: Evaluation, kind: str) -> Ways | None:
    replies = replies_of(run)
    votes = list((replies.safe if kind == "safe" else replies.toxic).values())
    if not votes:
        return None
    return Ways(
        refused=votes.count(True) / len(votes),
        answered=votes.count(False) / len(votes),
        neither=votes.count(None) / len(votes),
        prompts=len(votes),
    )


def _marks(run: Evaluation, scorer: AnyModel) -> dict[tuple[str, str], float]:
    """The helpfulness of each reply that could be marked, kept beside the run."""
    found = rate_rows(scorer, run.rows(), run.run / "helpfulness.jsonl")
    return {key: value for key, value in found.items() if value is not None}


def _change(before: dict[tuple[str, str], float], after: dict[tuple[str, str], float]) -> Change | None:
    moved = [after[key] - value for key, value in before.items() if key in after]
    if len(moved) < 2:
        return None
    half = 1.96 * stdev(moved) / math.sqrt(len(moved))
    return Change(value=fmean(moved), low=fmean(moved) - half, high=fmean(moved) + half, replies=len(moved))


def _rankings(runs: Sequence[Evaluation], pairs: Path) -> list[float | None]:
    from orbench.mitigation.ranking import ranking

    prompts = list(load_split(pairs / HELD_OUT_PROMPTS))
    if not all(run.model.startswith("hf/") for run in runs):
        raise UsageError("the ranking figure needs the weights of both models: runs of hf/FOLDER")
    return [ranking(run.model.removeprefix("hf/"), prompts, pairs) for run in runs]


def _tasks(path: Path) -> dict[str, float]:
    """Task to accuracy, from the results file of lm-eval."""
    try:
        found = msgspec.json.decode(path.read_bytes())["results"]
        return {
            name: float(values.get("acc_norm,none", values.get("acc,none")))
            for name, values in found.items()
            if "acc,none" in values or "acc_norm,none" in values
        }
    except (OSError, msgspec.MsgspecError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: not a results file of lm-eval ({error})") from None


def _significant(compared: Comparison) -> dict[str, bool]:
    pair = compared.pairs[0]
    named = {"over_refusal": pair.over_refusal, "toxic_rejection": pair.toxic_rejection}
    return {name: found.p_holm < 0.05 for name, found in named.items() if found}
