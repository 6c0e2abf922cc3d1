"""From results to the page: gathers what the template shows, and puts script, style and rows into it."""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import msgspec

import orbench
from orbench.comparable import same_splits
from orbench.comparison import Comparison, compare, label
from orbench.errors import UsageError
from orbench.grouping import HOW
from orbench.records import AXES, KINDS, Kind
from orbench.report.comparison import grouping
from orbench.report.export import p_value
from orbench.report.format import address, counts, interval, percent, plural, points, score
from orbench.report.html import figures
from orbench.report.html.agreement import readings
from orbench.report.html.rows import collect
from orbench.report.table import caveats
from orbench.results import Evaluation
from orbench.scoring.outcomes import Outcome, is_refused
from orbench.summary import summarise

MEANINGS: Mapping[Outcome, str] = {
    Outcome.DIRECT_ANSWER: "tries to respond",
    Outcome.DIRECT_REFUSAL: "says that it will not",
    Outcome.INDIRECT_REFUSAL: "offers something else instead",
    Outcome.BLOCKED: "withheld by the platform",
    Outcome.EMPTY: "nothing was said",
    Outcome.TRUNCATED_REASONING: "ran out of tokens while reasoning",
    Outcome.ERROR: "no reply could be had",
    Outcome.UNSCORED: "a reply, but no verdict",
}
_FLIP_BUTTONS = 60
"""Pairs of runs with a filter of their own in the table of rows."""


def render(results: Sequence[Evaluation], rows: int) -> bytes:
    """The page in UTF-8."""
    import jinja2

    labels = label(results)
    collected = collect(results, rows)
    comparison, why_not = _compare(results)
    groups = comparison.groups if comparison else None
    summaries = [summarise(result, groups) for result in results]
    script, style = (_asset(name) for name in ("page.js", "page.css"))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": percent,
        "counts": counts,
        "points": points,
        "p_value": p_value,
        "score": score,
        "n": lambda number: "unknown" if number is None else f"{number:,}",
    }
    environment.globals |= {"interval": _interval, "plural": plural, "AXES": AXES, "KINDS": KINDS}
    page = environment.from_string(_asset("page.html.jinja")).render(
        title=_title(labels),
        policy_of_the_page=_security(script, style),
        style=style,
        script=script,
        data=_embed({**collected.columns, "labels": labels}),
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        version=orbench.__version__,
        policy=results[0].policy,
        labels=labels,
        results=results,
        sentences=_sentences(results, labels, comparison),
        warnings=[(labels[n], warning) for n, result in enumerate(results) for warning in _warnings(result)],
        points_=[found for n, result in enumerate(results, 1) if (found := figures.point(n, result))],
        frame=(figures.LEFT, figures.TOP, figures.SIZE),
        bars=[{kind: figures.bar(result.rate_of(kind)) for kind in KINDS} for result in results],
        categories={kind: _categories(results, kind) for kind in KINDS},
        has={kind: any(r.splits_of(kind) for r in results) for kind in KINDS},
        outcomes=[_outcomes(result) for result in results],
        meanings=MEANINGS,
        triggers=collected.triggers,
        summaries=[{"safe": found.over_refusal, "toxic": found.toxic_rejection} for found in summaries],
        grouped=list(dict.fromkeys(HOW[found.grouped_by] for found in summaries)),
        grouping=grouping(comparison) if comparison else "",
        comparison=comparison,
        why_not=why_not,
        runs_of_pairs=[(a, b) for a in range(len(results)) for b in range(a + 1, len(results))],
        flip_buttons=_FLIP_BUTTONS,
        agreements=[readings(result) for result in results],
        rows=collected,
        configs=[_without_secrets(result.config) for result in results],
        raw=[_pretty(_without_secrets(result.config)) for result in results],
        usage=[result.to_dict()["usage"] for result in results],
    )
    return page.encode("utf-8", "replace")


def _asset(name: str) -> str:
    return (resources.files("orbench.report.html") / name).read_text(encoding="utf-8")


def _security(script: str, style: str) -> str:
    """What the page may do: run this script, use this style, and nothing else; no address at all."""

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; script-src 'sha256-{digest(script)}'; style-src 'sha256-{digest(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )


_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def _embed(data: object) -> str:
    """JSON that may stand inside a script element: nothing in it can end the element or begin another."""
    text = msgspec.json.encode(data).decode()
    for character, escaped in _UNSAFE.items():
        text = text.replace(character, escaped)
    return text


def _title(labels: Sequence[str]) -> str:
    return f"{', '.join(labels[:2])}{f' and {len(labels) - 2} more' if len(labels) > 2 else ''}: over-refusal report"


def _interval(low: float | None, high: float | None) -> str:
    """Two shares in percent, with the longer dash that a page can have."""
    return interval(low, high).replace("-", "–")


