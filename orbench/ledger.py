"""Calls, tokens and cost of each model, counted over everything received."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from orbench.costs import BATCH_SHARE, Price
from orbench.records import Usage


class Ledger(msgspec.Struct):
    """Calls and tokens of one model, counted over everything received, superseded lines included."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    uncounted: int = 0
    """Replies whose tokens the provider did not say; what they cost is not known."""
    batch_input_tokens: int = 0
    """Those of `input_tokens` that went through a batch API."""
    batch_output_tokens: int = 0

    def add(self, requests: int, usage: Usage | None, *, answered: bool = True) -> None:
        """Count some calls.

        Args:
            requests: How many.
            usage: Their tokens.
            answered: Whether a reply came of them; failed calls, and what a platform blocked without a word on tokens,
                are taken to cost nothing.
        """
        self.requests += requests
        if usage is not None:
            self.input_tokens += usage.input_tokens or 0
            self.output_tokens += usage.output_tokens or 0
            if usage.batch:
                self.batch_input_tokens += usage.input_tokens or 0
                self.batch_output_tokens += usage.output_tokens or 0
        if answered and (usage is None or usage.input_tokens is None or usage.output_tokens is None):
            self.uncounted += 1

    @property
    def answered(self) -> bool:
        """Whether any reply came at all."""
        return bool(self.input_tokens or self.output_tokens or self.uncounted)

    def cost(self, price: Price | None) -> float | None:
        """USD; None where the price or a number of tokens is unknown, which is not 0."""
        if price is None or (self.uncounted and not price.is_free):
            return None
        return round(self.known_cost(price), 6)

    def known_cost(self, price: Price) -> float:
        """USD of the tokens that are known."""
        saved = (1 - BATCH_SHARE) * price.cost(self.batch_input_tokens, self.batch_output_tokens)
        return price.cost(self.input_tokens, self.output_tokens) - saved

    def to_dict(self, price: Price | None = None) -> dict[str, Any]:
        """For result.json."""
        return ledgers_dict({"": self}, {} if price is None else {"": price})


Ledgers = dict[str, Ledger]
"""A model's name to its ledger; those of one role."""


def ledgers_dict(ledgers: Ledgers, prices: Mapping[str, Price]) -> dict[str, Any]:
    """The ledgers of one role together, for result.json, as `usage_together` has them."""
    found = [(ledger, prices.get(model)) for model, ledger in ledgers.items()]
    return usage_together(
        {
            "requests": ledger.requests,
            "input_tokens": ledger.input_tokens,
            "output_tokens": ledger.output_tokens,
            "cost_usd": ledger.cost(price),
            "uncounted": ledger.uncounted,
            "at_least_usd": None if price is None else round(ledger.known_cost(price), 6),
        }
        for ledger, price in found
    )


def usage_together(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Several entries of a ledger as one: `requests`, `input_tokens`, `output_tokens` and `cost_usd`.

    The cost is None where that of one is, which is not 0, and tokens where nobody said any. Where replies came without
    a number of tokens, `uncounted` says how many, and `at_least_usd` what the others cost if all prices are known.
    """
    asked = list(parts)
    asked = [part for part in asked if part["requests"]] or asked
    uncounted = sum(part.get("uncounted", 0) for part in asked)
    found: dict[str, Any] = {"requests": sum(part["requests"] for part in asked)}
    for name in ("input_tokens", "output_tokens"):
        tokens = sum(part[name] or 0 for part in asked)
        found[name] = tokens if tokens or not uncounted else None
    costs = [part["cost_usd"] for part in asked]
    found["cost_usd"] = None if None in costs or not costs else round(sum(costs), 6)
    if uncounted:
        found["uncounted"] = uncounted
        least = [part.get("at_least_usd", cost) for part, cost in zip(asked, costs, strict=True)]
        if found["cost_usd"] is None and None not in least:
            found["at_least_usd"] = round(sum(least), 6)
    return found
