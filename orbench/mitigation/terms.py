"""On which terms moderators and the judge of helpfulness are asked: calls open at once, their pace, and the money.

The most that asking about a reply can cost is held back until its label is there, as evaluations do it, and out of the
same budget as the teacher.
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from orbench import costs
from orbench.costs import Budget, Estimate, Price, Range
from orbench.engine.jsonl import read_lines
from orbench.engine.limits import ConcurrencyLimit, limit_for
from orbench.engine.run_folder import RUN
from orbench.errors import OrbenchWarning, RunError
from orbench.evaluation.money import how_to_go_on, make_budget, spent_before, spent_words
from orbench.evaluation.setup import AnyModel, check_pace
from orbench.ledger import Ledgers
from orbench.models import open_model
from orbench.models.base import Model
from orbench.records import Judgement, Message, Request, Response
from orbench.report.format import money, plural
from orbench.results import Evaluation
from orbench.scoring.judge import MAX_ANSWER, MAX_REPLY, ROUNDS, shorten

Messages = Callable[[Response, bool], tuple[Message, ...]]


class Judged(Protocol):
    """A line of a file of labels or marks."""

    @property
    def judgement(self) -> Judgement | None:
        """What it has cost."""
        ...


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for every model that is asked about replies."""

    concurrency: int | None = None
    """Calls open at once, of each; None: found out while running."""
    rpm: float | None = None
    tpm: float | None = None
    prices: Mapping[str, Price] = {}
    budget: Budget | None = None
    """Shared with the teacher; None without a bound."""

    def limit(self, model: Model) -> ConcurrencyLimit:
        """Bounds the open calls of a model."""
        return limit_for(model, self.concurrency, self.rpm, self.tpm)

    def price(self, model: Model) -> Price | None:
        """Of a model; None if it is unknown.

        Raises:
            orbench.UsageError: It is unknown, and there is a bound.
        """
        return costs.find_price(self.prices, model) if self.budget is None else costs.need_price(self.prices, model)

    async def afford(self, model: Model, replies: Iterable[Response], messages: Messages) -> AsyncIterator[Response]:
        """Those of the replies that there is money to ask about; it is held back for each until `settle`."""
        price = self.price(model)
        for reply in replies:
            if self.budget is not None and price is not None:
                sent = costs.request_tokens(Request(id="", messages=messages(reply, True)))
                usd = ROUNDS * price.cost(sent.high, MAX_ANSWER)
                # what takes a list begins when all replies are drawn: nothing is under way that could turn out cheaper
                if not await self.budget.hold(_work(model, reply), usd, wait=model.batch_size is not None):
                    continue
            yield reply

    def settle(self, model: Model, reply: Response, judgement: Judgement | None, messages: Messages) -> None:
        """Count what asking about a reply has cost; at its high estimate where the tokens are not said."""
        price = self.price(model)
        if self.budget is None or price is None:
            return
        usd = costs.usage_cost(price, judgement.usage) if judgement else 0.0
        if usd is None:
            said = judgement.reply if judgement else ""
            sent = costs.request_tokens(Request(id="", messages=messages(reply, True)))
            usd = costs.cost_range(price, sent, costs.text_tokens(said)).high if said else 0.0
        self.budget.spend(_work(model, reply), usd)
        self.budget.release(_work(model, reply))

    def count_spent(self, path: Path, kind: type[Judged]) -> None:
        """Count against the budget what earlier commands have spent on the lines of a file, at the price of today."""
        if self.budget is None:
            return
        for line in read_lines(path, kind):
            spent = line.judgement
            price = costs.find_price(self.prices, _Earlier(spent.model)) if spent else None
            if spent is None or price is None:
                continue
            usd = costs.usage_cost(price, spent.usage)
            if usd is None and spent.reply:
                usd = price.cost(costs.text_tokens("x" * MAX_REPLY).high, costs.text_tokens(spent.reply).high)
            self.budget.spent_usd += usd or 0.0

    def costs_of(self, role: str, ledgers: Ledgers, models: Sequence[Model]) -> dict[str, float | None]:
        """Role and model to USD, earlier commands included; None where a price or a number of tokens is unknown."""
        known = {model.name: costs.find_price(self.prices, model) for model in models}
        return {
            f"{role} {name}": ledger.cost(
                known[name] if name in known else costs.find_price(self.prices, _Earlier(name))
            )
            for name, ledger in ledgers.items()
        }

    def estimate(self, model: Model, texts: Sequence[str], max_tokens: int, messages: Messages) -> Estimate:
        """What asking about replies to some prompts would take: from none of them to each, and each at its longest."""
        empty = Response(prompt_id="", split="", category="", kind="safe", prompt="", response="")
        frame = costs.request_tokens(Request(id="", messages=messages(empty, False))).high
        reply = min(max_tokens, costs.text_tokens("x" * MAX_REPLY).high)
        sent = sum(costs.text_tokens(shorten(text)).high + reply + frame for text in texts)
        count = len(texts)
        return costs.estimate(model, self.prices, Range(0, count), Range(0, sent), Range(0, MAX_ANSWER * count))

    def warn_if_out(self, owed: int) -> None:
        """Say in one line that the money is spent, and how to go on; `owed` calls were not made or failed."""
        if self._is_out:
            warnings.warn(self._out(f"{plural(owed, 'call')} owed"), OrbenchWarning, stacklevel=3)

    def check_paid(self, owed: str) -> None:
        """Raise RunError where the money is spent: says what is owed, and how to go on."""
        if self._is_out:
            raise RunError(self._out(owed))

    def has_more(self) -> bool:
        """Whether there is money after all for something that there was none for, now that less is held back."""
        return self.budget is not None and self.budget.refused > 0 and self.budget.goes_on

    @property
    def _is_out(self) -> bool:
        return self.budget is not None and self.budget.refused > 0

    def _out(self, owed: str) -> str:
        assert self.budget is not None
        return (
            f"stopped at --max-cost {self.budget.max_usd:g}: {spent_words(self.budget)}, {owed}; "
            f"{how_to_go_on(self.budget)}"
        )


