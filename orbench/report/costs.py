"""The plan of a dry run, and what a run has cost, as lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orbench.costs import CHARACTERS, Estimate, Range, total_cost
from orbench.report.format import amount, money, plural, span
from orbench.report.table import WIDTH, columns, shorten, wrap

if TYPE_CHECKING:
    from orbench.evaluation.money import Plan

_ROLES = {"judge": "judge", "safety_judge": "safety judge"}


def plan_table(plan: Plan) -> str:
    """Calls, tokens and cost of each model, low to high."""
    roles = [("", plan.target), *(("judge ", judge) for judge in plan.judges), ("safety judge ", plan.safety_judge)]
    known = [(f"{role}{one.model}", one) for role, one in roles if one is not None]
    rows = [["", "calls", "input tokens", "output tokens", "cost"]]
    rows += [_row(label, one) for label, one in known]
    if len(known) > 1:
        rows.append(["together", "", "", "", _cost(plan.cost_usd)])
    unknown = [one.model for _, one in known if one.cost_usd is None]
    dates = sorted({one.price.date for _, one in known if one.price and one.price.date})
    asked = f"{plural(plan.prompts, 'prompt')}, {plan.to_ask:,} to ask"
    if plan.under_way:
        asked += f", {plan.under_way:,} in batches under way"
    notes = [
        f"Low: every reply a short refusal. High: every reply as long as --max-tokens {plan.max_tokens} allows. Tokens "
        f"are counted as {CHARACTERS[0]:g} to {CHARACTERS[1]:g} characters each; retries are not in it."
    ]
    if dates:
        notes.append(f"Prices of {span(dates[0], dates[-1])} (orbench path prices); --prices FILE sets your own.")
    if unknown:
        notes.append(f"No price is known for {', '.join(unknown)} at the address asked: give it with --prices FILE.")
    lines = [shorten(plan.model, WIDTH), f"{asked}; nothing was sent", "", *columns(rows), ""]
    return "\n".join([*lines, *(line for note in notes for line in wrap(note))])


def plans_line(plans: Sequence[Plan]) -> str:
    """What several plans cost together."""
    return f"all {len(plans)} together: {_cost(total_cost(plans))}"


def cost_line(usage: Mapping[str, Any]) -> str | None:
    """`cost: $1.20, judge $0.30`, as far as it is known; None where no price is, or nothing was paid.

    Where replies came without a number of tokens, `unknown (at least $0.30; 12 replies do not say their tokens)`.
    """
    parts = [("", usage)]
    parts += [(f"{label} ", usage[name]) for name, label in _ROLES.items() if name in usage]
    if not any(part["cost_usd"] or "at_least_usd" in part for _, part in parts):
        return None
    return "cost: " + ", ".join(f"{label}{_spent(part)}" for label, part in parts)


def _spent(part: Mapping[str, Any]) -> str:
    if "at_least_usd" not in part:
        return money(part["cost_usd"])
    unsaid = part["uncounted"]
    replies = f"{plural(unsaid, 'reply', 'replies')} {'does' if unsaid == 1 else 'do'} not say"
    return f"unknown (at least {money(part['at_least_usd'])}; {replies} {'its' if unsaid == 1 else 'their'} tokens)"


def _row(label: str, one: Estimate) -> list[str]:
    return [
        shorten(label, 26),
        span(f"{one.calls.low:,.0f}", f"{one.calls.high:,.0f}"),
        span(amount(one.input_tokens.low), amount(one.input_tokens.high)),
        span(amount(one.output_tokens.low), amount(one.output_tokens.high)),
        _cost(one.cost_usd),
    ]


def _cost(usd: Range | None) -> str:
    return money(None) if usd is None else span(money(usd.low), money(usd.high))
