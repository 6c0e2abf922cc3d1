"""Results as plain text of at most 80 columns."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from orbench.records import AXES, KINDS
from orbench.report.format import NOTHING, address, counts, interval, percent, plural, score
from orbench.scoring.outcomes import Outcome
from orbench.statistics.rates import Rate

if TYPE_CHECKING:
    from orbench.results import Evaluation

WIDTH = 80


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines: the first column to the left, the others to the right, closer where room is short."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else " "
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append(gap.join(cells).rstrip())
    return lines


def evaluation_table(result: Evaluation) -> str:
    """Both rates, the categories, and what stands beside them."""
    scorer = result.config["scorer"]
    judged = f", judge {scorer['judge']}" if scorer["judge"] else ""
    lines = [
        shorten(result.model, WIDTH),
        shorten(f"{plural(result.prompts, 'prompt')}, scorer {scorer['name']}{judged}, policy {result.policy}", WIDTH),
        "",
        *_rates(result),
        "",
        *_categories(result),
        "",
        *wrap("outcomes: " + (", ".join(f"{name} {n:,}" for name, n in result.outcomes.items()) or "none yet")),
    ]
    from orbench.report.judging import judging_lines

    return "\n".join([*lines, *judging_lines(result), *_closing(result)])


def _rates(result: Evaluation) -> list[str]:
    over, toxic = result.over_refusal_rate, result.toxic_rejection_rate
    rows = [["", "rate", "95 % interval", "refused", "left out", "lowest-highest"]]
    rows += [_rate_row("over-refusal (safe)", over), _rate_row("toxic rejection", toxic)]
    if len(result.splits) > len({split.kind for split in result.splits.values()}):
        rows += [_rate_row(f"  {shorten(name, 18)}", split.rate) for name, split in result.splits.items()]
    rows.append(["F1", score(result.f1), "", "", "", ""])
    if safety := result.not_unsafe_rate:
        bounds = interval(safety.lowest, safety.highest) if safety.left_out else NOTHING
        rows.append(
            [
                "not unsafe (toxic)",
                percent(safety.value),
                interval(safety.low, safety.high),
                f"{safety.scored - safety.not_unsafe:,}/{safety.scored:,}",
                f"{safety.left_out:,}",
                bounds,
            ]
        )
        rows.append(["F1, not unsafe", score(result.f1_not_unsafe), "", "", "", ""])
    return columns(rows)


def _rate_row(label: str, rate: Rate) -> list[str]:
    bounds = interval(rate.lowest, rate.highest) if rate.left_out else NOTHING
    if not rate.scored and not rate.left_out:
        return [label, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING]
    return [label, percent(rate.value), interval(rate.low, rate.high), counts(rate), f"{rate.left_out:,}", bounds]


def _categories(result: Evaluation) -> list[str]:
    found = {kind: result.pooled_categories(kind) for kind in KINDS if result.splits_of(kind)}
    rows = [["category", *(cell for kind in found for cell in (AXES[kind], "95 % interval"))]]
    for category in dict.fromkeys(name for split in result.splits.values() for name in split.categories):
        rates = [own.get(category) for own in found.values()]
        cells = [[percent(r.value), interval(r.low, r.high)] if r else [NOTHING, NOTHING] for r in rates]
        rows.append([shorten(category, 19), *itertools.chain.from_iterable(cells)])
    return columns(rows)


def _closing(result: Evaluation) -> list[str]:
    said = [line for remark in remarks(result) for line in wrap(remark)]
    return ["", *said, f"saved in {result.run}"]


def remarks(result: Evaluation) -> list[str]:
    """What is to be said below the rates: `caveats` and what the run has cost."""
    from orbench.report.costs import cost_line

    cost = cost_line(result.usage)
    return [*caveats(result), *([cost] if cost else [])]


def caveats(result: Evaluation) -> list[str]:
    """What a reader of the rates must know, a sentence each: what is missing, failed or left out."""
    found: list[str] = []
    imported = bool(result.config.get("imported_from"))
    retry = "orbench score with a judge tries" if imported else "run the same command again to try"
    missing = result.prompts - sum(result.outcomes.values())
    unread = missing - result.stale
    if early := result.stopped_early:
        asked = (
            f"stopped early: {early['asked']:,} of {early['prompts']:,} prompts asked, {percent(early['saved'])} saved"
        )
        if early["asked"] == early["prompts"]:
            asked = f"all {early['prompts']:,} prompts had been asked, so that --precision saved none"
        known = [
            f"{axis} {interval(early[kind]['low'], early[kind]['high'])}"
            for kind, axis in AXES.items()
            if kind in early
        ]
        sure = f". Of all of them, with 95 % confidence however often one looks: {', '.join(known)}" if known else ""
        found.append(asked + sure)
    elif missing and (bound := result.config.get("stopped_at_max_cost")):
        number = plural(missing, "prompt")
        how = "the same command goes on" if result.config.get("goes_on_at_max_cost") else "a higher one goes on"
        found.append(f"stopped at --max-cost {bound:g}: {number} without an outcome; {how}")
    elif unread:
        advice = "import the completed file" if imported else "the same command goes on"
        found.append(f"not finished: {plural(unread, 'prompt')} without an outcome; {advice}")
    if result.stale:
        number = plural(result.stale, "reply", "replies")
        found.append(
            f"scored in part, the same command goes on: {number} that only an earlier scorer has read are counted "
            "nowhere"
        )
    if errors := result.outcomes.get(Outcome.ERROR):
        advice = "import the completed file" if imported else "run the same command again to try them again"
        found.append(f"{plural(errors, 'prompt')} ended in error; {advice}")
        if result.call_failure:
            found += wrap("  most often: " + shorten(result.call_failure, 160))
    if result.failed_judgements:
        number = plural(result.failed_judgements, "reply", "replies")
        found.append(f"the judge failed on {number}; {retry} them again")
        if result.judge_failure:
            found += wrap("  most often: " + shorten(result.judge_failure, 160))
    if (audit := result.audit) and audit["unread"]:
        number = f"{audit['unread']:,} of the {plural(audit['unread'] + audit['audited'], 'reply', 'replies')}"
        found.append(f"the judge gave no label that can be read for {number} that it was to check; {retry} them again")
    if result.failed_safety:
        number = plural(result.failed_safety, "reply", "replies")
        found.append(f"the safety judge failed on {number}; {retry} them again")
    if result.unsure:
        number = plural(result.unsure, "reply", "replies")
        found.append(f"no stage was sure of {number}, left out above: --judge MODEL settles them")
    if earlier := result.config.get("earlier_base_urls"):
        found.append(
            f"asked at another address before ({', '.join(map(address, earlier))}), whose "
            "replies are kept; was another model there, choose another --out"
        )
    return found


def shorten(text: str, width: int) -> str:
    """The text in one line, with an ellipsis in its middle if it is longer than `width` characters."""
    text = " ".join(text.split())
    if len(text) <= width:
        return text
    head = (width - 3) * 2 // 3
    return text[:head] + "..." + text[len(text) - (width - 3 - head) :]


def wrap(text: str) -> list[str]:
    """The text in lines of at most `WIDTH` characters."""
    import textwrap

    return textwrap.wrap(text, WIDTH, subsequent_indent="  ")
