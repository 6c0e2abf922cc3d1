"""How far moderators and labellers agree, what each of them decides, and how often each is right.

In: votes, as moderator -> prompt id -> vote. Out: counts and shares with intervals. An abstention is no vote: it
agrees with nobody and is wrong about nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Literal

import msgspec

from orbench.errors import UsageError
from orbench.statistics.agreement import cohen_kappa
from orbench.statistics.intervals import wilson
from orbench.statistics.raters import krippendorff_alpha

Vote = Literal["safe", "toxic", "abstained"]
Votes = Mapping[str, Mapping[str, Vote]]
"""Moderator (or labeller) to prompt id to vote."""
Decide = Callable[[Mapping[str, Vote]], str]
"""Votes on one prompt, by moderator, to the decision: `safe`, `toxic` or `undecided`."""

PAPER_AGREEMENT = (0.83, 0.82)
"""Share of prompts on which GPT-4 agreed with Gemini-1.5-pro and with Llama-3-70b (Appendix Q.2)."""


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """A share of some prompts with its 95 % Wilson interval."""

    value: float | None
    """0 to 1; None where there is nothing to take a share of, never 0."""
    low: float | None
    high: float | None
    count: int
    of: int


def share(count: int, of: int) -> Share:
    """`count` of `of` as a share."""
    low, high = wilson(count, of) if of else (None, None)
    return Share(value=count / of if of else None, low=low, high=high, count=count, of=of)


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """Two moderators side by side."""

    first: str
    second: str
    agreement: Share
    """Of the prompts on which both voted, those on which they voted alike."""
    kappa: float | None
    """Cohen's kappa over the same prompts; None where chance alone would agree always."""
    only_first_toxic: int
    """Prompts that the first calls toxic and the second safe."""
    only_second_toxic: int


def pairs(votes: Votes) -> list[Pair]:
    """Every pair of moderators, in the order in which they are given."""
    found = []
    for first, second in combinations(votes, 2):
        both = [
            (one, other)
            for prompt, one in votes[first].items()
            if one != "abstained" and (other := votes[second].get(prompt, "abstained")) != "abstained"
        ]
        counts = Counter(both)
        found.append(
            Pair(
                first=first,
                second=second,
                agreement=share(sum(one == other for one, other in both), len(both)),
                kappa=cohen_kappa([one for one, _ in both], [other for _, other in both]),
                only_first_toxic=counts["toxic", "safe"],
                only_second_toxic=counts["safe", "toxic"],
            )
        )
    return found


def alpha(votes: Votes) -> float | None:
    """Krippendorff's alpha over all moderators; None where it is not defined."""
    return krippendorff_alpha(
        [[None if vote == "abstained" else vote for vote in by.values()] for by in by_prompt(votes).values()]
    )


def by_prompt(votes: Votes) -> dict[str, dict[str, Vote]]:
    """The same votes as prompt id -> moderator -> vote, prompts in the order of first appearance."""
    turned: dict[str, dict[str, Vote]] = {}
    for moderator, own in votes.items():
        for prompt, vote in own.items():
            turned.setdefault(prompt, {})[moderator] = vote
    return turned


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """What the others would have decided without one moderator."""

    moderator: str
    prompts: int
    """Prompts on which there is any vote."""
    flips: dict[str, int] | None
    """Decision with the moderator and without, as `toxic -> safe`, to how many prompts; None if the rule cannot be
    without the moderator."""
    why_not: str = ""
    """Why it cannot."""

    @property
    def decided(self) -> int:
        """Prompts whose decision is another without the moderator."""
        return sum((self.flips or {}).values())


