"""What a generation would ask, before anything is asked: calls, tokens and USD of each stage, low and high.

What is in the folder already is not asked again and not counted. What follows from replies that are not there yet is
between two ends. Low: 80 % of the rewrites are kept, as in the paper, the moderators let them pass at once, and every
reply is short. High: moderators vote every rewrite toxic, every answer brings it back, and every reply is as long as
`max_tokens` allows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from orbench import costs
from orbench.costs import CHARACTERS, NONE, SHORTEST, Range, load_prices, request_tokens, text_tokens
from orbench.engine.jsonl import read_lines
from orbench.engine.run_folder import folder_name
from orbench.errors import ModelError
from orbench.evaluation.money import warn_if_short
from orbench.generation import check_stage
from orbench.generation.config import STAGES, GenerationConfig, Role
from orbench.generation.folder import (
    GENERATION,
    PANEL,
    SEEDS,
    State,
    check_definitions,
    check_order,
    read_generation,
    scan,
)
from orbench.generation.given import check_origin, given_items
from orbench.generation.money import Money
from orbench.generation.records import Item
from orbench.generation.roles import EARLIER, SAMPLING, rewrite_messages, seed_messages, vote_messages
from orbench.generation.standing import SURPLUS, is_dry, rewrites_wanted, standing
from orbench.models.batch import has_batches
from orbench.records import Message, Request
from orbench.report.format import amount, money, span
from orbench.report.table import columns, wrap
from orbench.run_state import scan as scan_run

KEPT = 0.8
"""Of the rewrites: 80,359 safe ones of up to 100,000 (section 3.3)."""
_PROMPT = "x" * 130
"""As long as the released prompts are on average."""
_LABEL = text_tokens("[[11. None of the above]]").low
_SHORT = text_tokens(_PROMPT).low


class StageEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """One model's calls in one stage."""

    stage: str
    model: str
    calls: Range
    """Retries, and replies that cannot be read and are asked for again, not counted."""
    input_tokens: Range
    output_tokens: Range
    cost_usd: Range | None
    """None if the model's price is unknown."""


class Estimate(msgspec.Struct, frozen=True):
    """All of them."""

    stages: list[StageEstimate]

    @property
    def cost_usd(self) -> Range | None:
        """All together; None if a price is unknown."""
        return costs.total_cost(self.stages)

    def _sum(self, name: str) -> Range:
        return sum((getattr(each, name) for each in self.stages), NONE)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        found: dict[str, Any] = msgspec.to_builtins(
            {
                **{name: self._sum(name) for name in ("calls", "input_tokens", "output_tokens")},
                "cost_usd": self.cost_usd,
                "stages": self.stages,
            }
        )
        return found

    def __str__(self) -> str:
        """A table for people."""
        rows = [["stage", "model", "calls", "tokens in", "tokens out", "cost"]]
        rows += [
            [each.stage, each.model, *_row(each.calls, each.input_tokens, each.output_tokens, each.cost_usd)]
            for each in self.stages
        ]
        calls, sent, received = (self._sum(name) for name in ("calls", "input_tokens", "output_tokens"))
        rows.append(["all", "", *_row(calls, sent, received, self.cost_usd)])
        notes = [
            f"Nothing was asked. Low: moderators let {KEPT:.0%} pass at once, as many as the paper kept, and replies "
            "are short. High: they vote all of it toxic, all of it comes back, and every reply is as long as "
            "max_tokens allows. A seeder that repeats itself or refuses takes more; retries are not in it."
        ]
        if unknown := sorted({each.model for each in self.stages if each.cost_usd is None and each.calls.high}):
            told = ", ".join(unknown)
            notes.append(f"No price is known for {told} at the address asked: give it with --prices FILE.")
        return "\n".join([*columns(rows), "", *(line for note in notes for line in wrap(note))])


def _row(calls: Range, sent: Range, received: Range, usd: Range | None) -> list[str]:
    return [
        span(f"{calls.low:,.0f}", f"{calls.high:,.0f}"),
        *(span(amount(each.low), amount(each.high)) for each in (sent, received)),
        money(None) if usd is None else span(money(usd.low), money(usd.high)),
    ]


class _Named(msgspec.Struct, frozen=True):
    """A model that cannot be opened here, such as for want of a key: its price can be told all the same."""

    name: str
    base_url: str | None
    price_share: float = 1.0


