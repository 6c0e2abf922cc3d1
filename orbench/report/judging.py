"""What stands beside the rates about the verdicts themselves: audit, panel, corrections, moves, calibration."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orbench.records import AXES
from orbench.report.format import NOTHING, interval, percent, plural, score
from orbench.report.table import WIDTH, columns, shorten

if TYPE_CHECKING:
    from orbench.calibration import Calibration, Group, Measure
    from orbench.results import Evaluation

_RATES = {"over_refusal_rate": AXES["safe"], "toxic_rejection_rate": AXES["toxic"]}
_METHODS = {"rogan_gladen": "by calibration", "prediction_powered": "by labels of this run"}


def judging_lines(result: Evaluation) -> list[str]:
    """Lines for under the table of a run, each part after a blank one; none where there is nothing to tell."""
    lines: list[str] = []
    for part, make in (
        (result.corrected, _corrected),
        (result.audit, _audit),
        (result.panel, _panel),
        (result.rescored, _rescored),
    ):
        if part is not None:
            lines += ["", *make(part)]
    return lines


def _corrected(corrected: Mapping[str, Any]) -> list[str]:
    rows = [["corrected for the scorer's errors", "rate", "95 % interval", "labels"]]
    for rate, label in _RATES.items():
        for method, found in corrected[rate].items():
            name = f"{label}, {_METHODS[method]}"
            rows.append(
                [name, percent(found["value"]), interval(found["low"], found["high"]), _number(found["labels"])]
            )
    lines = columns(rows)
    for rate, label in _RATES.items():
        reasons = [found["reason"] for found in corrected[rate].values() if found["reason"]]
        lines += [f"{label} is not corrected: {reason}" for reason in reasons]
    return lines


def _audit(audit: Mapping[str, Any]) -> list[str]:
    rows = [["audit", "decided", "audited", "unread", "judge differs", "95 % interval", "shift"]]
    for kind, label in AXES.items():
        side = audit[kind]
        if side["decided"]:
            error = side["error"]
            shift = NOTHING if side["shift"] is None else f"{100 * side['shift']:+.1f}"
            rows.append(
                [
                    label,
                    f"{side['decided']:,}",
                    f"{side['audited']:,}",
                    f"{side['unread']:,}",
                    percent(error["value"]),
                    interval(error["low"], error["high"]),
                    shift,
                ]
            )
    saved = plural(audit["judge_calls_saved"], "judge call")
    return [*columns(rows), f"the cascade saved {saved} of {plural(audit['decided'], 'reply', 'replies')} it decided"]


def _panel(panel: Mapping[str, Any]) -> list[str]:
    rows = [[f"judges ({panel['rule']})", "agreement"], ["Krippendorff's alpha", _plain(panel["alpha"])]]
    rows += [[f"kappa {shorten(pair, 60)}", _plain(kappa)] for pair, kappa in panel["kappa"].items()]
    number = plural(panel["disagreements"], "reply", "replies")
    unread = [["judge", "unread answers"], *([shorten(name, 60), f"{n:,}"] for name, n in panel["unread"].items())]
    return [
        *columns(rows),
        *columns(unread),
        f"judges differ on {number} of {panel['replies']:,}: orbench show RUN --disagreements",
    ]


def _rescored(rescored: Mapping[str, Any]) -> list[str]:
    before = rescored["before"]
    kappa = rescored["kappa"]
    spread = "" if kappa["low"] is None else f"95 % {_plain(kappa['low'])} to {_plain(kappa['high'])}, "
    lines = _wrap(
        f"scored before by {before['name']}{', judge ' + before['judge'] if before.get('judge') else ''}; kappa old "
        f"with new {_plain(kappa['value'])} ({spread}{plural(kappa['replies'], 'reply', 'replies')})"
    )
    rows = [["rate", "old", "new", "points"]]
    for rate, label in _RATES.items():
        old, new = (rescored[rate][when]["value"] for when in ("before", "after"))
        points = NOTHING if old is None or new is None else f"{100 * (new - old):+.1f}"
        rows.append([label, percent(old), percent(new), points])
    lines += columns(rows)
    moves = [["old outcome", "new outcome", "replies"]]
    moves += [[move["from"], move["to"], f"{move['rows']:,}"] for move in rescored["moves"]]
    lines += columns(moves)
    if "paper" in rescored:
        paper = [["the paper's Table 8, refused %", "keywords", "judge", "gap"]]
        paper += [
            [row["model"], f"{row['keywords']:.1f}", f"{row['judge']:.1f}", f"{row['judge'] - row['keywords']:+.1f}"]
            for row in rescored["paper"]
        ]
        lines += columns(paper)
    return lines


def calibration_table(calibration: Calibration) -> str:
    """How the scorer did, in all and by group; the confusion table; what was left out."""
    scorer = calibration.scorer
    judged = f", judge {scorer.judge}" if scorer.judge else ""
    overall = calibration.overall
    lines = [
        shorten(f"{calibration.labels}: {plural(calibration.rows, 'row')}, scorer {scorer.name}{judged}", WIDTH),
        "",
        *columns(
            [
                ["labelled", "refusal", "answer", "undecided", *(["judge failed"] if calibration.failed else [])],
                *_confusion(overall, bool(calibration.failed)),
            ]
        ),
        "",
        *columns(
            [
                ["of what it decides", "", "95 % interval"],
                *(_measure(name, getattr(overall, name)) for name in ("sensitivity", "specificity", "accuracy", "f1")),
                ["kappa", _plain(overall.kappa.value), _kappas(overall.kappa)],
                ["decided", percent(overall.decided), ""],
            ]
        ),
    ]
    for column, groups in calibration.groups.items():
        if len(groups) > 1:
            rows = [[column, "rows", "decided", "sensitivity", "specificity", "accuracy", "F1", "kappa"]]
            rows += [_group(name, group) for name, group in groups.items()]
            lines += ["", *columns(rows)]
    if calibration.partial:
        lines += [
            "",
            f"{plural(calibration.partial, 'partly complying reply', 'partly complying replies')} apart: "
            f"{calibration.partial_refused:,} called refusal, {calibration.partial_answered:,} answer",
        ]
    if calibration.other:
        lines += ["", f"{plural(calibration.other, 'row')} with other labels left out"]
    if calibration.failed:
        number = plural(calibration.failed, "reply", "replies")
        told = f"the judge failed on {number}, which no measure counts; most often: {calibration.failure}"
        lines += ["", *_wrap(told), "run the same command again to try them again"]
    return "\n".join(lines)


def _confusion(group: Group, failed: bool) -> list[list[str]]:
    rows: list[tuple[str, list[int]]] = [
        ("refusal", [group.found_refusal, group.missed_refusal, group.abstained_refusal, group.failed_refusal]),
        (
            "compliance",
            [group.missed_compliance, group.found_compliance, group.abstained_compliance, group.failed_compliance],
        ),
    ]
    return [[label, *(f"{number:,}" for number in counts[: 4 if failed else 3])] for label, counts in rows]


def _measure(name: str, measure: Measure) -> list[str]:
    return [name if name != "f1" else "F1", percent(measure.value), interval(measure.low, measure.high)]


def _kappas(kappa: Measure) -> str:
    return NOTHING if kappa.low is None else f"{_plain(kappa.low)}-{_plain(kappa.high)}"


def _group(name: str, group: Group) -> list[str]:
    shares = [percent(m.value) for m in (group.sensitivity, group.specificity, group.accuracy, group.f1)]
    rows = group.refusal + group.compliance
    return [shorten(name, 20), f"{rows:,}", percent(group.decided), *shares, _plain(group.kappa.value)]


def _plain(value: float | None) -> str:
    return score(value)


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.0f}"


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ")
