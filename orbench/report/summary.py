"""What one run allows to be said, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orbench.grouping import HOW
from orbench.records import AXES, KINDS
from orbench.report.comparison import wrap
from orbench.report.export import p_value
from orbench.report.format import NOTHING, interval, percent
from orbench.report.table import columns, shorten
from orbench.statistics.intervals import wilson

if TYPE_CHECKING:
    from orbench.statistics.clusters import ClusteredRate
    from orbench.summary import Summary


def summary_table(summary: Summary) -> str:
    """Grouped intervals, the joint statement, and the categories that stand out."""
    rows = [["", "rate", "95 % interval", "grouped", "prompts", "groups", "effect"]]
    rates = {"safe": summary.over_refusal, "toxic": summary.toxic_rejection}
    rows += [_row(AXES[kind], rates[kind]) for kind in KINDS]
    how = HOW[summary.grouped_by]
    lines = [
        *columns(rows),
        *wrap(
            "95 % interval: Wilson's, with all prompts taken as independent, as in the result. grouped: the same with "
            f"prompts {how} as one group. effect: by how much the groups raise the variance."
        ),
        "",
    ]
    for kind, axis in AXES.items():
        if rates[kind] is None:
            lines += [*wrap(f"No {axis} rate: no {kind} prompt has an outcome that counts."), ""]
    if summary.joint:
        over, toxic = interval(*summary.joint.over_refusal), interval(*summary.joint.toxic_rejection)
        lines += [*wrap(f"Both at once, with 95 % confidence: over-refusal {over}, toxic rejection {toxic}."), ""]
    for kind, axis in AXES.items():
        of_kind = [found for found in summary.categories if found.kind == kind]
        own = [found for found in of_kind if found.scored]
        if own:
            head = [axis, "rate", "all at once", "refused", "p", "Holm"]
            cells = [
                [
                    shorten(found.category, 20),
                    percent(found.value),
                    interval(found.low, found.high),
                    f"{found.refused:,}/{found.scored:,}",
                    p_value(found.p),
                    p_value(found.p_holm),
                ]
                for found in own
            ]
            lines += [*columns([head, *cells]), ""]
            if bare := [found.category for found in of_kind if not found.scored]:
                lines += [*wrap(f"No {axis} rate of {', '.join(bare)}: no prompt has an outcome that counts."), ""]
    if not any(found.scored for found in summary.categories):
        return "\n".join(lines).rstrip()
    lines += wrap(
        "all at once: intervals that hold for all categories together with 95 % confidence. p: is the category refused "
        "as often as the others together; Holm: adjusted over the categories."
    )
    return "\n".join(lines)


def _row(label: str, found: ClusteredRate | None) -> list[str]:
    if found is None:
        return [label, *[NOTHING] * 6]
    plain = interval(*wilson(found.refused, found.prompts))
    sizes = [f"{found.prompts:,}", f"{found.clusters:,}", f"{found.design_effect:.2f}"]
    return [label, percent(found.value), plain, interval(found.low, found.high), *sizes]
