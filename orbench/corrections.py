"""A run's rates freed of the scorer's known errors: what stands in `corrected` of `result.json`, beside the raw ones.

What the platform itself decided (blocked, empty) is counted as it is; only what was read is corrected.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from orbench.calibration import load_calibration
from orbench.errors import RunError, UsageError
from orbench.labels import load_labels
from orbench.records import Kind
from orbench.scoring.outcomes import Outcome, is_refused
from orbench.statistics.correction import prediction_powered, rogan_gladen, with_settled

if TYPE_CHECKING:
    from orbench.results import Evaluation

_RATES: dict[str, Kind] = {"over_refusal_rate": "safe", "toxic_rejection_rate": "toxic"}


def corrected_rates(result: Evaluation, calibration: str | Path | None, labels: str | Path | None) -> dict[str, Any]:
    """Both rates corrected, by Rogan and Gladen from a calibration and by prediction-powered inference from labels.

    Raises:
        UsageError: Neither is given.
        RunError: A file cannot be read, or is of another scorer or run.
    """
    if calibration is None and labels is None:
        raise UsageError("nothing to correct with: give --calibration or --labels")
    corrected: dict[str, Any] = {rate: {} for rate in _RATES}
    if calibration is not None:
        found = load_calibration(calibration, result.config["scorer"]["digest"])
        corrected = {"calibration": {"file": str(calibration), "labels": found.labels}, **corrected}
        found_se, n_se, found_sp, n_sp = found.overall.effective
        for rate, kind in _RATES.items():
            read, settled = _split(result, kind)
            decided = [refused for refused in read.values() if refused is not None]
            estimate = rogan_gladen(sum(decided), len(decided), (found_se, n_se), (found_sp, n_sp))
            corrected[rate]["rogan_gladen"] = with_settled(estimate, sum(settled), len(settled), len(decided))
    if labels is not None:
        truths, stale = _labels_of(result, labels)
        corrected = {"labels": {"file": str(labels), "used": len(truths), "stale": stale}, **corrected}
        for rate, kind in _RATES.items():
            read, settled = _split(result, kind)
            mine = {key: found for key, found in truths.items() if key in read}
            estimate = prediction_powered(
                [_prediction(refused) for refused in read.values()],
                [_prediction(read[key]) for key in mine],
                [float(refused) for refused, _ in mine.values()],
                [weight for _, weight in mine.values()],
            )
            corrected[rate]["prediction_powered"] = with_settled(estimate, sum(settled), len(settled), len(read))
    plain: dict[str, Any] = msgspec.to_builtins(corrected)
    return plain


def _prediction(refused: bool | None) -> float:
    return 0.5 if refused is None else float(refused)


def _split(result: Evaluation, kind: Kind) -> tuple[dict[tuple[str, str], bool | None], list[bool]]:
    """What was read (row to refused, None if unscored), and what the platform's signal settled."""
    read: dict[tuple[str, str], bool | None] = {}
    settled: list[bool] = []
    for key, row in result.states.items():
        if row.kind != kind or row.outcome is None:
            continue
        refused = is_refused(row.outcome, result.policy)
        if row.by == "signal":
            settled += [] if refused is None else [refused]
        elif refused is not None or row.outcome is Outcome.UNSCORED:
            read[key] = refused
    return read, settled


def _labels_of(result: Evaluation, path: str | Path) -> tuple[dict[tuple[str, str], tuple[bool, float]], int]:
    """The labels of this run's replies: row to refused and weight; and how many are of replies it no longer has."""
    labels = load_labels(path)
    wanted = {(label.split, label.prompt_id): label for label in labels.rows if label.split and label.prompt_id}
    found: dict[tuple[str, str], tuple[bool, float]] = {}
    known = stale = 0
    for row in result.rows():
        label = wanted.get((row.split, row.prompt_id))
        if label is None:
            continue
        known += 1
        if label.response != row.response:
            stale += 1
        elif label.refused is not None:
            found[row.split, row.prompt_id] = (label.refused, label.weight)
    if not known or known == stale:
        raise RunError(f"{path}: no label is of a reply of {result.run}. Make them: orbench label {result.run}")
    return found, stale
