"""What a run costs: prices known before it begins, money held back for what is under way, and the plan of a dry run.

In: a model, its judges, prompts and stored replies. Out: whether a row may be begun, and estimates. Money is held for
a whole row at once, its judges included, so that no reply is paid for whose verdict there is no money for.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from orbench.costs import (
    NONE,
    Budget,
    Estimate,
    Price,
    Range,
    call_tokens,
    cost_range,
    estimate,
    find_price,
    need_price,
    price_share,
    reply_tokens,
    request_tokens,
    text_tokens,
    total_cost,
    usage_cost,
)
from orbench.engine.run_folder import read_config, read_responses, read_verdicts
from orbench.errors import OrbenchWarning, UsageError
from orbench.models.base import Model
from orbench.models.batch import BatchModel
from orbench.records import Judgement, Kind, Message, Prompt, Request, Response, Sampling, Vote
from orbench.report.format import money, plural, span
from orbench.results import Evaluation
from orbench.scoring.audit import LEAST
from orbench.scoring.judge import MAX_ANSWER, MAX_REPLY, ROUNDS, TEMPLATE, Judge, find_template, marked, shorten
from orbench.scoring.safety import SafetyJudge
from orbench.scoring.scorers import Scorer, make_scorer

_LABEL = 5
"""Tokens of a judge's answer that is a label alone."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a command would ask and spend on one model; nothing was sent, nothing written."""

    model: str
    run: str
    """The run folder it would go on with, or make."""
    prompts: int
    to_ask: int
    """Prompts without a reply so far, and in no batch that is under way."""
    target: Estimate | None
    """None where only judges are asked."""
    judges: list[Estimate]
    safety_judge: Estimate | None
    cost_usd: Range | None
    """All together; None if a price is unknown."""
    max_tokens: int
    under_way: int = 0
    """Prompts whose replies come with a batch of an earlier command: nothing more is to be paid for them."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers: what `--dry-run --json` prints."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    def __str__(self) -> str:
        """The table that the command prints."""
        from orbench.report.costs import plan_table

        return plan_table(self)


class Money:
    """The money of one run.

    Attributes:
        model: Name of the evaluated model, as the ledger has it.
        prices: Name to price of the models that have one, for run.json.
    """

    def __init__(
        self,
        name: str,
        model: Model | None,
        scorer: Scorer,
        safety: SafetyJudge | None,
        *,
        table: Mapping[str, Price],
        budget: Budget | None,
        folder: Path,
        max_tokens: int,
        request: Callable[[str], Request],
    ) -> None:
        """Look the prices up.

        Args:
            name: The evaluated model's.
            model: The evaluated model; None where only judges are asked.
            scorer: With its judges.
            safety: The safety judge.
            table: The price list.
            budget: What may be spent; None without a bound.
            folder: The run folder.
            max_tokens: Tokens of a reply at most.
            request: What is sent for a prompt.

        Raises:
            UsageError: There is a budget, and a model without a price.
        """
        self.model = name
        self._target, self._scorer, self._safety = model, scorer, safety
        self._table, self._budget, self._folder, self._max_tokens = table, budget, folder, max_tokens
        self._request = request
        self._judges = scorer.judge.judges if scorer.judge else ()
        models = [*([model] if model else []), *(judge.model for judge in self._judges)]
        models += [safety.model] if safety else []
        if budget is not None:
            for each in models:
                need_price(table, each)
        found = {each.name: find_price(table, each) for each in models}
        self.prices = {each: price for each, price in found.items() if price is not None}
        # What takes its requests as a list begins when all others are drawn; nothing may wait for it meanwhile.
        self._waits = all(each.batch_size is not None for each in models)
        self._frames: dict[str, Range] = {}
        self._paid: set[tuple[Path, str, str]] = set()
        """Rows whose reply comes with a batch of an earlier command; there is no money held for judging them."""
        self._unknown: dict[str, None] = {}
        self._begun: set[str] = set()
        """Models of which a call has been admitted; the first of a batch command goes out by itself."""

    def count_spent(self, before: Mapping[str, Any]) -> None:
        """Count what earlier commands in the same folder have spent: every stored line at the price of today.

        Where a line does not say its tokens they count at their high estimate, as they do while a command runs.

        Args:
            before: The folder's run.json.
        """
        if self._budget is None:
            return
        spent = 0.0
        for response in read_responses(self._folder):
            price = self._known_price(self.model, before)
            spent += self._reply_usd(response, price) if price is not None else 0.0
        unsaid: dict[tuple[str, str], list[tuple[Vote | Judgement, Price]]] = {}
        for line in read_verdicts(self._folder):
            given = [line.judge if "judge" not in line.repeats else None]
            given += [line.safety if "safety" not in line.repeats else None]
            for part in (part for one in given if one is not None for part in one.votes or (one,)):
                price = self._known_price(part.model, before)
                usd = 0.0 if price is None else usage_cost(price, part.usage)
                if usd is None and price is not None:
                    unsaid.setdefault(line.key, []).append((part, price))
                spent += usd or 0.0
        for response in read_responses(self._folder) if unsaid else ():
            if response.error is None:
                spent += sum(self._answer_usd(response, *one) for one in unsaid.pop(response.key, ()))
        self._budget.spent_usd += spent
        warn_of_unknown(self._folder, self._unknown)

    @property
    def is_out(self) -> bool:
        """Whether something was not done for want of money."""
        return self._budget is not None and self._budget.refused > 0

    @property
    def goes_on(self) -> bool:
        """Whether some of that fits after all, now that what was held back is free."""
        return self._budget is not None and self._budget.goes_on

    @property
    def max_usd(self) -> float | None:
        """The bound, if there is one."""
        return None if self._budget is None else self._budget.max_usd

    def is_under_way(self, model: Model | None, row: tuple[str, str]) -> bool:
        """Whether a batch of an earlier command holds what the model would be asked about a row: it is paid for."""
        return isinstance(model, BatchModel) and model.is_under_way("\n".join(row))

    async def admit(self, prompt: Prompt, request: Request) -> bool:
        """Hold money for a prompt, its reply and its judges; False if there is none left.

        What is under way in a batch is admitted in any case, for its reply alone.
        """
        if self._budget is None:
            return True
        assert self._target is not None
        key = (self._folder, prompt.split, prompt.id)
        _, sent, received = call_tokens(self._target, request)
        usd = cost_range(self.prices[self.model], sent, received).high
        if self.is_under_way(self._target, key[1:]):
            self._paid.add(key)
            self._budget.take(key, usd * price_share(self._target))
            return True
        usd *= self._share(self._target)
        usd += self._judging(prompt.text, prompt.kind, may_defer(self._scorer))
        return await self._budget.hold(key, usd, wait=self._waits)

    async def admit_reply(self, response: Response) -> bool:
        """Hold money for judging a reply, where none is held for its row; False if there is none left."""
        if self._budget is None:
            return True
        key = (self._folder, *response.key)
        if key in self._paid:
            self._paid.discard(key)
            self._budget.release(key)
        if self._budget.holds(key):
            return True
        usd = self._judging(response.prompt, response.kind, True)
        judges = [judge.model for judge in self._judges] + ([self._safety.model] if self._safety else [])
        if any(self.is_under_way(model, response.key) for model in judges):
            self._budget.take(key, usd)
            return True
        return await self._budget.hold(key, usd, wait=self._waits)

    def asked(self, response: Response) -> None:
        """Count what a reply has cost; at its high estimate where its tokens are not said."""
        if self._budget is not None:
            self._budget.spend((self._folder, *response.key), self._reply_usd(response, self.prices[self.model]))

    def judged(self, response: Response, judgement: Judgement) -> None:
        """Count what judging a reply has cost."""
        if self._budget is None:
            return
        for part in judgement.votes or (judgement,):
            usd = self._answer_usd(response, part, self.prices[part.model])
            self._budget.spend((self._folder, *response.key), usd)

    def _reply_usd(self, response: Response, price: Price) -> float:
        """What a stored reply has cost; a call that failed without a word on tokens is taken to cost nothing."""
        usd = usage_cost(price, response.usage)
        if usd is not None:
            return usd
        if response.usage is None and (response.error is not None or response.blocked_by is not None):
            return 0.0
        calls, sent, received = call_tokens(self._target, self._request(response.prompt))
        if calls == 1:  # of a defence's others we know only the bound
            received = text_tokens(response.response) + text_tokens(response.reasoning or "")
        return self._estimated(cost_range(price, sent, received).high)

    def _answer_usd(self, response: Response, part: Vote | Judgement, price: Price) -> float:
        """What a judge's answers on a reply have cost; nothing where there is none."""
        usd = usage_cost(price, part.usage)
        if usd is not None:
            return usd
        if not part.reply:
            return 0.0
        tokens = self._asked(response.prompt, text_tokens(shorten(response.response)), part.model)
        return self._estimated(cost_range(price, tokens, text_tokens(part.reply)).high)

    def _estimated(self, usd: float) -> float:
        """Keep that an amount is one of our own reckoning."""
        if self._budget is not None:
            self._budget.estimated_usd += usd
        return usd

    def _known_price(self, name: str, before: Mapping[str, Any]) -> Price | None:
        """The price of a model that earlier commands asked, who may not be at work now."""
        if (price := self.prices.get(name)) is not None:
            return price
        address = before.get("base_url") if name == self.model else None
        price = find_price(self._table, _Earlier(name, address))
        if price is None and (kept := before.get("prices", {}).get(name)):
            price = msgspec.convert(kept, Price)
        if price is None:
            self._unknown[name] = None
        return price

    def _share(self, model: Model) -> float:
        """Of the price, for a call that is about to be made; a command's first goes out singly, at the full one."""
        if model.name in self._begun:
            return price_share(model)
        self._begun.add(model.name)
        return 1.0

    def done(self, key: tuple[str, str]) -> None:
        """A row needs no more."""
        if self._budget is not None:
            self._paid.discard((self._folder, *key))
            self._budget.release((self._folder, *key))

    def _judging(self, prompt: str, kind: Kind, deferred: bool) -> float:
        """Most that judging one reply can cost."""
        judges: list[Judge | SafetyJudge] = [*self._judges] if deferred else []
        judges += [self._safety] if self._safety is not None and kind == "toxic" else []
        usd = 0.0
        for judge in judges:
            sent = self._asked(prompt, self._longest, judge.model.name, judge)
            usd += ROUNDS * self.prices[judge.model.name].cost(sent.high, MAX_ANSWER) * self._share(judge.model)
        return usd

    @property
    def _longest(self) -> Range:
        """Tokens of a reply that a judge is shown."""
        shown = text_tokens("x" * MAX_REPLY).high
        return Range(reply_tokens(self._max_tokens).low, min(self._max_tokens, shown))

    def _asked(self, prompt: str, reply: Range, name: str, judge: Judge | SafetyJudge | None = None) -> Range:
        """Tokens of the question to a judge."""
        if name not in self._frames:
            judge = judge or next(
                (one for one in (*self._judges, self._safety) if one and one.model.name == name), None
            )
            empty = Response(prompt_id="", split="", category="", kind="safe", prompt="", response="")
            # of a judge that is not at work now, what the usual one is asked
            asked = judge.messages(empty) if judge else marked(find_template(TEMPLATE).file, empty, again=False)
            self._frames[name] = request_tokens(Request(id="", messages=asked))
        return self._frames[name] + text_tokens(shorten(prompt)) + reply

    def plan(
        self,
        *,
        prompts: int,
        owed: Iterable[tuple[Prompt, Request]],
        replies: Iterable[Response],
        unlabelled: Iterable[Response],
        audit: float,
    ) -> Plan:
        """What is still to be asked, and what it would cost.

        Args:
            prompts: Prompts of the run.
            owed: Prompts without a reply, and what would be sent.
            replies: Stored replies without a verdict.
            unlabelled: Stored replies with a verdict that the safety judge has not seen.
            audit: Share of local verdicts that the judge checks.
        """
        to_ask = calls = unknown = under_way = 0
        sent, received = NONE, NONE
        judged = _Judging(self)
        labelled = _Judging(self)
        for prompt, request in owed:
            if self.is_under_way(self._target, (prompt.split, prompt.id)):
                under_way += 1
            else:
                to_ask += 1
                times, tokens_in, tokens_out = call_tokens(self._target, request)
                calls, sent, received = calls + times, sent + tokens_in, received + tokens_out
            if may_defer(self._scorer, prompt.split):
                judged.add(prompt.text, self._longest, sure=always_defers(self._scorer, prompt.split))
                unknown += not always_defers(self._scorer, prompt.split)
            if prompt.kind == "toxic":
                labelled.add(prompt.text, self._longest, sure=False)
        safety_model = self._safety.model if self._safety is not None else None

        def label(response: Response) -> None:
            if response.kind == "toxic" and not self.is_under_way(safety_model, response.key):
                labelled.add(response.prompt, text_tokens(shorten(response.response)), sure=False)

        def is_judged(response: Response) -> bool:
            return all(self.is_under_way(judge.model, response.key) for judge in self._judges)

        for response in replies:
            if self._judges and self._scorer.read(response) is None and not is_judged(response):
                judged.add(response.prompt, text_tokens(shorten(response.response)), sure=True)
            label(response)
        for response in unlabelled:
            label(response)
        if self._scorer.can_be_audited and audit:
            judged.at_least(min(unknown, max(LEAST, round(audit * unknown))))
        target = None
        if self._target is not None:
            target = estimate(self._target, self._table, Range(calls, calls), sent, received)
        judges = [judged.estimate(judge) for judge in self._judges]
        safety = labelled.estimate(self._safety) if self._safety is not None else None
        return Plan(
            model=self.model,
            run=str(self._folder),
            prompts=prompts,
            to_ask=to_ask,
            target=target,
            judges=judges,
            safety_judge=safety,
            cost_usd=total_cost([*([target] if target else []), *judges, *([safety] if safety else [])]),
            max_tokens=self._max_tokens,
            under_way=under_way,
        )


