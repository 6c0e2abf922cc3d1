"""One model's evaluation: what is still owed, asked and scored, and where it goes."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import msgspec

from orbench import templates
from orbench.costs import Budget, Price
from orbench.engine.calls import CallResult, complete, each, given_up
from orbench.engine.jsonl import without_surrogates
from orbench.engine.limits import ConcurrencyLimit
from orbench.engine.progress import Progress
from orbench.engine.run_folder import (
    RUN,
    RunFolder,
    add_remarks,
    check_same,
    read_config,
    read_responses,
    read_verdicts,
)
from orbench.errors import OrbenchError, RunError
from orbench.evaluation.money import Money, Plan
from orbench.evaluation.work import Work
from orbench.models.base import Model, RetryableError, note_answered
from orbench.models.batch import BatchModel, refuse_under_way
from orbench.precision import Stopper
from orbench.records import Message, Prompt, Request, Response, Sampling
from orbench.results import Evaluation
from orbench.run_state import Key, RowState, RunState, scan
from orbench.scoring.audit import LOCAL, audited
from orbench.scoring.finding import Finding
from orbench.scoring.judge import Judge, find_template
from orbench.scoring.outcomes import Outcome, check_policy
from orbench.scoring.panel import Panel
from orbench.scoring.safety import SafetyJudge
from orbench.scoring.scorers import Scorer
from orbench.splits import Split

_JUDGE_AHEAD = 32
"""Replies that may be at the judge where a run may stop early: what it has not settled cannot stop the run."""
_PART = 200
"""Prompts that a local engine gets at once where a run may stop early."""


class Run:
    """One model's evaluation: what is to be asked and scored, and where it goes."""

    def __init__(
        self,
        *,
        model: Model | None,
        splits: Sequence[Split],
        folder: Path,
        config: dict[str, Any],
        scorer: Scorer,
        limit: ConcurrencyLimit | None,
        position: int,
        progress: bool | None,
        safety: SafetyJudge | None = None,
        audit: tuple[float, int] = (0.0, 0),
        calibration: str | Path | None = None,
        labels: str | Path | None = None,
        compare: Callable[[Evaluation], dict[str, Any] | None] | None = None,
        prices: Mapping[str, Price] | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.model = model
        self._safety = safety
        self._audit = audit
        self._corrections = {"calibration": calibration, "labels": labels}
        self._compare = compare
        self.folder = folder
        self._prompts = {(prompt.split, prompt.id): prompt for split in splits for prompt in split}
        self._system = config["system_prompt"]
        self._sampling = msgspec.convert(config["sampling"], Sampling)
        self._scorer = scorer
        self._limit = limit
        self._position = position
        self._show = progress
        self._closed = False
        self._adapted: list[str] = []
        """What had to be done to prompts before this command."""
        self._note_facts: Callable[[], None] = lambda: None
        judge = scorer.judge
        files = [find_template(judge.template).file] if judge else []
        files += [safety.guard.template] if safety and safety.guard.template else []
        self.config = {
            **config,
            "scorer": {
                "name": scorer.name,
                "digest": scorer.digest,
                "judge": judge.name if judge else None,
                "judges": [model.name for model in judge.models] if judge else [],
                "judge_template": judge.template if judge else None,
                "judge_rule": judge.rule if isinstance(judge, Panel) else None,
                # without one, the labels of an earlier one are kept
                "safety_judge": safety.model.name if safety else config.get("scorer", {}).get("safety_judge"),
            },
            "templates": {file: templates.digest(file) for file in files},
            "stopped_at_max_cost": None,
        }
        self._money = Money(
            config["model"],
            model,
            scorer,
            safety,
            table=prices or {},
            budget=budget,
            folder=folder,
            max_tokens=self._sampling.max_tokens,
            request=lambda text: self._request_of("", text),
        )

    @property
    def is_local(self) -> bool:
        """Whether an engine on this machine, which wants it for itself, is part of it."""
        judges = self._scorer.judge.models if self._scorer.judge else ()
        safety = self._safety.model if self._safety else None
        return any(_needs_machine(model) for model in (self.model, *judges, safety) if model is not None)

    async def run(self) -> Evaluation:
        """Do what is still owed, and close the folder and the model whatever happens."""
        try:
            before = read_config(self.folder) if (self.folder / RUN).exists() else {}
            if before:
                # until all is scored anew it is known what was there before, however often that is stopped
                was = before.get("scorer_before") or before["scorer"]
                self.config["scorer_before"] = was if was["digest"] != self._scorer.digest else None
            opened = RunFolder(self.folder, self.config)
            if before and self.model is not None and before.get("base_url") != self.config.get("base_url"):
                # no part of what a run is, since servers move; but another model may be behind another one
                earlier = [*before.get("earlier_base_urls", []), before.get("base_url")]
                opened.note("earlier_base_urls", list(dict.fromkeys(earlier)))
            try:
                return await self._work(opened)
            finally:
                opened.close()
        finally:
            await self.close()

    async def close(self) -> None:
        """Release the model; the judge may be at work for others."""
        if self.model is not None and not self._closed:
            self._closed = True
            await self.model.close()

    def plan(self) -> Plan:
        """What `run` would ask and spend; sends nothing and writes nothing.

        Raises:
            orbench.RunError: The folder is another run's, or damaged.
        """
        if (self.folder / RUN).exists():
            check_same(self.folder, read_config(self.folder), self.config)
        state = scan(self.folder, self.config["model"])
        owed, unscored, unlabelled = self._owed(state)
        return self._money.plan(
            prompts=max(len(self._prompts), len(state.rows)),
            owed=((prompt, self._request(prompt)) for key, prompt in self._prompts.items() if key in owed),
            replies=self._stored(unscored),
            unlabelled=self._stored(unlabelled),
            audit=self._audit[0],
        )

    def count_spent(self) -> None:
        """Count against the budget what the run folder says was spent before; runs of one command share the budget."""
        if self._money.max_usd is not None and (self.folder / RUN).exists():
            self._money.count_spent(read_config(self.folder))

    def _owed(self, state: RunState) -> tuple[set[Key], set[Key], set[Key]]:
        """Which rows are to be asked, which are to be scored, and which are for the safety judge alone."""
        owed = {key for key in self._prompts if key not in state.rows or state.rows[key].failed}
        unscored = {key for key, row in state.rows.items() if key not in owed and self._needs_verdict(row)}
        unlabelled = {key for key, row in state.rows.items() if key not in owed | unscored and self._needs_label(row)}
        return owed, unscored, unlabelled

    async def _work(self, opened: RunFolder) -> Evaluation:
        state = scan(self.folder, self.config["model"])
        noted = read_config(self.folder)
        self._adapted = noted.get("adaptations", [])
        # others are of other judges, or from an earlier price list
        opened.note("prices", {**noted.get("prices", {}), **msgspec.to_builtins(self._money.prices)})
        owed, unscored, unlabelled = self._owed(state)
        total = max(len(self._prompts), len(state.rows))
        policy = check_policy(self.config["policy"])
        progress = Progress(
            self.config["model"], total, total - len(owed) - len(unscored), self._position, policy, self._show
        )
        self._note_facts = lambda: note_facts(opened, self.model)
        work = Work(opened, state, self._scorer, progress, self._safety, self._money)
        work.take_over(read_verdicts(self.folder))

        stopper = self._stopper(state)

        self._refuse_under_way(owed, unscored | unlabelled)
        self._note_answered(state)

        # What was never asked comes first: failures that come again may end the run, as access denied in a row does.
        failed = owed & state.rows.keys()

        async def ask() -> None:
            if owed and stopper is None:
                parts = (owed - failed, failed)
                prompts = (self._prompts[key] for part in parts for key in self._prompts if key in part)
                await self._ask(prompts, work)
            elif owed and stopper is not None:
                await self._ask_until(stopper, owed, work)
            if self.model is not None and self.model.batch_size is None:
                await self.close()  # a judge on this machine may need its memory

        try:
            await work.do(self._stored(unscored), self._decided(unlabelled), ask, self._to_audit(state))
        except BaseException:
            with suppress(RunError):  # such as a full disk, which is being raised already
                self._keep_begun(opened, state)
                self._conclude(opened, state)
            raise
        finally:
            progress.close()
        return self._conclude(opened, state, stopper)

    def _refuse_under_way(self, owed: set[tuple[str, str]], unread: set[tuple[str, str]]) -> None:
        """Ask nothing directly that a batch of an earlier command may answer."""
        judge, safety = self._scorer.judge, self._safety
        asked: list[tuple[Model, str, set[tuple[str, str]]]] = []
        asked += [] if self.model is None else [(self.model, self.config["digest"], owed)]
        asked += [(one.model, one.digest, unread) for one in (judge.judges if judge else ())]
        asked += [] if safety is None else [(safety.model, safety.digest, unread)]
        for model, scope, keys in asked:
            if keys and not isinstance(model, BatchModel):
                refuse_under_way(model, self.folder, scope, [f"{split}\n{prompt}" for split, prompt in keys])

    def _note_answered(self, state: RunState) -> None:
        """Tell each model that has answered in this folder before; who is denied a single prompt then need not stop."""
        if self.model is not None and not all(row.failed for row in state.rows.values()):
            note_answered(self.model)
        judges = self._scorer.judge.judges if self._scorer.judge else ()
        asked = [(judge.model, state.judge_usage) for judge in judges]
        asked += [(self._safety.model, state.safety_usage)] if self._safety else []
        for model, ledgers in asked:
            if (ledger := ledgers.get(model.name)) is not None and ledger.answered:
                note_answered(model)

    def _stopper(self, state: RunState) -> Stopper | None:
        precision = self.config.get("precision")
        if precision is None or self.model is None:
            return None
        policy = check_policy(self.config["policy"])
        return Stopper(list(self._prompts.values()), state.rows, precision["half_width"], policy, precision["seed"])

    async def _ask_until(self, stopper: Stopper, owed: set[tuple[str, str]], work: Work) -> None:
        """Ask in the stopper's order until it wants no more; a local engine gets part after part."""
        assert self.model is not None
        prompts = [prompt for prompt in stopper.order if (prompt.split, prompt.id) in owed]

        judge = self._scorer.judge
        # One that takes a list begins when the last reply is there: it settles nothing meanwhile.
        settles = judge is not None and all(model.batch_size is not None for model in judge.models)

        async def wanted(part: Sequence[Prompt]) -> AsyncIterator[Prompt]:
            for prompt in part:
                while settles and work.waiting > _JUDGE_AHEAD:  # noqa: ASYNC110 - a queue has no event for that
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0)  # lets replies that are there be counted first
                if stopper.wants(prompt):
                    yield prompt

        step = len(prompts) if self.model.batch_size is not None else _PART
        for begin in range(0, len(prompts), step):
            await self._ask(wanted(prompts[begin : begin + step]), work)

    def _keep_begun(self, opened: RunFolder, state: RunState) -> None:
        """Count what a defence has paid for requests that were stopped in the middle: each is an error, asked again."""
        stopped = RetryableError("stopped when a part of its calls was answered")
        for id in getattr(self.model, "begun", []):
            assert self.model is not None
            split, _, prompt_id = id.partition("\n")
            prompt = self._prompts[split, prompt_id]
            response = _response(prompt, given_up(self.model, self._request(prompt), stopped, 1))
            opened.responses.append(response)
            state.add_response(self.config["model"], response)
            self._money.asked(response)

    def _conclude(self, opened: RunFolder, state: RunState, stopper: Stopper | None = None) -> Evaluation:
        """Save what there is so far, and say it."""
        if stopper is not None:
            opened.note("stopped_early", stopper.to_dict(len(state.rows)))
        if self._money.is_out:
            opened.note("stopped_at_max_cost", self._money.max_usd)
            opened.note("goes_on_at_max_cost", self._money.goes_on)
        if self._limit is not None and self._limit.peak:
            opened.note("concurrency_used", self._limit.to_dict())
        judges: list[Judge | SafetyJudge] = [*(self._scorer.judge.judges if self._scorer.judge else ())]
        judges += [self._safety] if self._safety else []
        if used := {judge.model.name: judge.limit.to_dict() for judge in judges if judge.limit.peak}:
            opened.note("judge_concurrency_used", used)
        if lacking := {j.model.name: told for j in judges if (told := getattr(j.model, "adaptations", []))}:
            opened.note("judge_adaptations", lacking)
        if adaptations := getattr(self.model, "adaptations", []):
            opened.note("adaptations", add_remarks([self._adapted, adaptations]))
        result = Evaluation(self.folder, read_config(self.folder), state, check_policy(self.config["policy"]))
        if any(self._corrections.values()):
            result.correct(**self._corrections)
        if not result.stale:
            opened.note("scorer_before", None)
        if self._compare is not None:
            result.rescored = self._compare(result)
        opened.write_result(result.to_dict())
        return result

    def _needs_verdict(self, row: RowState) -> bool:
        return row.outcome is None or row.judge_failed or row.scorer != self._scorer.digest

    def _needs_label(self, row: RowState) -> bool:
        if self._safety is None or row.failed or row.kind != "toxic":
            return False
        return row.safety_failed or row.safety_digest != self._safety.digest

    def _to_audit(self, state: RunState) -> Callable[[], Iterable[tuple[Response, Finding]]]:
        """What the judge is to check, known when everything else has its verdict."""

        def rows() -> Iterable[tuple[Response, Finding]]:
            share, seed = self._audit
            mine = {k: row for k, row in state.rows.items() if row.by in LOCAL and row.scorer == self._scorer.digest}
            if not self._scorer.can_be_audited:
                return []
            wanted = audited(mine, share, seed, (self.config.get("shard") or {"count": 1})["count"])
            return self._decided({key for key in wanted if mine[key].audit in (None, Outcome.UNSCORED)})

        return rows

    def _decided(self, keys: set[tuple[str, str]]) -> Iterable[tuple[Response, Finding]]:
        """The final stored replies of some rows, each with its verdict."""
        found = {line.key: line for line in read_verdicts(self.folder) if line.key in keys} if keys else {}
        for response in self._stored(keys):
            line = found[response.key]
            yield (
                response,
                Finding(
                    outcome=line.outcome,
                    by=line.by,
                    confidence=line.confidence,
                    reason=line.reason,
                    judge=line.judge,
                ),
            )

    async def _ask(self, prompts: Iterable[Prompt] | AsyncIterator[Prompt], work: Work) -> None:
        assert self.model is not None
        receive = self._receiver(work)
        if self.model.batch_size is not None or self._money.max_usd is None:
            await complete(self.model, self._affordable(prompts), receive, limit=self._limit)
            return
        # All money is held before such a model begins: what its replies did not need may pay for others.
        owed = [prompt async for prompt in each(prompts)]
        owed.sort(key=lambda prompt: not self._money.is_under_way(self.model, (prompt.split, prompt.id)))
        while requests := [request async for request in self._affordable(owed)]:
            owed = owed[len(requests) :]
            await complete(self.model, requests, receive, limit=self._limit)

    async def _affordable(self, prompts: Iterable[Prompt] | AsyncIterator[Prompt]) -> AsyncIterator[Request]:
        """What to send, until the money is out."""
        async for prompt in each(prompts):
            request = self._request(prompt)
            if not await self._money.admit(prompt, request):
                return
            yield request

    def _request(self, prompt: Prompt) -> Request:
        return self._request_of(f"{prompt.split}\n{prompt.id}", prompt.text)

    def _request_of(self, id: str, text: str) -> Request:
        system = () if self._system is None else (Message("system", self._system),)
        return Request(id=id, messages=(*system, Message("user", text)), sampling=self._sampling)

    def _receiver(self, work: Work) -> Callable[[CallResult], Any]:
        noted = False

        async def receive(result: CallResult) -> None:
            nonlocal noted
            if not noted:  # a local engine knows when it is loaded
                self._note_facts()
                noted = True
            split, _, prompt_id = result.request.id.partition("\n")
            await work.receive(_response(self._prompts[split, prompt_id], result))

        return receive

    def _stored(self, keys: set[tuple[str, str]]) -> Iterable[Response]:
        """The final stored replies of some rows."""
        if not keys:
            return
        last = {response.key: number for number, response in enumerate(read_responses(self.folder))}
        for number, response in enumerate(read_responses(self.folder)):
            if response.key in keys and last[response.key] == number:
                yield response


