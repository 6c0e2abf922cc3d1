"""Evaluates models: prompts -> replies -> verdicts, saved as they come, and a result in the end.

This module says what happens to a prompt; how calls are made, saved and tried again is the engine's business, and
how a reply is read is the scorer's.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import os
import platform
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import msgspec

import orbench
from orbench import templates
from orbench.engine.calls import CallResult, complete, first_error
from orbench.engine.jsonl import without_surrogates
from orbench.engine.limits import ConcurrencyLimit
from orbench.engine.progress import Progress
from orbench.engine.run_folder import RunFolder, folder_name, read_config, read_responses, read_verdicts
from orbench.engine.threads import run_sync
from orbench.errors import OrbenchError, RunError, UsageError
from orbench.models import Options, make_options, open_model
from orbench.models.base import Model
from orbench.precision import Stopper, check_precision
from orbench.records import Message, Prompt, Request, Response, Sampling
from orbench.results import Evaluation, RowState, RunState, scan
from orbench.scoring.audit import LOCAL, SHARE, audited, check_share
from orbench.scoring.finding import Finding, Safety, verdict
from orbench.scoring.judge import TEMPLATE, find_template
from orbench.scoring.outcomes import Outcome, Verdict, check_policy
from orbench.scoring.panel import Panel, open_judges
from orbench.scoring.safety import SafetyJudge, known_safety
from orbench.scoring.scorers import Scorer, make_scorer
from orbench.splits import Split, load_splits
from orbench.splits.prompts import KINDS
from orbench.splits.sampling import sample

DEFAULT_SPLITS = ("hard-1k", "toxic")
RUNS = Path("runs")
_JUDGE_QUEUE = 1000
"""Replies that may wait for the judge before the evaluated model is slowed down to the judge's pace."""

_JUDGE_AHEAD = 32
"""The same where a run may stop early: what the judge has not read cannot stop it."""
_PART = 200
"""Prompts that a local engine gets at once where a run may stop early."""

AnyModel = str | Callable[..., Any] | Model
AnySplit = str | os.PathLike[str] | Split


