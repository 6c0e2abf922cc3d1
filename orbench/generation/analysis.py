"""What can be said of a finished moderation and selection: agreement, yields, diversity, overlap, human review.

In: prompts with their votes, and rows of the splits. Out: plain data for generation.json and the card.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec

from orbench.generation import agreement
from orbench.generation.bertscore import BertScore, bertscore
from orbench.generation.config import GenerationConfig
from orbench.generation.diversity import diversity
from orbench.generation.folder import State
from orbench.generation.given import other_prompts
from orbench.generation.overlap import Overlap, counts, overlap
from orbench.generation.records import Verdict
from orbench.generation.review import review
from orbench.generation.rules import make_rule
from orbench.generation.selection import Row
from orbench.generation.standing import Standing

ENSEMBLE = "the ensemble"


def votes_by_moderator(state: State, standing: Standing) -> dict[str, dict[str, Verdict]]:
    """Moderator to prompt to vote on the prompt."""
    found: dict[str, dict[str, Verdict]] = {name: {} for name in standing.moderators}
    for id, track in state.tracks.items():
        for name, vote in track.votes.items():
            if name in found:
                found[name][id] = vote
    return found


def moderation(config: GenerationConfig, state: State, standing: Standing) -> dict[str, Any]:
    """How far moderators agree, what each of them decides, and whose prompts were kept."""
    votes = votes_by_moderator(state, standing)

    def rule(names: Any) -> Any:
        weights = {name: weight for name, weight in config.weights.items() if name in names}
        return make_rule(config.rule_name, names, weights).decide

    tracks = [(track, standing.of(track)) for track in state.tracks.values() if not track.is_seed]
    return {
        "pairs": _plain(agreement.pairs(votes)),
        "alpha": agreement.alpha(votes),
        "leave_one_out": _plain(agreement.leave_one_out(votes, rule)),
        "moderators": _plain(agreement.moderator_yields(votes)),
        "rewriters": _plain(
            agreement.yields((track.item.model, stands.decision == "safe") for track, stands in tracks)
        ),
        "categories": _plain(
            agreement.yields((track.item.category, stands.decision == "safe") for track, stands in tracks)
        ),
        "seeds_by_category": _seed_yields(state),
    }


def _seed_yields(state: State) -> dict[str, dict[str, int]]:
    """Category to the seeder's calls and what came of them."""
    found: dict[str, dict[str, int]] = {}
    for category, calls in state.seed_calls.items():
        mine: dict[str, int] = defaultdict(int)
        for _, outcome, _ in calls:
            mine[outcome] += 1
        found[category] = {"calls": len(calls), **mine}
    return found


Overlaps = dict[str, list[Overlap]]
"""Split to what of it is in another set."""


def overlaps(config: GenerationConfig, splits: dict[str, list[Row]]) -> tuple[dict[str, Any], Overlaps]:
    """What of every split is in the set of `overlap_with`: counts for generation.json, and which prompts."""
    if not config.overlap_with:
        return {}, {}
    others = other_prompts(config)
    found = {name: overlap([row.prompt for row in rows], others) for name, rows in splits.items() if rows}
    counted = {name: counts(each) for name, each in found.items()}
    return {"overlap": {"with": config.overlap_with, "prompts": len(others), "splits": counted}}, found


def selection(config: GenerationConfig, splits: dict[str, list[Row]]) -> dict[str, Any]:
    """Diversity of the splits of safe prompts."""
    found: dict[str, Any] = {
        "diversity": {
            name: _plain(diversity([row.prompt for row in rows], [row.category for row in rows], seed=config.seed))
            for name, rows in splits.items()
            if rows and name in ("all", "hard")
        }
    }
    if config.bertscore:
        found["bertscore"] = {
            name: _plain(_bertscores(rows, config.bertscore, config.seed))
            for name, rows in splits.items()
            if rows and name in ("all", "hard")
        }
    return found


def _bertscores(rows: list[Row], model: str, seed: int) -> dict[str, BertScore]:
    """Category to the likeness of its prompts; `all` over all of them; nothing for a single prompt."""
    texts: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        texts[row.category].append(row.prompt)
    texts["all"] = [row.prompt for row in rows]
    return {name: bertscore(own, model, seed=seed) for name, own in texts.items() if len(own) > 1}


def human_review(config: GenerationConfig, state: State, standing: Standing) -> dict[str, Any] | None:
    """Each labeller's and moderator's accuracy against the majority (the paper's Table 12); None without labels.

    `ensemble` has the ensemble's decision as one voice in the majority, as the paper did; `moderators` has each
    moderator as one.
    """
    if not config.labels:
        return None
    files = {name: Path(path) for name, path in config.labels.items()}
    decided: dict[str, Verdict] = {}
    for id, track in state.tracks.items():
        decision = None if track.is_seed else standing.of(track).decision
        if decision is not None:
            decided[id] = "abstained" if decision == "undecided" else decision
    return {
        "ensemble": _plain(review(files, {ENSEMBLE: decided})),
        "moderators": _plain(review(files, votes_by_moderator(state, standing))),
    }


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value)