def note_facts(opened: RunFolder, model: Model | None) -> None:
    """Say in `run.json` what the replies of a local engine are made with.

    Raises:
        RunError: Earlier replies of the run were asked for with another chat template.
    """
    facts = getattr(model, "facts", None)
    if not facts:
        return
    before = (read_config(opened.path).get("engine") or {}).get("chat_template")
    if before not in (None, facts["chat_template"]):
        raise RunError(
            f"{opened.path}: its replies were asked for with another chat template ({before} there, "
            f"{facts['chat_template']} now). Put the old one back, or choose another --out"
        )
    opened.note("engine", facts)


def _needs_machine(model: Model) -> bool:
    return bool(getattr(model, "needs_machine", model.batch_size is None))


async def run_all(prepared: Sequence[Run | OrbenchError]) -> list[Evaluation | OrbenchError]:
    """Local engines one after the other (each wants the whole machine), calls over the wire beside them."""
    machine = asyncio.Lock()

    async def one(run: Run | OrbenchError) -> Evaluation | OrbenchError:
        if isinstance(run, OrbenchError):
            return run
        try:
            async with machine if run.is_local else nullcontext():
                return await run.run()
        except OrbenchError as error:
            return error

    return list(await asyncio.gather(*(one(run) for run in prepared)))


def count_spent(prepared: Sequence[Run | OrbenchError]) -> None:
    """Count what was spent in all run folders of a command before."""
    for run in prepared:
        if isinstance(run, Run):
            run.count_spent()


async def plan_all(prepared: Sequence[Run | OrbenchError]) -> list[Plan | OrbenchError]:
    """What each run would ask and spend."""
    return [run.plan() if isinstance(run, Run) else run for run in prepared]


def _response(prompt: Prompt, result: CallResult) -> Response:
    completion = result.completion
    failed = completion is None or result.error is not None
    return Response(
        prompt_id=prompt.id,
        split=prompt.split,
        category=prompt.category,
        kind=prompt.kind,
        prompt=prompt.text,
        response="" if completion is None or failed else without_surrogates(completion.text),
        reasoning=without_surrogates(completion.reasoning) if completion else None,
        finish_reason=completion.finish_reason if completion and not failed else None,
        blocked_by=completion.blocked_by if completion and not failed else None,
        usage=completion.usage if completion else None,
        latency_s=result.latency_s,
        attempts=result.attempts,
        error=(result.error or "no completion") if failed else None,
        received_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        seed_id=prompt.seed_id,
        group_id=prompt.group_id,
    )
