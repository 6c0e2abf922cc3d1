"""What a generation costs: a price for each role, and money held back for calls under way.

In: a configuration, and what the folder says was asked before. Out: whether a call may be made, and the prices that
generation.json keeps. Every call is held at its high estimate until its reply is there, as evaluations do.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from orbench.costs import (
    Budget,
    Price,
    Range,
    call_tokens,
    cost_range,
    find_price,
    load_prices,
    need_price,
    price_share,
    text_tokens,
    usage_cost,
)
from orbench.engine.calls import CallResult
from orbench.engine.run_folder import RUN
from orbench.errors import OrbenchWarning
from orbench.evaluation.money import how_to_go_on, make_budget, spent_before, spent_words, warn_of_unknown
from orbench.generation.config import GenerationConfig
from orbench.generation.folder import PANEL, State
from orbench.ledger import Ledger
from orbench.models.base import Model
from orbench.models.batch import BatchModel
from orbench.records import Request, Usage
from orbench.report.format import money, plural, span


class Money:
    """The money of one generation.

    Attributes:
        budget: What the command may spend; None without a bound.
        prices: Role and model, such as `rewriter openai/x`, to its price where one is known.
        refused: Role to its calls that were not made for want of money.
    """

    def __init__(self, config: GenerationConfig, before: Mapping[str, object]) -> None:
        """Look at the bound and the price list.

        Args:
            config: Its `max_cost` and `prices`.
            before: generation.json of an earlier run: prices of roles that are not at work now.

        Raises:
            UsageError: A bound that is no amount above 0, or a file that is no price list.
        """
        self.table = load_prices(config.prices)
        self.budget: Budget | None = make_budget(config.max_cost)
        self.prices = msgspec.convert(before.get("prices", {}), dict[str, Price])
        self.refused: Counter[str] = Counter()
        self._of_panel = (0.0, 0.0)

    def purse(self, role: str, model: Model) -> Purse:
        """For one role at work.

        Raises:
            UsageError: There is a bound, and the model has no price.
        """
        price = find_price(self.table, model)
        if self.budget is not None:
            need_price(self.table, model)
        name = f"{role} {model.name}"
        if price is not None:
            self.prices[name] = price
        return Purse(self, role, model, price)

    def count_spent(self, state: State, folder: Path) -> None:
        """Count what earlier runs in the folder have spent, the panel's included.

        Replies that do not say their tokens count at their high estimate.
        """
        if self.budget is None:
            return
        unknown: list[str] = []
        for (role, model), ledger in state.usage.items():
            price = self.prices.get(f"{role} {model}")
            if price is None:
                unknown.append(model)
            else:
                at_most = state.estimates.get((role, model), Ledger())
                self._count(ledger.known_cost(price) + at_most.known_cost(price), at_most.known_cost(price))
        panel = [spent_before(run.parent, self.table) for run in sorted((folder / PANEL).glob(f"*/*/{RUN}"))]
        self._of_panel = (sum(one.spent_usd for one in panel), sum(one.estimated_usd for one in panel))
        self._count(*self._of_panel)
        warn_of_unknown(folder, unknown)

    @property
    def is_out(self) -> bool:
        """Whether a call was not made for want of money."""
        return bool(self.refused.total() or (self.budget is not None and self.budget.refused))

    def warn_if_out(self, owed: int, rest: Callable[[], Range | None]) -> None:
        """Say in one line that the money is spent, what the `rest` takes, and how to go on."""
        budget = self.budget
        if budget is not None and budget.refused and owed:
            usd = rest()
            more = "" if usd is None else f"; the rest takes {span(money(usd.low), money(usd.high))} (see --dry-run)"
            warnings.warn(
                f"stopped at --max-cost {budget.max_usd:g}: {spent_words(budget)}, "
                f"{plural(owed, 'call')} not made{more}; {how_to_go_on(budget)}",
                OrbenchWarning,
                stacklevel=4,
            )

    def leave_panel_to_evaluation(self) -> None:
        """What the panel has spent is counted again by those who ask it."""
        if self.budget is not None:
            self._count(*(-usd for usd in self._of_panel))

    def _count(self, usd: float, estimated_usd: float) -> None:
        """Count what was spent before, and the part of it that is our own reckoning."""
        assert self.budget is not None
        self.budget.spent_usd += usd
        self.budget.estimated_usd += estimated_usd


class Purse:
    """What one role pays its calls from."""

    def __init__(self, money: Money, role: str, model: Model, price: Price | None) -> None:
        """Use `Money.purse`."""
        self._money, self._role, self._model, self._price = money, role, model, price
        self._name = f"{role} {model.name}"
        self._begun = False

    async def hold(self, request: Request, *, wait: bool = True) -> bool:
        """Hold back the most that a call can cost; False if there is too little left.

        Args:
            request: The call.
            wait: Whether to wait for calls under way that may turn out cheaper.
        """
        budget, price = self._money.budget, self._price
        if budget is None or price is None:
            return True
        _, sent, received = call_tokens(self._model, request)
        usd = cost_range(price, sent, received).high
        if self.is_under_way(request.id):
            budget.take((self._name, request.id), usd * price_share(self._model))
            return True
        usd *= price_share(self._model) if self._begun else 1.0
        self._begun = True  # the first call of a batch is a single one
        return await budget.hold((self._name, request.id), usd, wait=wait)

    def is_under_way(self, request: str) -> bool:
        """Whether a batch of an earlier command holds the request with this id: it is paid for."""
        return isinstance(self._model, BatchModel) and self._model.is_under_way(request)

    def settle(self, result: CallResult) -> None:
        """Count what a call has cost; at its high estimate where its tokens are not said, and nothing if it failed."""
        budget, price = self._money.budget, self._price
        if budget is None or price is None:
            return
        completion, key = result.completion, (self._name, result.request.id)
        if completion is not None and result.error is None:
            usd = usage_cost(price, completion.usage)
            if usd is None:
                said, at_most = completion.usage or Usage(), unsaid(self._model, result) or Usage()
                known, estimated = (
                    usage_cost(price, Usage(input_tokens=sent or 0, output_tokens=received or 0, batch=said.batch))
                    or 0.0
                    for sent, received in ((each.input_tokens, each.output_tokens) for each in (said, at_most))
                )
                usd = known + estimated
                budget.estimated_usd += estimated
            budget.spend(key, usd)
        budget.release(key)

    def refuse(self) -> None:
        """A call is not made for want of money."""
        self._money.refused[self._role] += 1


def unsaid(model: Model, result: CallResult) -> Usage | None:
    """Most tokens of a reply, as far as its provider does not say them; None if it says all, or nothing came of it.

    They stand in the reply's line, so that later runs count as much for it.
    """
    completion = result.completion
    if completion is None or result.error is not None or completion.blocked_by is not None:
        return None
    said = completion.usage or Usage()
    sent = received = 0
    if said.input_tokens is None:
        sent = math.ceil(call_tokens(model, result.request)[1].high)
    if said.output_tokens is None:
        received = math.ceil(text_tokens(completion.text).high)
    return Usage(input_tokens=sent, output_tokens=received, batch=said.batch) if sent or received else None