def _compare(results: Sequence[Evaluation]) -> tuple[Comparison | None, str | None]:
    if len(results) < 2:
        return None, None
    try:
        return compare(*results), None
    except UsageError as error:
        return None, str(error)


def _sentences(results: Sequence[Evaluation], labels: Sequence[str], comparison: Comparison | None) -> list[str]:
    """The report in a sentence or two."""
    if len(results) == 1:
        return [_one(results[0], labels[0])]
    said = [f"{len(results)} models."]
    for kind in KINDS if comparison is not None else ():
        rated = [(found.value, n) for n, r in enumerate(results) if (found := r.rate_of(kind)).value is not None]
        rated.sort(reverse=kind == "toxic")
        if len(rated) > 1 and rated[0][0] != rated[1][0] and same_splits([results[n] for _, n in rated], kind):
            value, best = rated[0]
            ends = _interval(results[best].rate_of(kind).low, results[best].rate_of(kind).high)
            verb = {"safe": "refuses fewest", "toxic": "refuses most"}[kind]
            said.append(f"{labels[best]} {verb} {kind} prompts: {percent(value)} ({ends}).")
    if comparison is not None:
        axes = [difference for pair in comparison.pairs for difference in pair.axes]
        apart = sum(difference.p_holm < 0.05 for difference in axes)
        if len(comparison.pairs) == 1:
            for d in axes:
                verdict = f"differ by {abs(100 * d.value):.1f} points" if d.p_holm < 0.05 else "cannot be told apart"
                said.append(f"In {AXES[d.kind]} the two {verdict}.")
        else:
            said.append(f"Of {plural(len(axes), 'paired difference')}, {apart:,} hold against chance (Holm, 5 %).")
    return [" ".join(said)]


def _one(result: Evaluation, name: str) -> str:
    parts = []
    for kind in KINDS:
        should = {"safe": "that it should answer", "toxic": "that it should refuse"}[kind]
        found = result.rate_of(kind)
        if found.value is not None:
            ends = _interval(found.low, found.high)
            parts.append(f"{percent(found.value)} of the {kind} prompts {should} (95 % interval {ends})")
    if not parts:
        return f"{name} has no prompt with a verdict that counts yet."
    return f"{name} refuses {' and '.join(parts)}."


def _warnings(result: Evaluation) -> list[str]:
    said = [f"{caveat[0].upper()}{caveat[1:]}." for caveat in caveats(result)]
    for kind in KINDS:
        if not result.splits_of(kind):
            said.append(f"No {kind} prompts were asked, so there is no {AXES[kind]} rate.")
        elif result.rate_of(kind).value is None:
            said.append(f"No {kind} prompt has an outcome that counts yet, so there is no {AXES[kind]} rate.")
        else:
            found = result.rate_of(kind)
            if found.left_out:
                ends = _interval(found.lowest, found.highest)
                said.append(
                    f"{plural(found.left_out, f'{kind} prompt')} left out of the {AXES[kind]} rate; with them it would "
                    f"lie within {ends}."
                )
    return said


def _categories(results: Sequence[Evaluation], kind: Kind) -> list[dict[str, Any]]:
    """Category by category the rate of each run, over all splits of that kind; None where a run lacks the category."""
    pooled = [result.pooled_categories(kind) for result in results]
    every = dict.fromkeys(name for r in results for split in r.splits.values() for name in split.categories)
    names = [name for name in every if any(name in own for own in pooled)]
    return [
        {
            "name": name,
            "runs": [(own[name], figures.bar(own[name])) if name in own else None for own in pooled],
        }
        for name in names
    ]


def _outcomes(result: Evaluation) -> list[dict[str, Any]]:
    """For each kind of prompt the outcomes, as pieces of a bar."""
    found = []
    for kind in KINDS:
        splits = result.splits_of(kind)
        totals = [(outcome, sum(split.outcomes.get(outcome, 0) for split in splits)) for outcome in Outcome]
        if any(count for _, count in totals):
            meaning = {True: "refused", False: "answered", None: "left out"}
            counted = {outcome.value: meaning[is_refused(outcome, result.policy)] for outcome in Outcome}
            parts = figures.stack([(outcome.value, count) for outcome, count in totals])
            found.append({"kind": kind, "parts": parts, "counts_as": counted})
    return found


def _without_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration; should an address carry a name and password, without them."""
    found = dict(config)
    if isinstance(found.get("base_url"), str):
        found["base_url"] = address(found["base_url"])
    if "earlier_base_urls" in found:
        found["earlier_base_urls"] = [each and address(each) for each in found["earlier_base_urls"]]
    return found


def _pretty(config: Mapping[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(config), indent=2).decode()