class _Earlier(NamedTuple):
    """A model of an earlier command, as far as its price needs it."""

    name: str
    base_url: str | None


class _Judging:
    """How many replies a judge would see, and how long they are."""

    def __init__(self, money: Money) -> None:
        self._money = money
        self._calls = NONE
        self._texts = NONE
        self._all_low = 0.0

    def add(self, prompt: str, reply: Range, *, sure: bool) -> None:
        """One more reply; `sure` if the judge will see it in any case."""
        text = text_tokens(shorten(prompt)) + reply
        self._calls += Range(sure, 1)
        self._texts += Range(text.low if sure else 0, text.high)
        self._all_low += text.low

    def at_least(self, more: int) -> None:
        """So many of the others it will see too."""
        if self._calls.high:
            low = self._all_low / self._calls.high
            self._texts += Range(more * low, 0)
            self._calls += Range(more, 0)

    def estimate(self, judge: Judge | SafetyJudge) -> Estimate:
        money, name = self._money, judge.model.name
        frame = money._asked("", NONE, name, judge)
        calls = self._calls
        sent = self._texts + Range(frame.low * calls.low, frame.high * calls.high)
        received = Range(_LABEL * calls.low, MAX_ANSWER * calls.high)
        return estimate(judge.model, money._table, calls, sent, received)