NO_TERMS = Terms()
"""No bound on anything."""


def make_terms(
    *,
    concurrency: int | None,
    rpm: float | None,
    tpm: float | None,
    prices: str | Path | None,
    max_cost: float | None,
) -> Terms:
    """The terms that the options of a command stand for; these are described at `orbench.evaluate`.

    Raises:
        orbench.UsageError: Numbers that cannot be meant, or prices that cannot be read.
    """
    check_pace(concurrency, rpm, tpm)
    return Terms(
        concurrency=concurrency, rpm=rpm, tpm=tpm, prices=costs.load_prices(prices), budget=make_budget(max_cost)
    )


def name_of(model: AnyModel) -> str:
    """A model's name, without asking anything of it."""
    return model if isinstance(model, str) else open_model(model).name


def costs_of_run(run: Evaluation, role: str) -> dict[str, float | None]:
    """Role and model to USD of a run, and of its judge if it has one."""
    return {f"{role} {run.model}": run.usage["cost_usd"], **judge_costs(run)}


def judge_costs(run: Evaluation) -> dict[str, float | None]:
    """`judge NAME` to USD of a run; nothing if it has no judge."""
    usage = run.usage
    return {f"judge {run.config['scorer']['judge']}": usage["judge"]["cost_usd"]} if "judge" in usage else {}


def spent_on(run: Path, terms: Terms) -> float:
    """What a run folder has cost so far, in USD, as an evaluation that goes on in it counts it; 0 if it is none."""
    return spent_before(run, terms.prices).spent_usd if (run / RUN).exists() else 0.0


def added_costs(found: Iterable[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Sums by role and model; None where one of the sums is unknown."""
    total: dict[str, float | None] = {}
    for costs_of in found:
        for who, usd in costs_of.items():
            so_far = total.get(who, 0.0)
            total[who] = None if usd is None or so_far is None else so_far + usd
    return total


def cost_text(costs_of: Mapping[str, float | None]) -> str:
    """`teacher openai/x $1.20, moderator hf/y $0`: what was paid to whom."""
    return ", ".join(f"{who} {money(usd)}" for who, usd in costs_of.items())


class _Earlier(NamedTuple):
    """A model of an earlier command, as far as its price needs it."""

    name: str


def _work(model: Model, reply: Response) -> tuple[str, str, str]:
    return (model.name, *reply.key)
