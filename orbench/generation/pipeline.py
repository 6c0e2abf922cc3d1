"""The data's way from seeds to decided prompts: seeder -> rewriter -> moderators -> rescuer -> moderators.

All of them work at once. What a prompt needs next follows from what is known of it (`Track`), after every reply and
after a restart alike, so that going on is the same as beginning. A reply is on disk before anything is done with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, TypeVar

import msgspec

from orbench.engine.calls import CallResult
from orbench.engine.jsonl import read_lines
from orbench.engine.limits import limit_for
from orbench.engine.progress import Tally
from orbench.errors import RunError, UsageError
from orbench.generation import roles
from orbench.generation.cleaning import clean
from orbench.generation.config import STAGES, GenerationConfig, Role
from orbench.generation.flow import Flow, Job, Station
from orbench.generation.folder import RESPONSES, OpenFolder, State, Track, answers, call_name, half_read
from orbench.generation.formats import FoundItem, read_items
from orbench.generation.given import OTHER_CATEGORY
from orbench.generation.money import Money, unsaid
from orbench.generation.records import GIVEN, Call, Item, Subject, text_id
from orbench.generation.standing import DRY_CALLS, SURPLUS, is_dry, rewrites_wanted, standing
from orbench.models.base import Model, note_answered
from orbench.models.batch import BatchModel, has_batches, in_batches, refuse_under_way
from orbench.records import Message

J = TypeVar("J", bound=Job)

_GROWTH = 4
"""How many times the calls made so far the next wave may be, so that a seeder which refuses is noticed early."""


class SeedJob(msgspec.Struct, frozen=True):
    """A list of seeds to be asked for."""

    category: str
    number: int
    again: bool

    @property
    def id(self) -> str:
        """`CATEGORY/NUMBER`, as in `Call.id`."""
        return f"{self.category}/{self.number}"


class PromptJob(msgspec.Struct, frozen=True):
    """Something to be asked about one prompt."""

    track: Track
    ask: int
    of: Subject = "prompt"
    wanted: int = 0
    call: str = ""

    @property
    def id(self) -> str:
        """What is asked about which prompt, for which time."""
        return f"{self.call or self.track.item.id} {self.of} {self.ask}"


class Pipeline:
    """One run of the stages before selection."""

    def __init__(
        self,
        config: GenerationConfig,
        folder: OpenFolder,
        state: State,
        stage: str | None,
        money: Money,
        *,
        progress: bool | None = None,
    ) -> None:
        """Prepare the work; nothing is opened yet.

        Args:
            config: What to do.
            folder: Where everything is written.
            state: What the folder holds.
            stage: One of `STAGES` to do it alone; None for all.
            money: What it may cost.
            progress: Show how far each model is; None shows it on a terminal. False says nothing of batches either.
        """
        self._config = config
        self._folder = folder
        self.state = state
        self._stages = STAGES if stage is None else (stage,)
        self._money = money
        self._progress = progress
        self._batches = False
        self._standing = standing(config)
        self._rules = config.rules
        self._begun = False
        self._flow = Flow()
        self._models: list[Model] = []
        self.seed_counts = dict.fromkeys(config.wanted, 0)
        for track in state.tracks.values():
            if track.is_seed:
                self.seed_counts[track.item.category] = self.seed_counts.get(track.item.category, 0) + 1

    async def run(self, given: Sequence[Item]) -> None:
        """Do what is owed.

        Args:
            given: Rows of a given file that may be new.

        Raises:
            orbench.OrbenchError: A model that cannot be used, or a disk that is full; all that came before is saved.
        """
        config = self._config
        try:
            self._seeder = self._open_seeder(config.seeder) if self.makes_seeds else None
            self._rewriter = self._open_rewriter(config.rewriter) if "rewrites" in self._stages else None
            moderating = "moderation" in self._stages
            self._moderators = {r.name: self._open_moderator(r) for r in config.moderators} if moderating else {}
            self._rescuer = self._open_rescuer(config.rescue) if moderating else None
            if "selection" in self._stages:
                self._try_panel()
            if config.batch and not self._batches:
                raise UsageError("--batch: no model here can be asked in batches; openai/... and anthropic/... can")
            self._money.count_spent(self.state, self._folder.path)
            await self._flow.run(self._begin(given))
        finally:
            for model in self._models:
                with suppress(Exception):
                    await model.close()

    @property
    def adaptations(self) -> dict[str, list[str]]:
        """Models to what they did not accept as it was sent."""
        found = {model.name: list(getattr(model, "adaptations", [])) for model in self._models}
        return {name: notes for name, notes in found.items() if notes}

    @cached_property
    def _earlier(self) -> dict[str, list[str]]:
        """Prompts to their rewrites, for a rewriter who is to write more of them: it gave those in an earlier run."""
        found: dict[str, list[str]] = {}
        for track in self.state.tracks.values():
            if track.item.parent_id is not None and track.item.parent_id in self.state.tracks:
                found.setdefault(track.item.parent_id, []).append(track.item.prompt)
        return found

    def catch_up(self) -> None:
        """Make rows of replies that were there when an earlier run was stopped."""
        for is_seeder, call in half_read(self._folder.path, self.state):
            self._take(call, is_seed=is_seeder)

    async def _begin(self, given: Sequence[Item]) -> None:
        """Take up what the folder and the given file hold, then make seeds."""
        self.catch_up()
        owed = {track.item.id for track in self.state.tracks.values() if self._needs_answer(track)}
        for prompt_id, answer in answers(self._folder.path, owed):
            self.state.tracks[prompt_id].answer = answer
        self._begun = True
        for number, track in enumerate(list(self.state.tracks.values())):
            self._advance(track)
            if number % 500 == 0:
                await asyncio.sleep(0)  # lets the models begin
        for item in given:
            row = self.state.rows.get(item.key)
            if row is None or (row[1] == OTHER_CATEGORY and item.dropped is None):
                self._keep(item)
        if "seeds" in self._stages:
            self._revive()
        if self._seeder is not None:
            await self._make_seeds(self._seeder)

    # --- seeds

    async def _make_seeds(self, seeder: Station[SeedJob]) -> None:
        """Ask for lists of seeds in waves until each category has its target or gives nothing new any more."""
        failing: set[str] = set()
        while True:
            wave = [job for category in self._config.wanted if category not in failing for job in self._wave(category)]
            if not wave:
                return
            wave.sort(key=lambda job: job.number)  # the categories side by side
            await seeder.ask(wave)
            for category in {job.category for job in wave}:
                ids = {job.id for job in wave if job.category == category}
                outcomes = [call[1] for call in self.state.seed_calls.get(category, []) if call[0] in ids]
                if all(outcome == "error" for outcome in outcomes):
                    failing.add(category)  # owed to the next run

    def _wave(self, category: str) -> list[SeedJob]:
        missing = self._config.seeds_per_category - self.seed_counts[category]
        if missing <= 0 or self.is_dry(category):
            return []
        calls = self.state.seed_calls.get(category, [])
        wanted = -(-missing // self._config.seeds_per_call)
        count = min(wanted, max(DRY_CALLS, _GROWTH * len(calls)))
        used = {call[0] for call in calls if call[1] != "error"}
        numbers: list[int] = []
        number = 1
        while len(numbers) < count:
            if f"{category}/{number}" not in used:
                numbers.append(number)
            number += 1
        again = bool(calls) and calls[-1][1] == "unreadable"
        return [SeedJob(category, number, again) for number in numbers]

    @property
    def makes_seeds(self) -> bool:
        """Whether seeds are made in this run."""
        return "seeds" in self._stages and self._config.seeder is not None and self._config.from_prompts is None

    def falls_short(self, category: str) -> bool:
        """Whether a category has fewer seeds than its target."""
        return self.seed_counts.get(category, 0) < self._config.seeds_per_category

    def is_dry(self, category: str) -> bool:
        """As the function of that name."""
        return is_dry(self._config, self.state, category)

    def _revive(self) -> None:
        """Take up seeds that were more than an earlier, smaller target."""
        if not any(reason == SURPLUS for is_seed, reason in self.state.rows.values() if is_seed):
            return
        for item in list(read_lines(self._folder.seeds.path, Item)):
            missing = self._config.seeds_per_category - self.seed_counts.get(item.category, 0)
            if item.dropped == SURPLUS and self.state.rows[item.key][1] == SURPLUS and missing > 0:
                self._keep(msgspec.structs.replace(item, dropped=None))

    # --- rows

    def _take(self, call: Call, *, is_seed: bool) -> None:
        """Make rows of a reply, as far as they are not there."""
        if call.outcome != "read":
            return
        name = call_name(call.id, call.ask)
        parent = None if is_seed else self.state.tracks[call.id.partition("+")[0]].item
        for place, found in enumerate(read_items(call.response)):
            if (name, place) not in self.state.rows:
                self._keep(_item(found, call, name, place, parent))

    def _keep(self, item: Item) -> None:
        """Write a row, dropped if there is a reason, and send it on if there is none."""
        item = msgspec.structs.replace(item, dropped=self._problem(item))
        (self._folder.seeds if item.round == 0 else self._folder.rewrites).append(item)
        track = self.state.add(item)
        if track is not None:
            if track.is_seed:
                self.seed_counts[item.category] = self.seed_counts.get(item.category, 0) + 1
            if self._begun:  # else all that is there is begun in its turn
                self._advance(track)

    def _problem(self, item: Item) -> str | None:
        """Why a row goes no further; None if it does."""
        if item.dropped is not None:
            return item.dropped
        if item.model != GIVEN and (reason := clean([item.prompt], self._rules)[0].dropped):
            return reason.value  # before votes are paid for
        if item.id == item.parent_id:
            return "the same as its seed" if item.round == 1 else "the same as what it rewrites"
        if item.id in self.state.tracks:
            return "duplicate"
        if item.round == 0 and self.seed_counts.get(item.category, 0) >= self._config.seeds_per_category:
            return SURPLUS
        return None

    # --- what a prompt needs next

    def _advance(self, track: Track) -> None:
        """Begin what a prompt needs next; called when it is met first, and when all that was begun for it is there."""
        stands = self._standing.of(track)
        if wanted := rewrites_wanted(self._config, track, stands.decision):
            self._rewrite(track, wanted)
        if track.is_seed or stands.decision is not None:
            track.answer = None  # nobody has to see it any more
            return
        if self._standing.missing(track, "prompt"):
            self._moderate(track, "prompt")
        elif track.answered is not None:
            self._moderate(track, "answer")
        elif self._rescuer is not None:
            self._rescuer.put(PromptJob(track, self.state.asks.get((track.item.id, "answer", ""), 1)))

    def _rewrite(self, track: Track, wanted: int) -> None:
        if self._rewriter is not None:
            call = track.item.id + (f"+{track.rewritten}" if track.rewritten else "")
            ask = self.state.asks.get((call, "rewrites", ""), 1)
            self._rewriter.put(PromptJob(track, ask, wanted=wanted, call=call))

    def _moderate(self, track: Track, of: Subject) -> None:
        for name in self._standing.missing(track, of):
            if name in self._moderators:
                ask = self.state.asks.get((track.item.id, of, name), 1)
                self._moderators[name].put(PromptJob(track, ask, of=of))

    # --- the roles

    def _open(self, role: Role, kind: str) -> Model:
        model = role.open(self._config.base_url, self._config.concurrency)
        self._models.append(model)
        if any(name == model.name and ledger.answered for (_, name), ledger in self.state.usage.items()):
            note_answered(model)
        scope = f"{kind} {msgspec.json.encode(role.sampling(roles.SAMPLING[kind])).decode()}"
        if self._config.batch and has_batches(model):
            self._batches = True
            return in_batches(model, self._folder.path / RESPONSES, scope, quiet=self._progress is False)
        if not isinstance(model, BatchModel):
            refuse_under_way(model, self._folder.path / RESPONSES, scope)
        return model

    def _try_panel(self) -> None:
        """Open the panel and let it go: a missing key or price shows now, not when all else is paid for."""
        for role in (*self._config.panel, *([self._config.panel_judge] if self._config.panel_judge else [])):
            model = role.open(self._config.base_url, self._config.concurrency)
            if isinstance(role.model, str):
                self._models.append(model)
            self._batches = self._batches or (self._config.batch and has_batches(model))
            self._money.purse("panel", model)

    def _open_seeder(self, role: Role | None) -> Station[SeedJob] | None:
        if role is None:
            return None

        def messages(job: SeedJob) -> tuple[Message, ...]:
            return roles.seed_messages(self._config, job.category, job.number, again=job.again)

        def receive(job: SeedJob, result: CallResult) -> None:
            call = roles.read_list(
                result,
                id=job.id,
                ask=1,
                model=role.name,
                category=job.category,
                wanted=self._config.seeds_per_call,
                estimate=unsaid(station.model, result),
            )
            self._folder.seed_calls.append(call)
            self.state.add_seed_call(call)
            self._take(call, is_seed=True)

        station = self._station(role, "seeder", messages, receive, roles.LIST_SCHEMA)
        return station

    def _open_rewriter(self, role: Role | None) -> Station[PromptJob] | None:
        if role is None:
            return None

        def messages(job: PromptJob) -> tuple[Message, ...]:
            item = job.track.item
            earlier = self._earlier.get(item.id, []) if job.track.rewritten else []
            return roles.rewrite_messages(
                self._config, item.category, item.prompt, job.wanted, earlier=earlier, again=job.ask > 1
            )

        def receive(job: PromptJob, result: CallResult) -> None:
            call = roles.read_list(
                result,
                id=job.call,
                ask=job.ask,
                model=role.name,
                category=job.track.item.category,
                wanted=job.wanted,
                estimate=unsaid(station.model, result),
            )
            self._folder.rewrite_calls.append(call)
            self.state.add_rewrite_call(call)
            self._take(call, is_seed=False)
            if call.outcome not in ("read", "error") and job.ask < roles.ASKS:
                station.put(msgspec.structs.replace(job, ask=job.ask + 1))

        station = self._station(role, "rewriter", messages, receive, roles.LIST_SCHEMA)
        return station

    def _open_moderator(self, role: Role) -> Station[PromptJob]:
        name = role.name

        def messages(job: PromptJob) -> tuple[Message, ...]:
            text = job.track.item.prompt if job.of == "prompt" else job.track.answer
            if text is None:  # an empty text would get a verdict, and it would count
                path = self._folder.rescue_calls.path
                raise RunError(f"{path}: the answer to prompt {job.track.item.id} is not in it: damaged; restore it")
            return roles.vote_messages(self._config, text, again=job.ask > 1)

        def receive(job: PromptJob, result: CallResult) -> None:
            track = job.track
            vote = roles.read_vote(
                result,
                self._config,
                prompt_id=track.item.id,
                of=job.of,
                moderator=name,
                ask=job.ask,
                estimate=unsaid(station.model, result),
            )
            self._folder.votes.append(vote)
            self.state.add_vote(vote)
            if vote.error is not None:
                return
            if name not in track.votes_on(job.of):
                station.put(msgspec.structs.replace(job, ask=job.ask + 1))
            elif not self._standing.missing(track, job.of):
                self._advance(track)

        station = self._station(role, "moderator", messages, receive, roles.vote_schema(self._config))
        return station

    def _open_rescuer(self, role: Role | None) -> Station[PromptJob] | None:
        if role is None:
            return None

        def messages(job: PromptJob) -> tuple[Message, ...]:
            return (Message("user", roles.shown(self._config, job.track.item.prompt)),)

        def receive(job: PromptJob, result: CallResult) -> None:
            item = job.track.item
            call = roles.read_answer(
                result,
                id=item.id,
                ask=job.ask,
                model=role.name,
                category=item.category,
                estimate=unsaid(station.model, result),
            )
            self._folder.rescue_calls.append(call)
            self.state.add_rescue_call(call)
            if job.track.answered is not None:
                job.track.answer = call.response
                self._advance(job.track)
            elif call.outcome != "error":
                station.put(msgspec.structs.replace(job, ask=job.ask + 1))

        station = self._station(role, "rescue", messages, receive)
        return station

    def _station(
        self,
        role: Role,
        kind: str,
        messages: Callable[[J], tuple[Message, ...]],
        receive: Callable[[J, CallResult], None],
        schema: dict[str, Any] | None = None,
    ) -> Station[J]:
        config = self._config
        model = self._open(role, kind)
        return Station(
            self._flow,
            model,
            role.sampling(roles.SAMPLING[kind]),
            messages,
            receive,
            schema,
            limit_for(model, role.calls_open(config.concurrency), config.rpm, config.tpm),
            self._money.purse(kind, model),
            Tally(f"{kind} {model.name}", len(self._flow.stations), self._progress),
            gives_way=self._money.budget is not None and kind in ("seeder", "rewriter"),
        )

    def _needs_answer(self, track: Track) -> bool:
        """Whether moderators may still have to see the rescuer's answer: they do if they vote the prompt toxic."""
        return track.answered == "read" and self._standing.of(track).decision is None


def _item(found: FoundItem, call: Call, name: str, place: int, parent: Item | None) -> Item:
    """A row for one item of a reply."""
    id = text_id(found.text)
    return Item(
        id=id,
        prompt=found.text,
        category=call.category,
        seed_id=parent.seed_id if parent else id,
        parent_id=parent.id if parent else None,
        round=parent.round + 1 if parent else 0,
        model=call.model,
        call=name,
        place=place,
        dropped=found.problem or (None if place < call.wanted else "more than was asked for"),
    )