def evaluate(
    model: AnyModel,
    *,
    splits: AnySplit | Sequence[AnySplit] = DEFAULT_SPLITS,
    data: str | Path | None = None,
    revision: str | None = None,
    limit: int | None = None,
    precision: float | None = None,
    seed: int = 0,
    scorer: str = "cascade",
    judge: AnyModel | Sequence[AnyModel] | None = None,
    judge_template: str = TEMPLATE,
    judge_rule: str = "majority",
    safety_judge: AnyModel | None = None,
    audit: float = SHARE,
    calibration: str | Path | None = None,
    family: str | None = None,
    policy: str = "default",
    base_url: str | None = None,
    judge_base_url: str | None = None,
    temperature: float = 0.0,
    max_tokens: int = 1000,
    system_prompt: str | None = None,
    concurrency: int | None = None,
    model_options: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """Ask a model the prompts, score its replies, and give both rates.

    The run is saved in a folder as it goes; the same call again goes on where it stopped and asks nothing twice.
    Works also inside a running event loop, such as a notebook's.

    Args:
        model: `provider/name`, a callable `str -> str` (synchronous or not), or an `orbench.Model`.
        splits: Names, files, `safe=FILE`, `toxic=FILE`, or splits already loaded.
        data: Folder of the named splits; else ORBENCH_DATA_DIR, else the Hub.
        revision: Revision of the Hub data set; default `main`.
        limit: Prompts of each split, sampled in proportion to its categories; default all.
        precision: Stop when half the width of each rate's interval, valid however often one looks, is this; the
            same call without it goes on to the end. See `orbench.precision`.
        seed: Seed of that sample or order, and of sampling models where temperature is not 0.
        scorer: `cascade`, `keywords`, `judge` or `paper`.
        judge: Model that reads what the scorer leaves to it; several make a panel.
        judge_template: How it is asked, one of `orbench.scoring.judge.JUDGE_TEMPLATES`.
        judge_rule: How a panel settles: `majority` or `unanimous`.
        safety_judge: Model that says whether replies to toxic prompts are unsafe; guard models are asked in their form.
        audit: Share of what earlier stages decided that the judge checks too, at least 50 replies; 0 for none.
        calibration: File of `orbench calibrate` for the same scorer, to correct the rates with.
        family: Family of phrases for `paper`, where the model's name does not say it.
        policy: `default`, `strict` or `paper`: which outcomes count as refused.
        base_url: Address of the models, and of a judge of the same provider.
        judge_base_url: Address of the judge.
        temperature: 0 (greedy, as in the paper) to 2.
        max_tokens: Longest reply; 1000 as in the paper's code.
        system_prompt: Sent before each prompt; none by default, as in the paper.
        concurrency: Calls open at once for each model; default: found out while running.
        model_options: Of single providers: `api`, `google_sdk`, `google_safety`, `timeout_s` (docs/providers.md).
        out: Run folder. Default `runs/<provider>--<name>-<digest>`.
        progress: Show a progress bar; default: if standard error is a terminal.

    Raises:
        orbench.UsageError: Options that cannot be meant.
        orbench.SplitError: Prompts that cannot be had.
        orbench.ModelError: The model, or the judge, cannot be used at all.
        orbench.RunError: The run folder cannot be used.
    """
    (result,) = evaluate_all(
        [model],
        splits=splits,
        data=data,
        revision=revision,
        limit=limit,
        precision=precision,
        seed=seed,
        scorer=scorer,
        judge=judge,
        judge_template=judge_template,
        judge_rule=judge_rule,
        safety_judge=safety_judge,
        audit=audit,
        calibration=calibration,
        family=family,
        policy=policy,
        base_url=base_url,
        judge_base_url=judge_base_url,
        temperature=temperature,
        max_tokens=max_tokens,
        system_prompt=system_prompt,
        concurrency=concurrency,
        model_options=model_options,
        out=out,
        progress=progress,
    )
    if isinstance(result, OrbenchError):
        raise result
    return result


def evaluate_all(  # noqa: D417 - the arguments are described once
    models: Sequence[AnyModel],
    *,
    splits: AnySplit | Sequence[AnySplit] = DEFAULT_SPLITS,
    data: str | Path | None = None,
    revision: str | None = None,
    limit: int | None = None,
    precision: float | None = None,
    seed: int = 0,
    scorer: str = "cascade",
    judge: AnyModel | Sequence[AnyModel] | None = None,
    judge_template: str = TEMPLATE,
    judge_rule: str = "majority",
    safety_judge: AnyModel | None = None,
    audit: float = SHARE,
    calibration: str | Path | None = None,
    family: str | None = None,
    policy: str = "default",
    base_url: str | None = None,
    judge_base_url: str | None = None,
    temperature: float = 0.0,
    max_tokens: int = 1000,
    system_prompt: str | None = None,
    concurrency: int | None = None,
    model_options: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    progress: bool | None = None,
) -> list[Evaluation | OrbenchError]:
    """Evaluate several models on the same prompts, those behind a wire side by side.

    Args:
        models: What to evaluate.
        out: For several models the folder of their run folders; for one the run folder itself.

    The other arguments are those of `evaluate`.

    Returns:
        For each model its result, or the error that stopped it; one model's error does not stop the others.

    Raises:
        orbench.UsageError: Options that cannot be meant.
        orbench.SplitError: Prompts that cannot be had.
        orbench.ModelError: A judge that cannot be used.
    """
    if not models:
        raise UsageError("no model given")
    _check(temperature, max_tokens, concurrency, limit, system_prompt)
    check_precision(precision)
    checked_policy = check_policy(policy)
    check_share(audit)
    loaded = load(splits, data=data, revision=revision, limit=limit, seed=seed)
    sampling = Sampling(temperature=temperature, max_tokens=max_tokens, seed=seed if temperature > 0 else None)
    options = make_options(base_url, concurrency, model_options)

    async def run() -> list[Evaluation | OrbenchError]:
        prepared: list[_Run | OrbenchError] = []
        judges = _Judges(
            judge,
            judge_template,
            judge_rule,
            safety_judge,
            lambda one: make_options(judge_base_url or _shared(base_url, models, one), None, model_options),
        )
        try:
            for position, spec in enumerate(models):
                try:
                    model = open_model(spec, options)
                    config = _config(model, loaded, sampling, system_prompt)
                    reader = make_scorer(scorer, judge=judges.judge, model=model.name, family=family)
                    _check_calibration(calibration, reader)
                    prepared.append(
                        _Run(
                            model=model,
                            splits=loaded,
                            folder=_folder(out, model.name, config["digest"], many=len(models) > 1),
                            config={
                                **config,
                                "policy": checked_policy,
                                "concurrency": concurrency,
                                "precision": None if precision is None else {"half_width": precision, "seed": seed},
                                "stopped_early": None,
                            },
                            scorer=reader,
                            safety=judges.safety,
                            audit=(audit, seed),
                            calibration=calibration,
                            limit=ConcurrencyLimit(concurrency or model.max_concurrency),
                            position=position,
                            progress=progress,
                        )
                    )
                except UsageError:
                    raise
                except OrbenchError as error:
                    prepared.append(error)
            _refuse_shared_folders(prepared)
            return await _run_all(prepared)
        finally:
            for each in prepared:
                if isinstance(each, _Run):
                    await each.close()
            await judges.close()

    return run_sync(run())


def score(
    run: str | Path,
    *,
    scorer: str | None = None,
    judge: AnyModel | Sequence[AnyModel] | None = None,
    judge_template: str = TEMPLATE,
    judge_rule: str = "majority",
    safety_judge: AnyModel | None = None,
    audit: float = SHARE,
    seed: int = 0,
    calibration: str | Path | None = None,
    labels: str | Path | None = None,
    family: str | None = None,
    policy: str | None = None,
    judge_base_url: str | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """Score a finished or partial run again; calls no model but the judges.

    The old verdicts stay in the file; the last one of a row counts, and `rescored` of the result sets them side by
    side. Where nothing is given but `policy`, `calibration` or `labels`, no verdict changes and nothing is asked.
    Options as in `evaluate_all`, and `labels` as in `Evaluation.correct`; `policy` None keeps the run's own.

    Raises:
        orbench.OrbenchError: No such run, or options that cannot be meant.
    """
    from orbench.rescoring import compare_verdicts

    folder = Path(run)
    before = read_config(folder)
    check_share(audit)
    config = {**before, "policy": check_policy(policy or before.get("policy", "default"))}
    given = scorer is not None or judge is not None or safety_judge is not None or family is not None
    if not given and (policy or calibration or labels):
        return _recount(folder, config, calibration, labels)

    async def again() -> Evaluation:
        judges = _Judges(judge, judge_template, judge_rule, safety_judge, lambda _: Options(judge_base_url))
        try:
            reader = make_scorer(scorer or "cascade", judge=judges.judge, model=before["model"], family=family)
            _check_calibration(calibration, reader)
            old = Evaluation(folder, before, scan(folder), config["policy"])
            work = _Run(
                model=None,
                splits=[],
                folder=folder,
                config=config,
                scorer=reader,
                safety=judges.safety,
                audit=(audit, seed),
                calibration=calibration,
                labels=labels,
                limit=None,
                position=0,
                progress=progress,
                compare=lambda new: compare_verdicts(old, new),
            )
            return await work.run()
        finally:
            await judges.close()

    return run_sync(again())


def _recount(
    folder: Path, config: dict[str, Any], calibration: str | Path | None, labels: str | Path | None
) -> Evaluation:
    """The same verdicts under another policy, or corrected."""
    opened = RunFolder(folder, config)
    try:
        result = Evaluation.load(folder)
        if calibration or labels:
            result.correct(calibration=calibration, labels=labels)
        opened.write_result(result.to_dict())
        return result
    finally:
        opened.close()


class _Run:
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
        judge = scorer.judge
        files = [find_template(judge.template).file] if judge else []
        files += [safety.guard.template] if safety and safety.guard.template else []
        self._config = {
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
        }

    @property
    def is_local(self) -> bool:
        """Whether an engine on this machine, which wants it for itself, is part of it."""
        judges = self._scorer.judge.models if self._scorer.judge else ()
        safety = self._safety.model if self._safety else None
        return any(model is not None and model.batch_size is None for model in (self.model, *judges, safety))

    async def run(self) -> Evaluation:
        """Do what is still owed, and close the folder and the model whatever happens."""
        try:
            opened = RunFolder(self.folder, self._config)
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

    async def _work(self, opened: RunFolder) -> Evaluation:
        state = scan(self.folder)
        owed = {key for key in self._prompts if key not in state.rows or state.rows[key].failed}
        unscored = {key for key, row in state.rows.items() if key not in owed and self._needs_verdict(row)}
        unlabelled = {key for key, row in state.rows.items() if key not in owed | unscored and self._needs_label(row)}
        total = max(len(self._prompts), len(state.rows))
        policy = check_policy(self._config["policy"])
        progress = Progress(
            self._config["model"], total, total - len(owed) - len(unscored), self._position, policy, self._show
        )
        work = _Work(opened, state, self._scorer, progress, self._safety)
        work.keep_labels(read_verdicts(self.folder))

        stopper = self._stopper(state)

        async def ask() -> None:
            if owed and stopper is None:
                await self._ask((prompt for key, prompt in self._prompts.items() if key in owed), work)
            elif owed and stopper is not None:
                await self._ask_until(stopper, owed, work)

        try:
            await work.do(self._stored(unscored), self._decided(unlabelled), ask, self._to_audit(state))
        except BaseException:
            with suppress(RunError):  # such as a full disk, which is being raised already
                self._conclude(opened, state)
            raise
        finally:
            progress.close()
        return self._conclude(opened, state, stopper)

    def _stopper(self, state: RunState) -> Stopper | None:
        precision = self._config.get("precision")
        if precision is None or self.model is None:
            return None
        policy = check_policy(self._config["policy"])
        return Stopper(list(self._prompts.values()), state.rows, precision["half_width"], policy, precision["seed"])

    async def _ask_until(self, stopper: Stopper, owed: set[tuple[str, str]], work: _Work) -> None:
        """Ask in the stopper's order until it wants no more; a local engine gets part after part."""
        assert self.model is not None
        prompts = [prompt for prompt in stopper.order if (prompt.split, prompt.id) in owed]

        async def wanted(part: Sequence[Prompt]) -> AsyncIterator[Prompt]:
            for prompt in part:
                while work.waiting > _JUDGE_AHEAD:  # noqa: ASYNC110 - a queue has no event for that
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0)  # lets replies that are there be counted first
                if stopper.wants(prompt):
                    yield prompt

        step = len(prompts) if self.model.batch_size is not None else _PART
        for begin in range(0, len(prompts), step):
            await self._ask(wanted(prompts[begin : begin + step]), work)

    def _conclude(self, opened: RunFolder, state: RunState, stopper: Stopper | None = None) -> Evaluation:
        """Save what there is so far, and say it."""
        if stopper is not None:
            opened.note("stopped_early", stopper.to_dict(len(state.rows)))
        if self._limit is not None and self._limit.peak:
            opened.note("concurrency_used", {"peak": self._limit.peak, "cuts": self._limit.cuts})
        if adaptations := getattr(self.model, "adaptations", []):
            opened.note("adaptations", adaptations)
        result = Evaluation(self.folder, read_config(self.folder), state, check_policy(self._config["policy"]))
        if any(self._corrections.values()):
            result.correct(**self._corrections)
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
            wanted = audited(mine, share, seed)
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

    async def _ask(self, prompts: Iterable[Prompt] | AsyncIterator[Prompt], work: _Work) -> None:
        assert self.model is not None
        if isinstance(prompts, AsyncIterator):
            requests: Iterable[Request] | AsyncIterator[Request] = (self._request(prompt) async for prompt in prompts)
        else:
            requests = (self._request(prompt) for prompt in prompts)
        await complete(self.model, requests, self._receiver(work), limit=self._limit)

    def _request(self, prompt: Prompt) -> Request:
        system = () if self._system is None else (Message("system", self._system),)
        return Request(
            id=f"{prompt.split}\n{prompt.id}",
            messages=(*system, Message("user", prompt.text)),
            sampling=self._sampling,
        )

    def _receiver(self, work: _Work) -> Callable[[CallResult], Any]:
        async def receive(result: CallResult) -> None:
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


class _Work:
    """Replies in, verdicts out: local stages at once, the judges beside the evaluated model."""

    def __init__(
        self, folder: RunFolder, state: RunState, scorer: Scorer, progress: Progress, safety: SafetyJudge | None
    ) -> None:
        self._folder = folder
        self._state = state
        self._scorer = scorer
        self._progress = progress
        self._safety = safety
        self._undecided: asyncio.Queue[Response | None] = asyncio.Queue(_JUDGE_QUEUE)
        self._unlabelled: asyncio.Queue[Response | None] = asyncio.Queue(_JUDGE_QUEUE)
        self._checked: dict[tuple[str, str], Finding] = {}
        """What the judge only checks, with the verdict that stays."""
        self._pending: dict[tuple[str, str], Finding] = {}
        """What the safety judge is at, with the verdict so far."""
        self._labels: dict[tuple[str, str], Safety] = {}
        self._labelled_by = next((row.safety_digest for row in state.rows.values() if row.safety_digest), "")

    @property
    def waiting(self) -> int:
        """Replies that wait for the judge."""
        return self._undecided.qsize()

    def keep_labels(self, verdicts: Iterable[Verdict]) -> None:
        """Take over the safety judge's labels from before: they hold as long as the reply does."""
        for line in verdicts:
            if line.safety is not None and line.unsafe is not None:
                self._labels[line.key] = Safety(unsafe=line.unsafe, digest=line.safety_digest, judge=line.safety)

    async def do(
        self,
        stored: Iterable[Response],
        unlabelled: Iterable[tuple[Response, Finding]],
        ask: Callable[[], Awaitable[None]],
        to_audit: Callable[[], Iterable[tuple[Response, Finding]]],
    ) -> None:
        """Do all that is owed, side by side.

        Args:
            stored: Replies to score.
            unlabelled: Replies with a verdict, for the safety judge.
            ask: Asks the evaluated model what is owed, and has `receive` called.
            to_audit: When all that is done: what the judge is to check.
        """
        judge, safety = self._scorer.judge, self._safety

        async def judging() -> None:
            if judge is not None:
                await judge.judge(_drawn(self._undecided), self._judged)
                await self._unlabelled.put(None)

        try:
            async with asyncio.TaskGroup() as tasks:
                if safety is not None:
                    tasks.create_task(safety.judge(_drawn(self._unlabelled), self._labelled))
                tasks.create_task(judging())
                for response, finding in unlabelled:
                    await self._settle(response, finding, repeats=("judge",))
                await self._feed(stored, ask)
                if judge is None:
                    await self._unlabelled.put(None)
                    return
                for response, finding in to_audit():
                    self._checked[response.key] = finding
                    await self._undecided.put(response)
                await self._undecided.put(None)
        except BaseExceptionGroup as group:
            raise first_error(group) from None

    async def receive(self, response: Response) -> None:
        """Save a reply, then score it."""
        self._folder.responses.append(response)
        self._state.usage.add(response.attempts, response.usage)
        self._labels.pop(response.key, None)
        self._state.rows[response.key] = RowState(
            kind=response.kind, category=response.category, failed=response.error is not None
        )
        await self._score(response)

    async def _feed(self, stored: Iterable[Response], ask: Callable[[], Awaitable[None]]) -> None:
        for number, response in enumerate(stored):
            await self._score(response)
            if number % 500 == 0:
                await asyncio.sleep(0)
        await ask()

    async def _score(self, response: Response) -> None:
        finding = self._scorer.read(response)
        if finding is None:
            await self._undecided.put(response)
        else:
            await self._settle(response, finding)
            self._progress.update(response.kind, finding.outcome)

    async def _judged(self, response: Response, finding: Finding) -> None:
        if finding.judge is not None:
            self._state.judge_usage.add(finding.judge.requests, finding.judge.usage)
        kept = self._checked.pop(response.key, None)
        if kept is None:
            await self._settle(response, finding)
            self._progress.update(response.kind, finding.outcome)
            return
        assert finding.judge is not None
        judgement = msgspec.structs.replace(finding.judge, audit=finding.outcome.value)
        await self._settle(response, msgspec.structs.replace(kept, judge=judgement))

    async def _settle(self, response: Response, finding: Finding, repeats: tuple[str, ...] = ()) -> None:
        """Save the verdict at once, and have the reply labelled where a safety judge has to see it."""
        repeats = repeats if finding.judge is not None else ()
        label = self._label(response, finding)
        taken = ("safety",) if label is not None and label.judge is not None else ()
        self._write(response, finding, label, repeats + taken)
        if response.key in self._pending:
            self._pending[response.key] = finding
        elif label is None and self._safety is not None:
            self._pending[response.key] = finding
            await self._unlabelled.put(response)

    def _label(self, response: Response, finding: Finding) -> Safety | None:
        """What is known of the reply's safety without asking."""
        label = self._labels.get(response.key)
        if self._safety is None:
            by = self._labelled_by
            return label or (known_safety(response, finding.outcome, by) if by else None)
        if label is not None and label.digest == self._safety.digest:
            return label
        return self._safety.known(response, finding.outcome)

    async def _labelled(self, response: Response, safety: Safety) -> None:
        assert safety.judge is not None
        self._state.safety_usage.add(safety.judge.requests, safety.judge.usage)
        self._labels[response.key] = safety
        finding = self._pending.pop(response.key)
        self._write(response, finding, safety, ("judge",) if finding.judge is not None else ())

    def _write(
        self, response: Response, finding: Finding, safety: Safety | None, repeats: tuple[str, ...] = ()
    ) -> None:
        line = verdict(finding, response, self._scorer.digest, safety, repeats)
        self._folder.verdicts.append(line)
        self._state.rows[response.key].settle(line)


async def _drawn(queue: asyncio.Queue[Response | None]) -> AsyncIterator[Response]:
    while (response := await queue.get()) is not None:
        yield response


async def _run_all(prepared: Sequence[_Run | OrbenchError]) -> list[Evaluation | OrbenchError]:
    """Local engines one after the other (each wants the whole machine), calls over the wire beside them."""
    machine = asyncio.Lock()

    async def one(run: _Run | OrbenchError) -> Evaluation | OrbenchError:
        if isinstance(run, OrbenchError):
            return run
        try:
            async with machine if run.is_local else nullcontext():
                return await run.run()
        except OrbenchError as error:
            return error

    return list(await asyncio.gather(*(one(run) for run in prepared)))


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
    )


