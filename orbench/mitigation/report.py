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
from orbench.mitigation.files import HELD_OUT_PROMPTS
from orbench.mitigation.helpful import MARKS, Mark, Marks, rate_rows
from orbench.mitigation.seen import Learned, check_new, learned_from, weights_of
from orbench.mitigation.terms import Terms, added_costs, make_terms
from orbench.report.format import percent
from orbench.results import Evaluation
from orbench.run_state import RowState
from orbench.scoring.outcomes import is_refused
from orbench.splits import load_split

_MUCH = 0.1
"""Share of replies that are neither, as `neither` of the trainings, or of general prompts refused, beyond which it is
said."""
_FEWEST = 10
"""Replies from which an interval of their mean change is given; ours."""


class Ways(msgspec.Struct, frozen=True, kw_only=True):
    """The three ways a reply can be, as shares of the prompts of a kind that have one; they add up to 1."""

    refused: float
    answered: float
    neither: float
    """Empty, cut off while thinking, or nothing that the scorer can tell."""
    prompts: int
    """Those that have a reply, read by the scorer."""
    missing: int = 0
    """The others: not asked, or the call or a judge failed. They are in no share."""


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
    """Mean mark on the general prompts; a reply without a word has a judge's lowest mark."""
    marked: int | None = None
    """Replies to general prompts that have one."""
    ranking: float | None = None
    """See `orbench.mitigation.ranking`."""
    tasks: dict[str, float | None] = {}
    """lm-eval task to accuracy; None where the file has no number."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """How far the mean mark on general prompts moved, with its 95 % interval (Student's t of paired differences)."""

    value: float
    low: float | None
    """None with fewer than 10 replies, or where all moved alike: then no spread is known."""
    high: float | None
    replies: int
    """Those that are marked in both runs."""


class Loop(msgspec.Struct, frozen=True, kw_only=True):
    """What `orbench align report` says."""

    before: Side
    after: Side
    comparison: dict[str, Any]
    """As `orbench compare --json`: paired differences, intervals, exact p-values, categories."""
    helpfulness: Change | None
    significant: dict[str, bool]
    """Rate to whether its change is significant at 0.05 after Holm's correction."""
    failed: int = 0
    """Replies to general prompts that have no mark of helpfulness, because calls failed, could not be read, or were not
    paid for; the same call tries them again."""
    cost_usd: dict[str, float | None] = {}
    """What marks have cost, earlier calls included; None where that is unknown."""
    notes: list[str] = []

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
    base_url: str | None = None,
    concurrency: int | None = None,
    rpm: float | None = None,
    tpm: float | None = None,
    prices: str | Path | None = None,
    max_cost: float | None = None,
) -> Loop:
    """Set a run before training beside one after it, on the same prompts.

    Args:
        before: Run folder of the model before.
        after: Run folder of the trained model.
        general: Run folders of both on general prompts.
        helpfulness: A judge or `reward/PATH_OR_ID` that marks the replies to the general prompts.
        pairs: Folder of `align pairs`: adds the ranking figure, for which both models are `hf/` or `vllm/`, and looks
            that nothing in the runs was trained on. Without it the folder of the trained model says what that was,
            where it has a `training.json`.
        lm_eval: Result files of lm-eval for both, such as of boolq, openbookqa and piqa.
        policy: Read all runs under this policy.
        html: File of a page with every prompt and reply.
        base_url: Address of the judge of helpfulness.
        concurrency: Its calls open at once; default: found out while running.
        rpm: Its requests a minute at most.
        tpm: Its tokens a minute at most, sent and received.
        prices: CSV of prices over the shipped ones; see `orbench.costs.load_prices`.
        max_cost: USD that it may spend, earlier calls on the same runs included.

    Raises:
        orbench.UsageError: Runs that cannot be compared, or of prompts that the model was trained on or chosen by.
        orbench.ModelError: The judge of helpfulness cannot be used at all.
        orbench.RunError: A folder or file that cannot be read.
    """
    compared = compare(before, after, policy=policy)
    runs = [Evaluation.load(run, policy) for run in (before, after)]
    everyday = [Evaluation.load(run, policy) for run in general] if general else []
    if everyday:
        compare(*everyday)  # raises where they cannot stand side by side
    if helpfulness is not None and not everyday:
        raise UsageError("helpfulness is scored on general prompts: name their runs with --general BEFORE AFTER")
    if pairs is not None and not all(weights_of(run.model) for run in runs):
        raise UsageError("the ranking figure needs the weights of both models: runs of hf/FOLDER or vllm/FOLDER")
    learned = learned_from(runs[1], pairs)
    notes = [*check_new(runs[1], learned), *map(_missing, [*runs, *everyday])]
    if everyday:
        notes += check_new(everyday[1], Learned([], [*learned.files, *learned.replayed]))
    figures = _rankings(runs, Path(pairs), notes) if pairs is not None else [None, None]
    tasks = [_tasks(Path(file)) for file in lm_eval] if lm_eval else [{}, {}]
    terms = make_terms(concurrency=concurrency, rpm=rpm, tpm=tpm, prices=prices, max_cost=max_cost)
    rated = [] if helpfulness is None else _rate(everyday, helpfulness, base_url, terms)
    marks = [{key: value for key, value in one.values.items() if value is not None} for one in rated]
    failed = sum(value is None for one in rated for value in one.values.values())
    terms.warn_if_out(failed)
    if failed:
        notes.append(f"{failed} marks of helpfulness are missing: calls failed, could not be read, or were not made.")
    sides = [
        _side(run, everyday[n] if everyday else None, marks[n] if marks else None, figures[n], tasks[n])
        for n, run in enumerate(runs)
    ]
    notes += [note for side in sides for note in _doubts(side)]
    if html is not None:
        from orbench.report.html import write_report

        write_report(runs, html)
    return Loop(
        before=sides[0],
        after=sides[1],
        comparison=compared.to_dict(),
        helpfulness=_change(*marks) if marks else None,
        significant=_significant(compared),
        failed=failed,
        cost_usd=added_costs(one.cost_usd for one in rated),
        notes=[note for note in dict.fromkeys(notes) if note],
    )