def _named(role: Role, config: GenerationConfig) -> _Named:
    address = role.base_url or config.base_url
    try:
        model = role.open(config.base_url, config.concurrency)
    except ModelError:
        return _Named(role.name, address)
    share = costs.BATCH_SHARE if config.batch and has_batches(model) else 1.0
    return _Named(model.name, getattr(model, "base_url", None), share)


def estimate(config: GenerationConfig, stage: str | None = None) -> Estimate:
    """What the same call of `generate` would ask; nothing is sent, nothing written.

    Raises:
        orbench.OrbenchError: As `generate` would.
    """
    check_stage(config, stage)
    stages = STAGES if stage is None else (stage,)
    plan = _Plan(config, stage)
    if "seeds" in stages:
        plan.seeds()
    if "rewrites" in stages:
        plan.rewrites()
    if "moderation" in stages:
        plan.moderation()
    if "selection" in stages:
        plan.selection()
    return Estimate(plan.found)


def warn_of_bound(config: GenerationConfig, found: Estimate) -> None:
    """Say in one line that `max_cost`, less what the folder has cost so far, may not be enough for what is estimated.

    Raises:
        orbench.OrbenchError: As `generate` would.
    """
    folder = Path(str(config.out))
    before = read_generation(folder) if (folder / GENERATION).exists() else {}
    own = Money(config, before)
    if own.budget is None:
        return
    if before:
        own.count_spent(scan(folder), folder)
    warn_if_short(own.budget, found.cost_usd)


