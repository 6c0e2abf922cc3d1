"""Where a run's replies were read by several scorers or judges: how far they agree."""

from __future__ import annotations

import itertools

import msgspec

from orbench.engine.run_folder import read_verdicts
from orbench.results import Evaluation
from orbench.run_state import Key
from orbench.scoring.outcomes import Outcome, is_refused
from orbench.scoring.scorers import make_scorer
from orbench.statistics.agreement import Agreement


class Reading(msgspec.Struct, frozen=True):
    """Two scorers of one run."""

    first: str
    second: str
    agreement: Agreement
    undecided: int
    """Replies with a verdict of each that one or both left out."""


def readings(result: Evaluation) -> list[Reading]:
    """Every pair of scorers with verdicts in `verdicts.jsonl`, the run's present scorer first."""
    found: dict[str, dict[Key, bool | None]] = {}
    judges: dict[str, str] = {}
    for verdict in read_verdicts(result.run):
        row = result.states.get(verdict.key)
        if row is None or row.failed or verdict.outcome is Outcome.ERROR:
            continue
        found.setdefault(verdict.scorer, {})[verdict.key] = is_refused(verdict.outcome, result.policy)
        if verdict.judge is not None:
            judges[verdict.scorer] = verdict.judge.model
    present = result.config["scorer"]["digest"]
    scorers = sorted(found, key=lambda digest: (digest != present, -len(found[digest]), digest))
    names = {digest: _name(result, digest, judges.get(digest)) for digest in scorers}
    pairs = []
    for one, other in itertools.combinations(scorers, 2):
        cells, undecided = [0, 0, 0, 0], 0
        for key, first in found[one].items():
            if key not in found[other]:
                continue
            second = found[other][key]
            if first is None or second is None:
                undecided += 1
            else:
                cells[(0 if second else 1) if first else (2 if second else 3)] += 1
        agreement = Agreement(both_refused=cells[0], only_first=cells[1], only_second=cells[2], neither=cells[3])
        if agreement.replies or undecided:
            pairs.append(Reading(names[one], names[other], agreement, undecided))
    return pairs


def _name(result: Evaluation, digest: str, judge: str | None) -> str:
    scorer = result.config["scorer"]
    known = {make_scorer(name).digest: name for name in ("cascade", "keywords")}
    name = scorer["name"] if digest == scorer["digest"] else known.get(digest, "scorer")
    judge = scorer["judge"] if digest == scorer["digest"] else judge
    return f"{name}{f' with judge {judge}' if judge else ''} ({digest[:6] or 'no digest'})"