def warn_of_unknown(folder: Path, models: Iterable[str]) -> None:
    """Say in one line what `--max-cost` cannot count: what earlier commands paid for models that have no price now."""
    if names := ", ".join(dict.fromkeys(models)):
        warnings.warn(
            f"--max-cost: {folder}: no price is known for {names}, so what earlier commands paid for it is not counted."
            " Give its price with --prices FILE",
            OrbenchWarning,
            stacklevel=3,
        )


def spent_before(folder: Path, table: Mapping[str, Price]) -> Budget:
    """What a run folder's earlier commands have spent, as `--max-cost` counts them; see `Money.count_spent`."""
    before = read_config(folder)
    system, budget = before.get("system_prompt"), Budget(math.inf)
    sampling = msgspec.convert(before["sampling"], Sampling)

    def request(prompt: str) -> Request:
        turns = (*(() if system is None else (Message("system", system),)), Message("user", prompt))
        return Request(id="", messages=turns, sampling=sampling)

    money = Money(
        before["model"],
        None,
        make_scorer("keywords"),
        None,
        table=table,
        budget=budget,
        folder=folder,
        max_tokens=sampling.max_tokens,
        request=request,
    )
    money.count_spent(before)
    return budget


def make_budget(max_cost: float | Budget | None) -> Budget | None:
    """The budget of a command.

    Raises:
        UsageError: Not an amount above 0.
    """
    if max_cost is None or isinstance(max_cost, Budget):
        return max_cost
    if not (max_cost > 0 and math.isfinite(max_cost)):
        raise UsageError(f"max_cost is {max_cost}: an amount in USD above 0")
    return Budget(max_cost)


