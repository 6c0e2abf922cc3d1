"""What calls cost: prices, token counts before anything is sent, and a bound on what is spent.

    prices = load_prices(file)                    the shipped table, and over it the user's own
    price = find_price(prices, model)             None where nothing is known, which is never 0
    price.cost(usage)                             USD of calls that were made
    request_tokens(request), reply_tokens(...)    low and high, without a tokenizer
    Budget(5.0)                                   what a command may spend, calls under way included

Plain functions, the same for evaluations, judges and generation.
"""

from __future__ import annotations

import asyncio
import csv
import math
import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from orbench.errors import UsageError
from orbench.records import Request, Usage

PRICES = Path(__file__).with_name("prices.csv")
"""The shipped table: USD per million tokens, each row with its source and the day on which it was read."""

CHARACTERS = (3.0, 6.5)
"""Fewest and most ASCII characters a token. Three tokenizers (GPT-4's, GPT-4o's, Claude 2's) make 5.3 to 5.8 of
OR-Bench's prompts together, 3.4 to 8.4 of single ones, and 4.0 to 4.4 of our templates."""
OTHERS = (0.25, 2.0)
"""Fewest and most tokens of a character that is not ASCII: from Russian with GPT-4o's tokenizer to rare scripts."""
FRAME = (3, 20)
"""Tokens around a message: its role and the marks of the chat format."""
BATCH_SHARE = 0.5
"""What tokens cost that went through a batch API, as a share of their price: half, at both vendors."""
SHORTEST = 10
"""Tokens of a short refusal: the low end of a reply."""