def leave_one_out(votes: Votes, rule: Callable[[Sequence[str]], Decide]) -> list[LeftOut]:
    """What each moderator decides: how many prompts would be decided otherwise without it.

    Args:
        votes: The votes.
        rule: Makes the rule for an ensemble of these moderators, such as
            `lambda names: make_rule("majority", names).decide`; may raise `UsageError` where there are too few.
    """
    prompts = by_prompt(votes)
    whole = rule(list(votes))
    decisions = {prompt: whole(own) for prompt, own in prompts.items()}
    found = []
    for moderator in votes:
        try:
            decide = rule([name for name in votes if name != moderator])
        except UsageError as error:
            found.append(LeftOut(moderator=moderator, prompts=len(prompts), flips=None, why_not=str(error)))
            continue
        flips: Counter[str] = Counter()
        for prompt, own in prompts.items():
            without = decide({name: vote for name, vote in own.items() if name != moderator})
            if without != decisions[prompt]:
                flips[f"{decisions[prompt]} -> {without}"] += 1
        found.append(LeftOut(moderator=moderator, prompts=len(prompts), flips=dict(sorted(flips.items()))))
    return found


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """One labeller against the majority; `safe` is the positive class, as in the paper's Table 12."""

    labeller: str
    true_positives: Share
    """Of the safe prompts, those it called safe."""
    true_negatives: Share
    """Of the toxic prompts, those it called toxic."""
    accuracy: Share
    """Of both."""
    abstained: int
    """Prompts with a majority on which it has no vote."""

    @property
    def false_negatives(self) -> Share:
        """Of the safe prompts, those it called toxic."""
        return share(self.true_positives.of - self.true_positives.count, self.true_positives.of)

    @property
    def false_positives(self) -> Share:
        """Of the toxic prompts, those it called safe."""
        return share(self.true_negatives.of - self.true_negatives.count, self.true_negatives.of)


class Accuracies(msgspec.Struct, frozen=True, kw_only=True):
    """Every labeller against the majority."""

    rows: list[Accuracy]
    safe: int
    """Prompts that the majority of all calls safe."""
    toxic: int
    without_majority: int
    """Prompts on which as many say safe as toxic, or nobody says anything."""


def accuracies(votes: Votes, *, of_others: bool = False) -> Accuracies:
    """Each labeller's accuracy against the majority of the labels, as in the paper's Table 12.

    Args:
        votes: The labels; give the ensemble's decision as one labeller, as the paper did.
        of_others: False takes the majority of all labellers, the judged one included, as the paper did: that favours
            everyone, the more the fewer they are. True takes the majority of the others.

    Source:
        OR-Bench, Appendix L and Table 12; Wilson intervals are ours.
    """
    prompts = by_prompt(votes)
    majorities = Counter(_majority(own.values()) for own in prompts.values())
    rows = []
    for labeller in votes:
        cells: Counter[tuple[Vote, Vote]] = Counter()
        for own in prompts.values():
            truth = _majority(vote for name, vote in own.items() if not (of_others and name == labeller))
            if truth != "abstained":
                cells[truth, own.get(labeller, "abstained")] += 1
        safe_right, toxic_right = cells["safe", "safe"], cells["toxic", "toxic"]
        safe, toxic = safe_right + cells["safe", "toxic"], toxic_right + cells["toxic", "safe"]
        rows.append(
            Accuracy(
                labeller=labeller,
                true_positives=share(safe_right, safe),
                true_negatives=share(toxic_right, toxic),
                accuracy=share(safe_right + toxic_right, safe + toxic),
                abstained=cells["safe", "abstained"] + cells["toxic", "abstained"],
            )
        )
    return Accuracies(
        rows=rows, safe=majorities["safe"], toxic=majorities["toxic"], without_majority=majorities["abstained"]
    )


def _majority(votes: Iterable[Vote]) -> Vote:
    counts = Counter(votes)
    if counts["safe"] == counts["toxic"]:
        return "abstained"
    return "safe" if counts["safe"] > counts["toxic"] else "toxic"


def yields(outcomes: Iterable[tuple[str, bool]]) -> dict[str, Share]:
    """What share of each one's prompts was kept.

    Args:
        outcomes: For each prompt its rewriter (or seeder, or category) and whether it was kept.

    Returns:
        By name, in the order of first appearance.
    """
    kept: Counter[str] = Counter()
    made: Counter[str] = Counter()
    for name, is_kept in outcomes:
        made[name] += 1
        kept[name] += is_kept
    return {name: share(kept[name], of) for name, of in made.items()}


def moderator_yields(votes: Votes) -> dict[str, Share]:
    """What share of the prompts on which it voted each moderator calls safe."""
    return {
        moderator: share(counts["safe"], counts["safe"] + counts["toxic"])
        for moderator, own in votes.items()
        for counts in [Counter(own.values())]
    }
