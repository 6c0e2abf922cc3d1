"""What judges are asked for a training, on one set of terms: about checkpoints, samples and rewards.

In: the settings, and the folder with what earlier commands have paid. Out: evaluations and marks, and what they have
cost. Where the money does not reach for all, that is an error: nothing is chosen or learned by half of the verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from orbench.engine.run_folder import RUN
from orbench.evaluation import evaluate
from orbench.evaluation.setup import AnyModel, shared_base_url
from orbench.mitigation.config import Raft, Training
from orbench.mitigation.folder import SAMPLES, SCORES, is_first_process
from orbench.mitigation.helpful import Helpfulness, Marks, rate_rows
from orbench.mitigation.terms import Terms, added_costs, judge_costs, make_terms, spent_on
from orbench.results import Evaluation, Row
from orbench.splits import Split

AnySplits = Split | Sequence[Split]


def terms_of(config: Training) -> Terms:
    """The terms of a training; what its folder's earlier commands have paid is counted.

    Raises:
        orbench.UsageError: Terms that cannot be meant, or a judge of rewards that has no price where there is a bound.
        orbench.ModelError: That judge cannot be used.
    """
    terms = make_terms(
        concurrency=config.concurrency,
        rpm=config.rpm,
        tpm=config.tpm,
        prices=config.prices,
        max_cost=config.max_cost,
    )
    if terms.budget is not None and is_first_process():
        terms.budget.spent_usd += sum(spent_on(run, terms) for run in _runs(Path(config.out)))
    if isinstance(config, Raft) and config.reward is not None:
        for iteration in range(1, config.iterations + 1):
            path = rewards_path(config, iteration)
            Helpfulness(config.reward, [config.reward], _reward_url(config), path, terms).check()
    return terms


def evaluate_for(
    config: Training, terms: Terms, model: Callable[[], AnyModel], *, splits: AnySplits, out: Path, **options: Any
) -> Evaluation:
    """Ask a checkpoint, as `evaluate` does with the training's scorer and judge.

    Args:
        config: The training's settings.
        terms: See `terms_of`.
        model: Gives the checkpoint; again where it is asked in several parts.
        splits: Prompts.
        out: The run folder.
        options: Others of `evaluate`.

    Raises:
        orbench.RunError: The money does not reach for all its replies.
    """
    while True:
        if terms.budget is not None:
            terms.budget.spent_usd -= spent_on(out, terms)  # the evaluation counts it again
        result = evaluate(
            model(),
            splits=splits,
            out=out,
            scorer=config.scorer,
            judge=config.judge,
            judge_base_url=config.base_url,
            max_tokens=config.max_tokens,
            concurrency=config.concurrency,
            rpm=config.rpm,
            tpm=config.tpm,
            prices=config.prices,
            max_cost=terms.budget,
            **options,
        )
        # A model of this machine is given all its prompts at once, while the most that judges can cost is held back for
        # each: what that was too much for is asked as soon as their answers turn out shorter.
        if not terms.has_more():
            break
    terms.check_paid(f"{result.open:,} of {result.prompts:,} prompts of {result.run} without a verdict")
    return result


def reward_for(config: Raft, terms: Terms, rows: list[Row], iteration: int) -> Marks:
    """Mark replies of an iteration by the training's reward.

    Raises:
        orbench.RunError: The money does not reach for all of them.
    """
    assert config.reward is not None
    path = rewards_path(config, iteration)
    marks = rate_rows(config.reward, rows, path, base_url=_reward_url(config), terms=terms)
    missing = sum(value is None for value in marks.values.values())
    terms.check_paid(f"{missing:,} of {len(marks.values):,} rewards of {path} missing")
    named = {name.replace("helpfulness", "reward", 1): usd for name, usd in marks.cost_usd.items()}
    return msgspec.structs.replace(marks, cost_usd=named)


def rewards_path(config: Raft, iteration: int) -> Path:
    """The file of the rewards of an iteration."""
    return Path(config.out) / SAMPLES / f"iteration-{iteration}-rewards.jsonl"


def costs_of_training(config: Training, rewards: Iterable[Marks] = ()) -> dict[str, float | None]:
    """`judge NAME` and `reward NAME` to USD, earlier commands included; None where that is unknown."""
    found = [judge_costs(Evaluation.load(run)) for run in _runs(Path(config.out))]
    return added_costs([*found, *(marks.cost_usd for marks in rewards)])


def _runs(out: Path) -> list[Path]:
    return sorted(path.parent for part in (SCORES, SAMPLES) for path in (out / part).glob(f"*/{RUN}"))


def _reward_url(config: Raft) -> str | None:
    """The address is that of the judge, and of a judge of rewards of the same provider; without a judge, of that."""
    return shared_base_url(config.base_url, [config.judge or config.reward or ""], config.reward)
