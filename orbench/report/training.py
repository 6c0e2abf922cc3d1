"""What `orbench align sft`, `raft` and `dpo` print: rows, checkpoints, which was taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orbench.report.format import percent
from orbench.report.table import columns

if TYPE_CHECKING:
    from orbench.mitigation.folder import Trained


def training_table(trained: Trained) -> str:
    """The training in a few lines."""
    from orbench.mitigation.terms import cost_text

    rows = ", ".join(f"{kind} {count:,}" for kind, count in trained.rows.items())
    lines = [f"{trained.method} of {trained.config['model']} in {trained.config['out']}", f"rows: {rows}"]
    if trained.dropped:
        lines.append("dropped: " + ", ".join(f"{reason} {count:,}" for reason, count in trained.dropped.items()))
    if trained.scores:
        head = ["step", "over-refusal", "toxic rejection", "at worst", "neither", ""]
        lines += [
            "",
            *columns(
                [
                    head,
                    *(
                        [
                            str(score.step),
                            percent(score.over_refusal),
                            percent(score.toxic_rejection),
                            f"{100 * score.toxic_change_low:+.1f}",
                            percent(score.neither),
                            "taken" if score.step == trained.taken else score.reason,
                        ]
                        for score in trained.scores
                    ),
                ]
            ),
        ]
    lines += trained.notes
    if trained.cost_usd:
        lines.append(f"Cost: {cost_text(trained.cost_usd)}.")
    return "\n".join(lines)
