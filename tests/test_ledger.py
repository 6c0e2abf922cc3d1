"""What calls have cost: what nobody said is unknown, never 0."""

from __future__ import annotations

import pytest

from orbench.costs import Price
from orbench.ledger import Ledger, ledgers_dict, usage_together
from orbench.records import Usage

PRICE = Price(input=1.0, output=10.0)  # USD a million tokens


def filled(*usages: Usage | None) -> Ledger:
    ledger = Ledger()
    for usage in usages:
        ledger.add(1, usage)
    return ledger


def test_tokens_of_all_calls_are_paid_for() -> None:
    ledger = filled(Usage(input_tokens=100, output_tokens=10), Usage(input_tokens=900, output_tokens=90))
    assert ledger.to_dict(PRICE) == {
        "requests": 2,
        "input_tokens": 1000,
        "output_tokens": 100,
        "cost_usd": pytest.approx(0.002),
    }


def test_what_went_through_a_batch_costs_half() -> None:
    usage = Usage(input_tokens=1000, output_tokens=100, batch=True)
    assert filled(usage).cost(PRICE) == pytest.approx(0.001)


def test_an_unknown_price_is_an_unknown_cost() -> None:
    assert filled(Usage(input_tokens=1, output_tokens=1)).cost(None) is None


def test_a_reply_without_its_tokens_makes_the_cost_unknown_and_says_the_least() -> None:
    found = filled(Usage(input_tokens=1000, output_tokens=100), None).to_dict(PRICE)
    assert (found["cost_usd"], found["uncounted"]) == (None, 1)
    assert found["at_least_usd"] == pytest.approx(0.002)


def test_tokens_that_nobody_said_are_unknown() -> None:
    found = filled(None, None).to_dict(PRICE)
    assert (found["input_tokens"], found["output_tokens"], found["requests"]) == (None, None, 2)


def test_a_failed_call_costs_nothing() -> None:
    ledger = Ledger()
    ledger.add(3, None, answered=False)
    assert ledger.to_dict(PRICE) == {"requests": 3, "input_tokens": 0, "output_tokens": 0, "cost_usd": 0.0}
    assert not ledger.answered


def test_a_model_that_costs_nothing_does_so_without_a_word_on_tokens() -> None:
    assert filled(None).cost(Price(input=0.0, output=0.0)) == 0


def test_one_unknown_cost_makes_the_sum_unknown() -> None:
    known, unknown = Ledger(), Ledger()
    known.add(1, Usage(input_tokens=1000, output_tokens=100))
    unknown.add(1, Usage(input_tokens=5, output_tokens=5))
    assert ledgers_dict({"a": known, "b": unknown}, {"a": PRICE})["cost_usd"] is None
    assert ledgers_dict({"a": known, "b": unknown}, {"a": PRICE, "b": PRICE})["cost_usd"] == pytest.approx(0.002055)


def test_who_was_not_asked_does_not_make_it_unknown() -> None:
    asked = {"requests": 2, "input_tokens": 7, "output_tokens": 3, "cost_usd": 0.5}
    idle = {"requests": 0, "input_tokens": 0, "output_tokens": 0, "cost_usd": None}
    assert usage_together([asked, idle]) == asked
