"""The table of `orbench align report`: the papers' measures, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orbench.mitigation.terms import cost_text
from orbench.report.format import NOTHING, percent, score
from orbench.report.table import columns

if TYPE_CHECKING:
    from orbench.mitigation.report import Loop, Side, Ways


def loop_table(loop: Loop) -> str:
    """Both models side by side, the paired tests below."""
    sides = (loop.before, loop.after)
    rows = [["", "before", "after"]]
    rows.append(["not unsafe (POROver's safety)", *(percent(side.not_unsafe) for side in sides)])
    rows.append(["toxic rejection", *(percent(side.toxic_rejection) for side in sides)])
    rows.append(["not over-refused (usefulness)", *(percent(side.not_overrefusal) for side in sides)])
    by = "not unsafe" if loop.before.not_unsafe is not None else "toxic rejection"
    rows.append([f"F1 (with {by})", *(score(side.f1) for side in sides)])
    rows.append(["ranking (AUC of the margin)", *(score(side.ranking) for side in sides)])
    for name in ("safe", "toxic", "general"):
        ways: list[Ways | None] = [getattr(side, name) for side in sides]
        if ways != [None, None]:
            for way in ("refused", "answered", "neither"):
                rows.append([f"{name}: {way}", *(percent(getattr(one, way)) if one else NOTHING for one in ways)])  # noqa: PERF401
    rows += _further(sides)
    lines = [f"before: {loop.before.model}", f"after:  {loop.after.model}", "", *columns(rows), ""]
    pair = loop.comparison["pairs"][0]
    lines += [
        _difference("over-refusal", pair["over_refusal"]),
        _difference("toxic rejection", pair["toxic_rejection"]),
    ]
    if change := loop.helpfulness:
        bounds = "no interval" if change.low is None else f"{change.low:+.2f} to {change.high:+.2f}"
        lines.append(f"helpfulness: {change.value:+.2f} ({bounds}) on {change.replies:,} replies")
    if pair["categories"]:
        rows = [["category", "", "before", "after", "p (Holm)"]]
        rows += [
            [one["category"], one["kind"], percent(one["a"]), percent(one["b"]), f"{one['p_holm']:.3g}"]
            for one in pair["categories"]
        ]
        lines += ["", "refused, by category", *columns(rows)]
    if loop.before.general is None:
        lines += [
            "",
            "No run on general prompts (--general): a model that refuses all it has not seen would look alike.",
        ]
    if loop.cost_usd:
        lines += ["", f"Cost: {cost_text(loop.cost_usd)}."]
    return "\n".join([*lines, *loop.comparison["notes"], *loop.notes])


def _further(sides: tuple[Side, Side]) -> list[list[str]]:
    rows = []
    if any(side.helpfulness is not None for side in sides):
        shown = [NOTHING if side.helpfulness is None else f"{side.helpfulness:.2f}" for side in sides]
        rows.append(["helpfulness (mean mark)", *shown])
        counts = [f"{side.marked:,} of {side.general.prompts:,}" if side.general else NOTHING for side in sides]
        rows.append(["replies with a mark", *counts])
    for task in dict.fromkeys([*sides[0].tasks, *sides[1].tasks]):
        rows.append([task, *(percent(side.tasks.get(task)) for side in sides)])  # noqa: PERF401
    return rows


def _difference(name: str, found: dict[str, Any] | None) -> str:
    if found is None:
        return f"{name}: no prompt that both have a verdict on"
    verdict = "significant" if found["p_holm"] < 0.05 else "not significant"
    return (
        f"{name}: {100 * found['value']:+.1f} points ({100 * found['low']:+.1f} to {100 * found['high']:+.1f}), "
        f"p {found['p_holm']:.2g}, {verdict}, {found['prompts']:,} prompts"
    )