class _Plan:
    """What is there, what will have come to be, and the calls that this takes."""

    def __init__(self, config: GenerationConfig, stage: str | None) -> None:
        self.found: list[StageEstimate] = []
        self._config = config
        self._table = load_prices(config.prices)
        self._folder = Path(str(config.out))
        self._standing = standing(config)
        self._state = state = State()
        items = given_items(config)
        check_order(self._folder, stage, items)
        if (self._folder / GENERATION).exists():
            before = read_generation(self._folder)
            check_definitions(self._folder, before["config"], config)
            self._state = state = scan(self._folder)
            check_origin(config, stage, items, state, before)
        self._seeds = [track for track in state.tracks.values() if track.is_seed]
        self._rewrites = [track for track in state.tracks.values() if not track.is_seed]
        new = [item for item in items if item.key not in state.rows and item.id not in state.tracks]
        given = {item.id: item for item in new if item.dropped is None}.values()  # repeated ones once
        self._seed_counts = Counter(track.item.category for track in self._seeds)
        self._new_seeds = 0
        self._take_up(item.category for item in given if item.round == 0)
        self._new = _exactly(sum(item.round == 1 for item in given))
        """Prompts to moderate that are not there yet."""

    def seeds(self) -> None:
        config = self._config
        if self._state.rows:
            rows, all_items = self._state.rows, read_lines(self._folder / SEEDS, Item)
            self._take_up(item.category for item in all_items if item.dropped == rows[item.key][1] == SURPLUS)
        if config.seeder is None or config.from_prompts:
            return
        missing = [
            max(0, config.seeds_per_category - self._seed_counts[category])
            for category in config.wanted
            if not is_dry(config, self._state, category)
        ]
        calls = _exactly(sum(math.ceil(each / config.seeds_per_call) for each in missing))
        messages = seed_messages(config, config.wanted[0], 2, again=False)
        self._add("seeds", "seeder", config.seeder, calls, messages, least=config.seeds_per_call * _SHORT)
        self._new_seeds += sum(missing)

    def _take_up(self, categories: Iterable[str]) -> None:
        """Count seeds of these categories that will be there, as far as the target lets them."""
        for category in categories:
            if self._seed_counts[category] < self._config.seeds_per_category:
                self._seed_counts[category] += 1
                self._new_seeds += 1

    def rewrites(self) -> None:
        config = self._config
        if config.rewriter is None:
            return
        there = [_PROMPT] * min(EARLIER, max((track.rewritten for track in self._state.tracks.values()), default=0))
        messages, longest = (
            rewrite_messages(config, config.wanted[0], _PROMPT, config.rewrites, earlier=earlier, again=False)
            for earlier in ([], there)
        )

        def add(name: str, calls: Range) -> None:
            assert config.rewriter is not None
            least = config.rewrites * _SHORT
            self._add(name, "rewriter", config.rewriter, calls, messages, least=least, longest=longest)

        parents = [(track, self._standing.of(track).decision) for track in (*self._seeds, *self._rewrites)]
        new = _exactly(self._new_seeds)
        """Prompts of the round before that are not there yet, as far as they are to be rewritten."""
        for turn in range(config.rounds + 1):
            owing = [(track, decision) for track, decision in parents if track.item.round == turn]
            known = [rewrites_wanted(config, track, decision) for track, decision in owing]
            open_ = sum(decision is None and track.rewritten < config.rewrites for track, decision in owing)
            maybe = new + Range(open_ * (1 - KEPT), open_)
            add("rewrites" if turn == 0 else f"rewrites, round {turn + 1}", _exactly(sum(map(bool, known))) + maybe)
            made = _exactly(sum(known)) + maybe * config.rewrites
            voted = made + (self._new if turn == 0 else NONE)  # given prompts are of the first round
            self._new += made
            new = Range(voted.low * (1 - KEPT), voted.high)

    def moderation(self) -> None:
        config, stands = self._config, self._standing
        messages = vote_messages(config, _PROMPT, again=False)
        for role in config.moderators:
            owed = sum(role.name not in track.votes for track in self._rewrites)
            self._add("moderation", "moderator", role, self._new + _exactly(owed), messages, least=_LABEL)
        if config.rescue is None:
            return
        undecided = [track for track in self._rewrites if stands.of(track).decision is None]
        unvoted = sum(bool(stands.missing(track, "prompt")) for track in undecided)
        answered = [track for track in undecided if track.answered == "read"]
        toxic = _exactly(len(undecided) - unvoted - len(answered))
        toxic += Range((self._new.low + unvoted) * (1 - KEPT), self._new.high + unvoted)
        self._add("rescue", "rescue", config.rescue, toxic, (Message("user", _PROMPT),), least=SHORTEST)
        most = config.rescue.sampling(SAMPLING["rescue"]).max_tokens
        longest = vote_messages(config, "x" * round(most * CHARACTERS[1]), again=False)
        for role in config.moderators:
            owed = sum(role.name in stands.missing(track, "answer") for track in answered)
            self._add("answers", "moderator", role, toxic + _exactly(owed), messages, least=_LABEL, longest=longest)

    def selection(self) -> None:
        decided = [self._standing.of(track).decision for track in self._rewrites]
        safe, unsure = decided.count("safe"), decided.count(None)
        for role in self._config.panel:
            kept = Range(safe + KEPT * (self._new.low + unsure), safe + self._new.high + unsure)
            asked = _answered(self._folder, role)
            calls = Range(max(0, kept.low - asked), max(0, kept.high - asked))
            self._add("selection", "rescue", role, calls, (Message("user", _PROMPT),), least=SHORTEST)

    def _add(
        self,
        stage: str,
        kind: str,
        role: Role,
        calls: Range,
        messages: tuple[Message, ...],
        *,
        least: float,
        longest: tuple[Message, ...] | None = None,
    ) -> None:
        sampling = role.sampling(SAMPLING[kind])
        calls = Range(round(calls.low), round(calls.high))
        low, high = (
            request_tokens(Request(id="", messages=each, sampling=sampling)) for each in (messages, longest or messages)
        )
        one = costs.estimate(
            _named(role, self._config),
            self._table,
            calls,
            Range(calls.low * low.low, calls.high * high.high),
            Range(calls.low * min(least, sampling.max_tokens), calls.high * sampling.max_tokens),
        )
        self.found.append(
            StageEstimate(
                stage=stage,
                model=role.name,
                calls=one.calls,
                input_tokens=one.input_tokens,
                output_tokens=one.output_tokens,
                cost_usd=one.cost_usd,
            )
        )


def _answered(folder: Path, role: Role) -> int:
    """Prompts that a member of the panel has answered."""
    runs = (folder / PANEL).glob(f"*/{folder_name(role.name)}")
    return sum(not row.failed for run in runs for row in scan_run(run, role.name).rows.values())


def _exactly(number: float) -> Range:
    return Range(number, number)
