"""What a generation's state amounts to: the counts of generation.json, of `--json` and of the card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from orbench.costs import Price
from orbench.generation.config import GenerationConfig
from orbench.generation.folder import State
from orbench.generation.pipeline import Standing, rewrites_wanted
from orbench.ledger import ledgers_dict, usage_together

_SELECTED = ("panel", "splits", "diversity", "bertscore", "overlap", "unparted")
"""What generation.json says of the splits."""
COUNTS = ("seeds", "rewrites", "kept", "hard", "toxic")


def count(config: GenerationConfig, state: State, standing: Standing, prices: Mapping[str, Price]) -> dict[str, Any]:
    """Everything that follows from the state alone; `kept`, `hard` and `toxic` are filled in by the selection.

    Before anything is selected, `kept` counts the prompts that were decided to be safe.
    """
    categories = {name: dict.fromkeys(COUNTS, 0) for name in config.wanted}
    drops: dict[str, Counter[str]] = {"seeds": Counter(), "rewrites": Counter()}
    for is_seed, reason in state.rows.values():
        if reason is not None:
            drops["seeds" if is_seed else "rewrites"][reason] += 1
    moderators = {name: {"toxic": 0, "safe": 0, "abstained": 0} for name in standing.moderators}
    moderation: Counter[str] = Counter()
    decided: Counter[str] = Counter()
    for track in state.tracks.values():
        mine = categories.setdefault(track.item.category, dict.fromkeys(COUNTS, 0))
        mine["seeds" if track.is_seed else "rewrites"] += 1
        if track.is_seed:
            continue
        for name, vote in track.votes.items():
            if name in moderators:
                moderators[name][vote] += 1
        stands = standing.of(track)
        decided["rescued" if stands.rescued else stands.decision or "owed"] += 1
        if stands.decision == "safe":
            mine["kept"] += 1
        else:
            moderation[stands.reason or ""] += 1
    return {
        "counts": {name: sum(mine[name] for mine in categories.values()) for name in COUNTS},
        "categories": categories,
        "moderators": moderators,
        "decided": dict(decided),
        "drops": {**{stage: dict(reasons) for stage, reasons in drops.items()}, "moderation": dict(moderation)},
        "rows": {
            "seeds": sum(is_seed for is_seed, _ in state.rows.values()),
            "rewrites": sum(not is_seed for is_seed, _ in state.rows.values()),
        },
        "calls": {f"{role} {model}": dict(outcomes) for (role, model), outcomes in state.outcomes.items()},
        "yield": _yields(state, standing),
        "usage": usage(state, prices),
        "prices": msgspec.to_builtins(prices),
    }


def _yields(state: State, standing: Standing) -> dict[str, dict[str, Any]]:
    """What became of each author's prompts: how many moderators let through; a seed counts if a rewrite of it was.

    Cleaning comes after it, so `kept` is less.
    """
    through = {track.item.id for track in state.tracks.values() if standing.of(track).decision == "safe"}
    through |= {state.tracks[id].item.seed_id for id in through}
    found: dict[str, dict[str, Any]] = {}
    for id, track in state.tracks.items():
        role = "seeder" if track.is_seed else "rewriter"
        mine = found.setdefault(f"{role} {track.item.model}", {"prompts": 0, "let_through": 0})
        mine["prompts"] += 1
        mine["let_through"] += id in through
    return found


def usage(state: State, prices: Mapping[str, Price]) -> dict[str, Any]:
    """Requests, tokens and USD, all together and by role and model; the panel's are added by the selection."""
    ledgers = {f"{role} {model}": ledger for (role, model), ledger in state.usage.items()}
    roles = {name: ledger.to_dict(prices.get(name)) for name, ledger in ledgers.items()}
    return {**ledgers_dict(ledgers, prices), "roles": roles}


def with_roles(usage: Mapping[str, Any], roles: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Usage with that of some more roles."""
    return {**usage_together([usage, *roles.values()]), "roles": {**usage["roles"], **roles}}


def carried_over(counted: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a run that did not select, with those of the selection before it, whose splits are still there.

    `stale` says so: prompts may have been added or decided otherwise since.
    """
    if not before.get("splits"):
        return counted
    earlier = before["categories"]
    nothing = dict.fromkeys(COUNTS, 0)
    categories = {
        name: {
            **counted["categories"].get(name, nothing),
            **{column: earlier.get(name, nothing)[column] for column in ("kept", "hard", "toxic")},
        }
        for name in {**counted["categories"], **earlier}
    }
    panel = {name: use for name, use in before["usage"]["roles"].items() if name.startswith(("panel ", "panel-judge "))}
    return {
        **counted,
        **{name: before[name] for name in _SELECTED if name in before},
        "counts": {name: sum(mine[name] for mine in categories.values()) for name in COUNTS},
        "categories": categories,
        "drops": {**before["drops"], **counted["drops"]},
        "usage": with_roles(counted["usage"], panel),
        "stale": True,
    }


def owed(config: GenerationConfig, state: State, standing: Standing, stage: str | None) -> int:
    """Calls that the configuration needs of prompts that are there: they failed, or there was no money, or no time.

    What follows from their replies is not counted, nor what other stages owe; the selection needs all of them.
    """
    rewrites = config.rewriter is not None and stage in (None, "rewrites", "selection")
    votes = stage in (None, "moderation", "selection")
    found = 0
    for track in state.tracks.values():
        stands = standing.of(track)
        if rewrites and rewrites_wanted(config, track, stands.decision):
            found += 1
        if votes and standing.rule is not None and stands.decision is None:
            missing = standing.missing(track, "prompt")
            if missing or track.answered is not None:
                found += len(missing or standing.missing(track, "answer"))
            else:
                found += 1  # the rescuer's answer
    return found
