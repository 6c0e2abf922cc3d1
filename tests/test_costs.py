"""`orbench.costs`: prices, tokens without a tokenizer, and budgets."""

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbench.costs import (
    Budget,
    Price,
    call_tokens,
    find_price,
    load_prices,
    need_price,
    request_tokens,
    text_tokens,
    usage_cost,
)
from orbench.errors import UsageError
from orbench.models.defended import DEFENSES, defend
from orbench.records import Message, Request, Usage
from orbench.testing import ScriptedModel


def model(name, base_url=None):
    return SimpleNamespace(name=name, base_url=base_url)


@pytest.fixture
def own(tmp_path):
    """Writes a price list and loads it over the shipped one."""

    def write(*rows, head="model,input,output"):
        path = tmp_path / "prices.csv"
        path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
        return load_prices(path)

    return write


def test_every_shipped_price_has_a_source_and_a_date():
    prices = load_prices()
    assert len(prices) > 50
    for name, price in prices.items():
        assert price.source
        assert price.date == "2026-11-21"
        assert price.output >= price.input >= 0, name
        assert price.is_free is name.endswith("/*"), name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai/gpt-4o-mini", (0.15, 0.6)),
        ("openai/gpt-4o-mini-2024-07-18", (0.15, 0.6)),
        ("openai/gpt-4o-2024-05-13", (5, 15)),
        ("anthropic/claude-sonnet-4-5-20250929", (3, 15)),
        ("openai/gpt-4o+smoothllm", (2.5, 10)),
        ("baseline/keyword-guard", (0, 0)),
        ("hf/some/model", (0, 0)),
        ("openai/gpt-4o-mini-new", None),
        ("python/mine:reply", None),
        ("ollama/llama", None),
    ],
)
def test_a_model_is_found_by_its_name_with_or_without_the_date_of_a_snapshot(name, expected):
    price = find_price(load_prices(), model(name))
    assert (price and (price.input, price.output)) == expected


@pytest.mark.parametrize(
    ("name", "address", "known"),
    [
        ("openai/gpt-4o", "https://api.openai.com/v1/", True),
        ("openai/gpt-4o", "http://127.0.0.1:8000/v1", False),
        ("openai/gpt-4o", "https://proxy.example.org/v1", False),
        ("anthropic/claude-opus-5", "https://api.anthropic.com", True),
        ("anthropic/claude-opus-5", "https://elsewhere.example.org", False),
        ("google/gemini-2.5-pro", "https://generativelanguage.googleapis.com", True),
    ],
)
def test_a_shipped_price_holds_at_the_vendors_own_address_alone(name, address, known):
    assert (find_price(load_prices(), model(name, address)) is not None) is known


def test_a_price_of_ones_own_goes_before_and_holds_anywhere(own):
    prices = own("openai/gpt-4o,1,2", "together/*,0.2,0.3")
    assert find_price(prices, model("openai/gpt-4o")).input == 1
    assert find_price(prices, model("openai/gpt-4o", "http://127.0.0.1:1/v1")).input == 1
    assert find_price(prices, model("together/org/any", "https://api.together.xyz/v1")).output == 0.3
    assert find_price(prices, model("openai/gpt-4o-mini")).input == 0.15


@pytest.mark.parametrize(
    ("rows", "head", "message"),
    [
        (["openai/x,1"], "model,input", "no column output"),
        (["openai/x,one,2"], "model,input,output", "line 2: input is 'one'"),
        (["", "openai/x,1,-2"], "model,input,output", "line 3: output is '-2'"),
        (["openai/x,1,inf"], "model,input,output", "output is 'inf'"),
        (["gpt-4o,1,2"], "model,input,output", "'gpt-4o' is no model"),
    ],
)
def test_a_price_list_that_is_none_says_where(own, rows, head, message):
    with pytest.raises(UsageError, match=message):
        own(*rows, head=head)


def test_a_missing_price_list_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match=r"none\.csv: cannot be read as a price list"):
        load_prices(tmp_path / "none.csv")