def spent_words(budget: Budget) -> str:
    """`$1.20 spent`, and how much of it nobody said."""
    estimated = f" ({money(budget.estimated_usd)} of it estimated: replies that do not say their tokens)"
    return f"{money(budget.spent_usd)} spent{estimated if budget.estimated_usd else ''}"


def how_to_go_on(budget: Budget) -> str:
    """Which command asks what there was no money for."""
    if budget.goes_on:
        return "the same command goes on, for what was held back in case of the longest replies is free again"
    return "the same command with a higher --max-cost goes on"


def warn_if_out(budget: Budget | None, results: Sequence[Evaluation]) -> None:
    """Say in one line that a command stopped for want of money, and how to go on."""
    if budget is None or not budget.refused:
        return
    missing = sum(result.prompts - sum(result.outcomes.values()) for result in results)
    warnings.warn(
        f"stopped at --max-cost {budget.max_usd:g}: {spent_words(budget)}, "
        f"{plural(missing, 'prompt')} without an outcome; {how_to_go_on(budget)}",
        OrbenchWarning,
        stacklevel=3,
    )


def warn_if_short(budget: Budget | None, rest: Range | None) -> None:
    """Say in one line that a bound may not be enough for what is estimated; nothing where it is, or no price is known.

    Args:
        budget: The bound, with what earlier commands have spent.
        rest: What is still to be paid.
    """
    if budget is None or rest is None or budget.spent_usd + rest.high <= budget.max_usd or not rest.high:
        return
    spent = f" and {spent_words(budget)} before" if budget.spent_usd else ""
    if budget.spent_usd + rest.low > budget.max_usd:
        said = f"not enough: the low end is {money(rest.low)}{spent}. The command will stop there"
    else:
        ends = span(money(rest.low), money(rest.high))
        said = f"within the estimate: {ends}{spent}. If it runs out, the command stops"
    warnings.warn(
        f"--max-cost {budget.max_usd:g} is {said} with what it has; a higher bound lets the same go on",
        OrbenchWarning,
        stacklevel=3,
    )


def may_defer(scorer: Scorer, split: str | None = None) -> bool:
    """Whether the scorer's judge may be asked about a reply of a split."""
    return scorer.judge is not None and (scorer.name != "paper" or split is None or always_defers(scorer, split))


def always_defers(scorer: Scorer, split: str) -> bool:
    """Whether the judge sees every reply of a split but those that a platform blocked."""
    from orbench.scoring.scorers import PAPER_JUDGED

    if scorer.judge is None:
        return False
    return scorer.name == "judge" or (scorer.name == "paper" and split in PAPER_JUDGED)