_DATED = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8})$")
_DEFENDED = re.compile(r"\+(?:self-reminder|in-context-refusal|smoothllm|response-check)$")
_OWN_HOSTS = {"anthropic": "api.anthropic.com", "google": "generativelanguage.googleapis.com"}


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What one model's tokens cost."""

    input: float
    """USD per million tokens sent."""
    output: float
    """USD per million tokens received, reasoning included."""
    source: str = ""
    date: str = ""
    """Day on which the source said so."""
    anywhere: bool = False
    """Whether it holds at any address: that of a user's file does, a shipped one only at the vendor's own."""

    def cost(self, input_tokens: float, output_tokens: float) -> float:
        """USD of so many tokens."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6

    @property
    def is_free(self) -> bool:
        """Whether no number of tokens costs anything."""
        return self.input == self.output == 0


class Range(msgspec.Struct, frozen=True):
    """A number that is only known to lie between two."""

    low: float
    high: float

    def __add__(self, other: Range) -> Range:
        """Both together."""
        return Range(self.low + other.low, self.high + other.high)

    def __mul__(self, times: float) -> Range:
        """So many times."""
        return Range(self.low * times, self.high * times)


NONE = Range(0, 0)


class _Priced(Protocol):
    @property
    def name(self) -> str: ...


def load_prices(path: str | Path | None = None) -> dict[str, Price]:
    """The shipped prices, and over them those of a file of the user's.

    Args:
        path: CSV with the columns `model,input,output`, USD per million tokens, and perhaps `source,date`. A model is
            `provider/name`, or `provider/*` for all others of one provider.

    Returns:
        By the model's name.

    Raises:
        UsageError: The file cannot be read, or a row of it is no price.
    """
    prices = _read(PRICES, anywhere=False)
    return prices if path is None else prices | _read(Path(path), anywhere=True)


def find_price(prices: Mapping[str, Price], model: _Priced) -> Price | None:
    """The price of a model; None if it is unknown.

    The name counts, then the name without the date of a snapshot (`-2024-07-18`), then `provider/*`. A model behind
    another address than the vendor's own has a price only in the user's file. It is the price of single calls; what
    went through a batch API costs `BATCH_SHARE` of it, which the tokens themselves say (`Usage.batch`).
    """
    full = _DEFENDED.sub("", model.name)
    found = [prices.get(name) for name in (full, _DATED.sub("", full), f"{full.partition('/')[0]}/*")]
    own = _is_own(model)
    return next((price for price in found if price is not None and (price.anywhere or own)), None)


def price_share(model: object) -> float:
    """The share of its price at which a model's calls go out, but for the first of a command's: 1, or `BATCH_SHARE`."""
    share: float = getattr(model, "price_share", 1.0)
    return share


def need_price(prices: Mapping[str, Price], model: _Priced, option: str = "--max-cost") -> Price:
    """As `find_price`.

    Raises:
        UsageError: It is unknown; says how to give it.
    """
    price = find_price(prices, model)
    if price is None:
        raise UsageError(
            f"{option}: no price is known for {model.name} at its address. Give one with --prices FILE, a CSV with the "
            f"columns model,input,output in USD per million tokens and a row such as {model.name},0.15,0.60"
        )
    return price


def text_tokens(text: str) -> Range:
    """Tokens of a text, low and high, by its characters alone."""
    ascii_only = len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
    others = len(text) - ascii_only
    return Range(ascii_only / CHARACTERS[1] + others * OTHERS[0], ascii_only / CHARACTERS[0] + others * OTHERS[1])


def request_tokens(request: Request) -> Range:
    """Tokens sent with a request, low and high."""
    total = NONE
    for message in request.messages:
        total += text_tokens(message.content) + Range(*FRAME)
    return total


def reply_tokens(max_tokens: int) -> Range:
    """Tokens of a reply: from a short refusal to all that it may have."""
    return Range(min(SHORTEST, max_tokens), max_tokens)


def call_tokens(model: object, request: Request) -> tuple[int, Range, Range]:
    """Calls for one request to a model, and the tokens sent and received; a defence makes calls of its own."""
    calls: list[Request] = model.sent(request) if hasattr(model, "sent") else [request]
    sent = NONE
    for call in calls:
        sent += request_tokens(call)
    return len(calls), sent, reply_tokens(request.sampling.max_tokens) * len(calls)


def usage_cost(price: Price, usage: Usage | None) -> float | None:
    """USD of calls that were made; None where their tokens are not all known."""
    if price.is_free:
        return 0.0
    if usage is None or usage.input_tokens is None or usage.output_tokens is None:
        return None
    return price.cost(usage.input_tokens, usage.output_tokens) * (BATCH_SHARE if usage.batch else 1.0)


def cost_range(price: Price, tokens_in: Range, tokens_out: Range) -> Range:
    """USD of so many tokens, low and high."""
    return Range(price.cost(tokens_in.low, tokens_out.low), price.cost(tokens_in.high, tokens_out.high))


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What calls to one model would take; nothing was sent yet."""

    model: str
    calls: Range
    """Requests, retries not counted."""
    input_tokens: Range
    output_tokens: Range
    cost_usd: Range | None
    """None if the model's price is unknown."""
    price: Price | None


def estimate(model: _Priced, prices: Mapping[str, Price], calls: Range, sent: Range, received: Range) -> Estimate:
    """Put calls, their tokens and the model's price together."""
    price = find_price(prices, model)
    cost = None if price is None else cost_range(price, sent, received)
    share = price_share(model)
    if cost is not None and share < 1 and calls.high:  # the first call of a command is a single one
        first = Range(cost.low / calls.low if calls.low else 0, cost.high / calls.high)
        cost = cost * share + first * (1 - share)
    return Estimate(
        model=model.name,
        calls=calls,
        input_tokens=Range(round(sent.low), round(sent.high)),
        output_tokens=Range(round(received.low), round(received.high)),
        cost_usd=cost,
        price=price,
    )


class _Costed(Protocol):
    @property
    def cost_usd(self) -> Range | None: ...


def total_cost(estimates: Iterable[_Costed]) -> Range | None:
    """The cost of all together, be they estimates or plans; None if any of it is unknown."""
    total = NONE
    for one in estimates:
        if one.cost_usd is None:
            return None
        total += one.cost_usd
    return total


