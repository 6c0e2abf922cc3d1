"""Old verdicts against new ones of the same run, when it was scored again."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from orbench.scoring.outcomes import is_refused
from orbench.statistics.agreement import Agreement

if TYPE_CHECKING:
    from orbench.results import Evaluation

_TABLE_8 = Path(__file__).with_name("published") / "keywords-vs-judge.csv"


def compare_verdicts(old: Evaluation, new: Evaluation) -> dict[str, Any] | None:
    """What changed, for `rescored` of `result.json`; None where the scorer is the same, or has not read all yet.

    `moves` counts (old outcome, new outcome), unchanged ones included; `kappa` is Cohen's with the interval of Fleiss,
    Cohen and Everitt over replies that both decided; `paper` holds Table 8's refused shares (percent) by keywords and
    by judge, where the scorers are of these two sorts.
    """
    before, after = old.config["scorer"], new.config["scorer"]
    if before["digest"] == after["digest"] or new.stale:
        return None
    moves: Counter[tuple[str, str]] = Counter()
    votes: Counter[tuple[bool | None, bool | None]] = Counter()
    for key, row in new.states.items():
        earlier = old.states.get(key)
        if earlier is None or earlier.outcome is None or row.outcome is None:
            continue
        moves[earlier.outcome.value, row.outcome.value] += 1
        votes[is_refused(earlier.outcome, new.policy), is_refused(row.outcome, new.policy)] += 1
    agreement = Agreement(
        both_refused=votes[True, True],
        only_first=votes[True, False],
        only_second=votes[False, True],
        neither=votes[False, False],
    )
    low, high = agreement.kappa_interval or (None, None)
    result: dict[str, Any] = {
        "before": before,
        "moves": [{"from": a, "to": b, "rows": n} for (a, b), n in sorted(moves.items(), key=lambda m: (-m[1], m[0]))],
        "kappa": {"value": agreement.kappa, "low": low, "high": high, "replies": agreement.replies},
        "over_refusal_rate": {"before": old.over_refusal_rate, "after": new.over_refusal_rate},
        "toxic_rejection_rate": {"before": old.toxic_rejection_rate, "after": new.toxic_rejection_rate},
    }
    if {before["name"], after["name"]} == {"keywords", "judge"}:
        result["paper"] = published_gaps()
    plain: dict[str, Any] = msgspec.to_builtins(result)
    return plain


def published_gaps() -> list[dict[str, Any]]:
    """Table 8 of the paper: refused percent of the same replies by keywords and by its judge."""
    with _TABLE_8.open(encoding="utf-8", newline="") as file:
        return [
            {"model": row["model"], "keywords": float(row["keywords"]), "judge": float(row["judge"])}
            for row in csv.DictReader(file)
        ]