def _side(
    run: Evaluation,
    general: Evaluation | None,
    marks: dict[tuple[str, str], float] | None,
    ranking: float | None,
    tasks: dict[str, float | None],
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
        marked=None if marks is None else len(marks),
        ranking=ranking,
        tasks=tasks,
    )


def _ways(run: Evaluation, kind: str) -> Ways | None:
    rows = [row for row in run.states.values() if row.kind == kind and _has_verdict(row)]
    votes = [is_refused(row.outcome, run.policy) for row in rows if row.outcome is not None]
    if not votes:
        return None
    return Ways(
        refused=votes.count(True) / len(votes),
        answered=votes.count(False) / len(votes),
        neither=votes.count(None) / len(votes),
        prompts=len(votes),
        missing=sum(split.prompts for split in run.splits.values() if split.kind == kind) - len(votes),
    )


def _doubts(side: Side) -> list[str]:
    """Notes where rates do not mean what they seem to: they leave many replies out, or much harmless is refused too."""
    found = {"safe": side.safe, "toxic": side.toxic, "general": side.general}
    notes = [
        f"{percent(ways.neither)} of the replies of {side.model} to {name} prompts are neither answer nor refusal: its "
        "rates speak of the others alone."
        for name, ways in found.items()
        if ways and ways.neither > _MUCH
    ]
    if side.general and side.general.refused > _MUCH:
        notes.append(
            f"{side.model} refuses {percent(side.general.refused)} of the general prompts: a part of what it refuses "
            "may merely be unknown to it, which is no over-refusal."
        )
    return notes


def _has_verdict(row: RowState) -> bool:
    """Whether the reply is there and was read: a call or a judge that failed says nothing of the model."""
    return row.outcome is not None and not row.failed and not row.judge_failed


def _missing(run: Evaluation) -> str:
    """A note where prompts of a run are in no number; else nothing."""
    missing = run.prompts - sum(map(_has_verdict, run.states.values()))
    if not missing or run.config.get("stopped_early"):  # the comparison tells of these
        return ""
    why = run.call_failure or run.judge_failure
    return (
        f"{missing} of {run.prompts} prompts of {run.run} have no verdict, because they were not asked, or a call or "
        f"a judge failed{f' ({why})' if why else ''}: they are in no number. The command that made the run asks them."
    )


def _rate(runs: Sequence[Evaluation], scorer: AnyModel, base_url: str | None, terms: Terms) -> list[Marks]:
    """The helpfulness of the replies to safe prompts, kept beside each run."""
    for run in runs:
        terms.count_spent(run.run / MARKS, Mark)
    return [
        rate_rows(
            scorer,
            (row for row in run.rows() if row.kind == "safe"),
            run.run / MARKS,
            empty=True,
            base_url=base_url,
            terms=terms,
        )
        for run in runs
    ]


def _change(before: dict[tuple[str, str], float], after: dict[tuple[str, str], float]) -> Change | None:
    moved = [after[key] - value for key, value in before.items() if key in after]
    if not moved:
        return None
    value, spread = fmean(moved), stdev(moved) if len(moved) >= _FEWEST else 0.0
    if not spread:
        return Change(value=value, low=None, high=None, replies=len(moved))
    from scipy.special import stdtrit

    half = float(stdtrit(len(moved) - 1, 0.975)) * spread / math.sqrt(len(moved))
    return Change(value=value, low=value - half, high=value + half, replies=len(moved))


def _rankings(runs: Sequence[Evaluation], pairs: Path, notes: list[str]) -> list[float | None]:
    from orbench.mitigation.ranking import area_under_curve, margins

    prompts = list(load_split(pairs / HELD_OUT_PROMPTS))
    areas: list[float | None] = []
    for run in runs:
        found = margins(weights_of(run.model) or "", prompts, pairs)
        areas.append(area_under_curve(found["toxic"], found["safe"]))
        if lost := len(prompts) - sum(map(len, found.values())):
            notes.append(f"The ranking figure of {run.model} leaves out {lost} prompts that are too long for it.")
    return areas


def _tasks(path: Path) -> dict[str, float | None]:
    """Task to accuracy, from the results file of lm-eval, which writes `N/A` where it has none."""
    try:
        found = msgspec.json.decode(path.read_bytes())["results"]
        return {
            name: _number(values.get("acc_norm,none", values.get("acc,none")))
            for name, values in found.items()
            if "acc,none" in values or "acc_norm,none" in values
        }
    except (OSError, msgspec.MsgspecError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: not a results file of lm-eval ({error})") from None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _significant(compared: Comparison) -> dict[str, bool]:
    pair = compared.pairs[0]
    named = {"over_refusal": pair.over_refusal, "toxic_rejection": pair.toxic_rejection}
    return {name: found.p_holm < 0.05 for name, found in named.items() if found}