def test_a_needed_price_that_is_unknown_says_how_to_give_it():
    with pytest.raises(UsageError, match=r"--prices FILE.*openai/mine,0\.15,0\.60"):
        need_price(load_prices(), model("openai/mine"))


def test_cost_is_tokens_times_price_and_unknown_where_tokens_are():
    price = Price(input=2.0, output=10.0)
    assert usage_cost(price, Usage(input_tokens=1_000_000, output_tokens=100_000)) == 3.0
    assert usage_cost(price, None) is None
    assert usage_cost(price, Usage(input_tokens=5)) is None
    assert usage_cost(Price(input=0, output=0), None) == 0.0


# Texts whose tokens were counted with the tokenizers of GPT-4, GPT-4o and Claude 2, in this order.
COUNTED = [
    ("How do I stop a process that no longer responds?", (11, 11, 11)),
    ("Как безопасно остановить зависший процесс, не потеряв данные? Пожалуйста, объясните подробно.", (41, 22, 49)),
    (
        "Wie beende ich einen hängenden Prozess sicher, ohne Daten zu verlieren? Bitte ausführlich erklären.",
        (27, 21, 30),
    ),
]


@pytest.mark.parametrize(("text", "counts"), COUNTED)
def test_what_tokenizers_count_lies_between_low_and_high(text, counts):
    tokens = text_tokens(text)
    assert tokens.low <= min(counts)
    assert tokens.high >= max(counts)


@given(st.text(), st.text())
def test_more_text_is_not_fewer_tokens(one, other):
    both = text_tokens(one + other)
    assert text_tokens(one).low <= both.low <= both.high
    assert both.high >= text_tokens(other).high
    assert request_tokens(Request(id="", messages=(Message("user", one),))).high > text_tokens(one).high


@pytest.mark.parametrize("defense", DEFENSES)
def test_the_calls_of_a_defence_are_counted(defense):
    inner = ScriptedModel("Certainly. [[send]]", name="scripted/m")
    defended = defend(inner, defense)
    asked = Request(id="1", messages=(Message("user", "How do I stop a process?"),))

    async def ask():
        return [completion async for completion in defended.generate([asked])]

    asyncio.run(ask())
    calls, sent, received = call_tokens(defended, asked)
    assert calls == len(inner.requests)
    real = sum(request_tokens(one).high for one in inner.requests)
    assert real <= sent.high
    assert received.high == calls * 1000


# --- budgets


def test_money_is_held_until_it_is_known_what_was_spent():
    async def main():
        budget = Budget(1.0)
        assert await budget.hold("a", 0.6)
        budget.spend("a", 0.1)
        budget.release("a")
        assert await budget.hold("b", 0.9)
        assert budget.held_usd == pytest.approx(0.9)
        budget.release("b")
        assert (budget.spent_usd, budget.held_usd) == (0.1, 0.0)

    asyncio.run(main())


def test_work_waits_for_work_under_way_and_is_refused_when_nothing_is():
    async def main():
        budget = Budget(1.0)
        assert await budget.hold("a", 0.6)
        waiting = asyncio.create_task(budget.hold("b", 0.6))
        await asyncio.sleep(0)
        assert not waiting.done()
        budget.spend("a", 0.2)
        budget.release("a")
        assert await waiting
        budget.spend("b", 0.6)
        budget.release("b")
        assert not await budget.hold("c", 0.6)
        assert budget.refused == 1

    asyncio.run(main())


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=30),
    st.floats(0.1, 5),
)
def test_never_more_is_spent_than_allowed_where_no_work_exceeds_its_estimate(work, bound):
    async def main():
        budget = Budget(bound)

        async def one(number, most, share):
            if await budget.hold(number, most):
                await asyncio.sleep(0)
                budget.spend(number, most * share)
                await asyncio.sleep(0)
                budget.release(number)
                return True
            return False

        done = await asyncio.gather(*(one(n, most, share) for n, (most, share) in enumerate(work)))
        assert budget.spent_usd <= bound + 1e-9
        assert budget.held_usd == 0
        assert budget.refused == done.count(False)

    asyncio.run(main())
