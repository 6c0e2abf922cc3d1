"""What a generation's state amounts to: the counts of generation.json, of `--json` and of the card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from orbench.costs import Price
from orbench.generation.config import GenerationConfig
from orbench.generation.folder import State
from orbench.generation.standing import Standing, rewrites_wanted
from orbench.ledger import ledgers_dict, usage_together
from orbench.report.format import plural

_SELECTED = ("panel", "splits", "diversity", "bertscore", "overlap", "unparted")
"""What generation.json says of the splits."""
_DECIDED = ("safe", "rescued", "toxic")
_ENOUGH_VOTES = 10
"""Abstentions of a moderator from which it is said that most of its votes are."""
_ENOUGH_ANSWERS = 10
"""Answers of a rescuer from which it is said that most of them refuse."""
COUNTS = ("seeds", "rewrites", "kept", "hard", "toxic")


def count(config: GenerationConfig, state: State, standing: Standing, prices: Mapping[str, Price]) -> dict[str, Any]:
    """Everything that follows from the state alone; `kept`, `hard` and `toxic` are filled in by the selection.

    Before anything is selected, `kept` counts the prompts that were decided to be safe.
    """
    # What was asked for and is not there counts as nothing; nobody asked a given file for all ten categories.
    asked = config.wanted if config.seeder and config.from_prompts is None else config.categories
    categories = {name: dict.fromkeys(COUNTS, 0) for name in asked}
    drops: dict[str, Counter[str]] = {"seeds": Counter(), "rewrites": Counter()}
    for is_seed, reason in state.rows.values():
        if reason is not None:
            drops["seeds" if is_seed else "rewrites"][reason] += 1
    moderators = {name: {"toxic": 0, "safe": 0, "abstained": 0} for name in standing.moderators}
    moderation: Counter[str] = Counter()
    decided: Counter[str] = Counter()
    voted_toxic = 0
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
        voted_toxic += standing.rescues and standing.is_voted_toxic(track)
        if stands.decision == "safe":
            mine["kept"] += 1
        else:
            moderation[stands.reason or ""] += 1
    return {
        "counts": {name: sum(mine[name] for mine in categories.values()) for name in COUNTS},
        "categories": categories,
        "moderators": moderators,
        "decided": dict(decided),
        "rescue": {**_rescue(state), "voted_toxic": voted_toxic, "brought_back": decided["rescued"]}
        if standing.rescues
        else {},
        "too_few": {name: {"asked": asked, "came": came} for name, (asked, came) in state.too_few.items()},
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


def failing(state: State) -> dict[str, str]:
    """Role and model to how many of its calls failed in this command, and with what most of them."""
    found = {}
    for (role, model), errors in state.errors.items():
        [(most, times)] = errors.most_common(1)
        found[f"{role} {model}"] = f"{plural(errors.total(), 'call')} failed, {times:,} with: {most}"
    return found


def emptiness(facts: Mapping[str, Any]) -> str | None:
    """Why what was done ended with nothing to go on with, and what to do; None if there is something, or may still be.

    An audit has something where a prompt was decided, be it toxic.
    """
    stage, counts = facts["stage"], facts["counts"]
    if facts["open"]:
        return None
    match stage:
        case "seeds":
            what, there = "no seed was made", counts["seeds"]
        case "rewrites":
            what, there = "no rewrite was made", counts["rewrites"]
        case "moderation":
            what, there = "no prompt was decided", sum(facts["decided"].get(name, 0) for name in _DECIDED)
        case _:
            what, there = "no prompt was kept", counts["kept"]
    if there:
        return None
    drops = Counter[str]()
    for name in ("seeds", "rewrites", "moderation", "cleaning"):
        drops.update(facts["drops"].get(name, {}))
    reasons = [f"{reason} {times:,}" for reason, times in drops.most_common(3) if times]
    if not counts["rewrites"]:
        reasons += [
            f"{role}: {', '.join(f'{times:,} {outcome}' for outcome, times in outcomes.items())}"
            for role, outcomes in facts["calls"].items()
        ]
    return f"{what} ({'; '.join(reasons) or 'none was given'}). {_what_to_do(facts)}"


def _what_to_do(facts: Mapping[str, Any]) -> str:
    counts, decided = facts["counts"], facts["decided"]
    if not counts["rewrites"] and not counts["seeds"]:
        refused = any(
            role.startswith("seeder ") and outcomes.get("refused") for role, outcomes in facts["calls"].items()
        )
        return f"Take {'a --seeder without safety training' if refused else 'another --seeder'}, or give --seeds FILE"
    if not counts["rewrites"]:
        return "Take another --rewriter"
    if decided.get("undecided") == counts["rewrites"]:
        return "votes.jsonl holds what the moderators said; take others, or another --rule"
    return "drops.jsonl holds the reason of each prompt; another --rule, a --rescue or other models may let more pass"


def warnings_of(facts: Mapping[str, Any]) -> list[str]:
    """What a user should know of a finished generation that looks like a good one and is not."""
    found = [why] if (why := emptiness(facts)) else []
    rescue = facts.get("rescue") or {}
    for name, votes in facts["moderators"].items():
        abstained, prompts = votes["abstained"], sum(votes.values())
        if abstained >= _ENOUGH_VOTES and abstained > prompts / 2:
            found.append(
                f"{name} has no vote that can be read on {abstained:,} of {plural(prompts, 'prompt')}; votes.jsonl "
                "holds what it said"
            )
    if rescue.get("answered", 0) >= _ENOUGH_ANSWERS and rescue["refusals"] > rescue["answered"] / 2:
        found.append(
            f"the rescuer refused {rescue['refusals']:,} of {rescue['answered']:,} prompts; a refusal is a safe answer "
            "and brings its prompt back, so take a rescuer without safety training, or none"
        )
    return found


def _rescue(state: State) -> dict[str, int]:
    """The rescuer's answers, under whatever rule they were asked for, and how many of them are refusals."""
    read = sum(outcomes["read"] for (role, _), outcomes in state.outcomes.items() if role == "rescue")
    return {"answered": read, "refusals": state.rescue_refusals.total()}


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
    if not counted["moderators"]:  # none was named this time: what they did before still holds
        named = ("moderators", "decided", "rescue", "rule")
        counted = {**counted, **{name: before[name] for name in named if name in before}}
        counted["drops"] = {stage: drops for stage, drops in counted["drops"].items() if stage != "moderation"}
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