class Budget:
    """What a command may spend. What is under way is held back at its high estimate until it is known.

    So the bound is kept as long as no call takes more tokens than its high estimate, whatever is open at once; near
    the end fewer calls are open, and in the end none fits any more.

    Attributes:
        max_usd: The bound.
        spent_usd: What was spent, in earlier runs of the same command too.
        estimated_usd: The part of it that is for replies which do not say their tokens, at their high estimate.
    """

    def __init__(self, max_usd: float) -> None:
        """Begin with nothing spent."""
        self.max_usd = max_usd
        self.spent_usd = 0.0
        self.estimated_usd = 0.0
        self._refused: dict[Hashable, float] = {}
        self._held: dict[Hashable, float] = {}
        self._held_usd = 0.0
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def held_usd(self) -> float:
        """What is held back for work under way."""
        return self._held_usd

    @property
    def refused(self) -> int:
        """Pieces of work for which there was no money, and none later."""
        return len(self._refused)

    @property
    def goes_on(self) -> bool:
        """Whether the same bound has room again for something that was refused: what was held back turned out less."""
        return self.spent_usd + self._held_usd + min(self._refused.values(), default=math.inf) <= self.max_usd

    def holds(self, work: Hashable) -> bool:
        """Whether money is held for it."""
        return work in self._held

    async def hold(self, work: Hashable, usd: float, *, wait: bool = True) -> bool:
        """Hold money back for a piece of work.

        Args:
            work: Names it.
            usd: Most that it can cost.
            wait: Whether to wait for work under way to turn out cheaper than feared; False where that work begins
                only after this.

        Returns:
            False if it does not fit, although nothing is waited for any more: then it must not be begun.
        """
        while self.spent_usd + self._held_usd + usd > self.max_usd:
            if not self._held or not wait:
                self._refused[work] = usd
                return False
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        self.take(work, usd)
        return True

    def take(self, work: Hashable, usd: float) -> None:
        """Hold money back for work that is under way or paid for already, whether it fits or not."""
        self._refused.pop(work, None)
        self._held[work] = self._held.get(work, 0.0) + usd
        self._held_usd += usd

    def spend(self, work: Hashable, usd: float) -> None:
        """Count what a part of the work has cost; as much less is held for the rest of it."""
        self.spent_usd += usd
        held = self._held.get(work, 0.0)
        self._set(work, max(0.0, held - usd))

    def release(self, work: Hashable) -> None:
        """The work is done: what it did not need is free again."""
        if work in self._held:
            self._set(work, 0.0)
            del self._held[work]
            if not self._held:
                self._held_usd = 0.0  # no rest of rounding
            self._wake()

    def _set(self, work: Hashable, usd: float) -> None:
        if work in self._held:
            self._held_usd += usd - self._held[work]
            self._held[work] = usd
            self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


def _is_own(model: object) -> bool:
    """Whether a model is at its vendor's own address, or has none."""
    address = getattr(model, "base_url", None)
    if address is None:
        return True
    from orbench.models.services import SERVICES

    provider = str(getattr(model, "name", "")).partition("/")[0]
    service = SERVICES.get(provider)
    own = urlsplit(service.base_url).hostname if service and service.base_url else _OWN_HOSTS.get(provider)
    return own is not None and urlsplit(address).hostname == own


def _read(path: Path, *, anywhere: bool) -> dict[str, Price]:
    found: dict[str, Price] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = {"model", "input", "output"} - set(reader.fieldnames or ())
            if missing:
                raise UsageError(
                    f"{path}: no column {', '.join(sorted(missing))}; a price list has model,input,output in USD per "
                    "million tokens"
                )
            for row in reader:
                number = reader.line_num
                model = (row["model"] or "").strip()
                if not model and not any((value or "").strip() for value in row.values() if isinstance(value, str)):
                    continue
                if "/" not in model:
                    raise UsageError(f"{path}, line {number}: {model!r} is no model: write provider/name")
                found[model] = Price(
                    input=_amount(path, number, row, "input"),
                    output=_amount(path, number, row, "output"),
                    source=row.get("source") or str(path.name),
                    date=row.get("date") or "",
                    anywhere=anywhere,
                )
    except OSError as error:
        raise UsageError(f"{path}: cannot be read as a price list: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read as a price list: {error}; save it as CSV in UTF-8") from None
    return found


def _amount(path: Path, number: int, row: Mapping[str, Any], column: str) -> float:
    try:
        value = float(row[column])
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value < math.inf:
        raise UsageError(
            f"{path}, line {number}: {column} is {row[column]!r}: USD per million tokens, a number from 0 up"
        )
    return value