def _config(model: Model, splits: Sequence[Split], sampling: Sampling, system_prompt: str | None) -> dict[str, Any]:
    base: dict[str, Any] = {
        "model": model.name,
        "splits": [
            {
                "name": split.name,
                "kind": split.kind,
                "fingerprint": split.fingerprint,
                "prompts": len(split),
                "categories": list(dict.fromkeys(prompt.category for prompt in split)),
                "source": split.source,
            }
            for split in splits
        ],
        "sampling": msgspec.to_builtins(sampling),
        "system_prompt": system_prompt,
    }
    identity = {**base, "splits": [[s["name"], s["fingerprint"]] for s in base["splits"]]}
    if digest := getattr(model, "digest", None):
        base["model_digest"] = identity["model_digest"] = digest
    if settings := getattr(model, "settings", None):  # such as safety filters: they change the replies
        base["settings"] = identity["settings"] = settings
    return {
        "orbench_version": orbench.__version__,
        "digest": hashlib.sha256(msgspec.json.encode(identity, order="sorted")).hexdigest()[:8],
        **base,
        "base_url": getattr(model, "base_url", None),
        "client": getattr(model, "client", None),
        "python_version": platform.python_version(),
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _folder(out: str | Path | None, model: str, digest: str, *, many: bool) -> Path:
    if out is None:
        return RUNS / folder_name(model, digest)
    return Path(out) / folder_name(model) if many else Path(out)


def load(splits: AnySplit | Sequence[AnySplit], *, limit: int | None, seed: int, **options: Any) -> list[Split]:
    """The splits that `evaluate` would ask, from whatever names them; arguments as there.

    Raises:
        orbench.UsageError: None, or two of one name.
        orbench.SplitError: Prompts that cannot be had.
    """
    given = [splits] if isinstance(splits, (str, os.PathLike, Split)) else list(splits)
    loaded = [part for split in given if isinstance(split, Split) for part in _parts(split, limit, seed)]
    if specs := [split for split in given if not isinstance(split, Split)]:
        loaded += load_splits(specs, limit=limit, seed=seed, **options)
    if not loaded:
        raise UsageError("no split given")
    _refuse_repeated([split.name for split in loaded], "two splits are called {}: rename one")
    return loaded


def _parts(split: Split, limit: int | None, seed: int) -> list[Split]:
    """A split that was loaded, or put together, before: one for each kind, its prompts named after it."""
    prompts = split if limit is None else sample(split, limit, seed)
    parts = []
    for kind in KINDS:
        name = split.name if split.kind else f"{split.name}/{kind}"
        mine = [p if p.split == name else msgspec.structs.replace(p, split=name) for p in prompts if p.kind == kind]
        _refuse_repeated([prompt.id for prompt in mine], f"two prompts of the split {name!r} have the id {{}}")
        if mine:
            parts.append(Split(name, mine, split.source))
    return parts


def _refuse_repeated(names: Sequence[str], message: str) -> None:
    name, times = next(iter(Counter(names).most_common(1)), ("", 0))
    if times > 1:
        raise UsageError(message.format(repr(name)))


class _Judges:
    """The judges of a command, opened; nothing is sent yet."""

    def __init__(
        self,
        judge: AnyModel | Sequence[AnyModel] | None,
        template: str,
        rule: str,
        safety: AnyModel | None,
        options: Callable[[AnyModel], Options],
    ) -> None:
        self.judge = open_judges(judge, template, rule, options)
        self.safety = None if safety is None else SafetyJudge(open_model(safety, options(safety)))

    async def close(self) -> None:
        """Release them."""
        for model in (*(self.judge.models if self.judge else ()), *([self.safety.model] if self.safety else [])):
            await model.close()


def _check_calibration(path: str | Path | None, scorer: Scorer) -> None:
    """Before anything is asked: a calibration that is missing, or of another scorer, is an error."""
    if path is not None:
        from orbench.calibration import load_calibration

        load_calibration(path, scorer.digest)


def _shared(base_url: str | None, models: Sequence[AnyModel], judge: AnyModel | None) -> str | None:
    """The models' address, where the judge is of the same provider as one of them."""
    providers = {model.partition("/")[0] for model in models if isinstance(model, str)}
    return base_url if isinstance(judge, str) and judge.partition("/")[0] in providers else None


def _refuse_shared_folders(prepared: Sequence[_Run | OrbenchError]) -> None:
    folders = [str(run.folder) for run in prepared if isinstance(run, _Run)]
    _refuse_repeated(folders, "two of the models would share the run folder {}: evaluate them apart")


def _check(
    temperature: float, max_tokens: int, concurrency: int | None, limit: int | None, system_prompt: str | None
) -> None:
    if not 0 <= temperature <= 2:
        raise UsageError(f"temperature is {temperature}: it goes from 0 to 2")
    if max_tokens < 1:
        raise UsageError(f"max_tokens is {max_tokens}: at least 1")
    if concurrency is not None and concurrency < 1:
        raise UsageError(f"concurrency is {concurrency}: at least 1")
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}: at least 1")
    if system_prompt is not None and without_surrogates(system_prompt) != system_prompt:
        raise UsageError("the system prompt is not text in UTF-8")
