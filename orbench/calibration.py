"""A scorer or judge against labels by people: how often it is right on refusals and on answers.

What enters is a file of labels, what leaves is a `Calibration`, which says how far the scorer can be trusted and
can be saved to correct the rates of runs that were scored by the same scorer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import orbench
from orbench.engine.run_folder import write_json
from orbench.engine.threads import run_sync
from orbench.errors import RunError, UsageError
from orbench.labels import GROUPS, PARTIAL, Label, Labels, load_labels
from orbench.models import make_options
from orbench.models.base import Model
from orbench.records import Response
from orbench.scoring.finding import Finding, verdict
from orbench.scoring.judge import TEMPLATE
from orbench.scoring.outcomes import Verdict
from orbench.scoring.panel import open_judges
from orbench.scoring.scorers import PAPER_JUDGED, Scorer, make_scorer
from orbench.statistics.intervals import wilson

AnyModel = str | Callable[..., Any] | Model
Floats = np.ndarray[Any, np.dtype[np.float64]]
_DRAWS = 2000


class Measure(msgspec.Struct, frozen=True):
    """A number with its 95 % interval; all None where there is nothing to measure.

    An interval by bootstrap is None also where all draws are alike, as when a scorer made no error: it has no width.
    """

    value: float | None
    low: float | None
    high: float | None


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """How a scorer did on some labelled replies. Counts are of rows; measures use the rows' weights."""

    refusal: int
    """Rows that people labelled as refusals."""
    compliance: int
    found_refusal: int
    """Refusals that the scorer calls refusals."""
    missed_refusal: int
    """Refusals that it calls answers."""
    found_compliance: int
    missed_compliance: int
    """Answers that it calls refusals."""
    abstained_refusal: int
    """Refusals that it left undecided; no measure counts them."""
    abstained_compliance: int
    failed_refusal: int
    """Refusals on which the judge failed: not read, in no measure."""
    failed_compliance: int
    effective: tuple[float, float, float, float]
    """Effective numbers for a correction: refusals found, of how many; answers found, of how many."""
    decided: float | None
    """Share that the scorer decided of the rows that were read."""
    sensitivity: Measure
    """Refusals found of those decided; Wilson interval, as for the next two."""
    specificity: Measure
    accuracy: Measure
    f1: Measure
    """Of the refusals; interval by bootstrap, as for kappa: 2,000 draws of the table, seed 0, percentiles."""
    kappa: Measure
    """Agreement with the people beyond chance (Cohen)."""


class CalibratedScorer(msgspec.Struct, frozen=True):
    """Which scorer it was."""

    name: str
    digest: str
    judge: str | None = None


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """A scorer against labels."""

    orbench_version: str
    scorer: CalibratedScorer
    labels: str
    """The file."""
    fingerprint: str
    rows: int
    partial: int
    """Rows labelled as partly complying: reported apart, in no measure."""
    partial_refused: int
    """Of these, what the scorer calls refused."""
    partial_answered: int
    other: int
    """Rows with other labels, left out."""
    failed: int
    """Rows of any label on which the judge failed; calibrating again asks it again."""
    failure: str | None
    """The commonest reason of that."""
    overall: Group
    groups: dict[str, dict[str, Group]]
    """Column to value to measures: by source, category, language, where the file has them."""
    wrong: list[str]
    """Ids of the rows that went wrong, in the order of the file."""

    def save(self, path: str | Path) -> Path:
        """Write it as a file for `--calibration`.

        Raises:
            orbench.RunError: It cannot be written.
        """
        path = Path(path)
        write_json(path, self)
        return path

    def __str__(self) -> str:
        """The tables that the command prints."""
        from orbench.report.judging import calibration_table

        return calibration_table(self)


def load_calibration(path: str | Path, digest: str) -> Calibration:
    """Read a saved calibration.

    Args:
        path: The file.
        digest: Of the scorer that it is to correct.

    Raises:
        orbench.RunError: No such file, no calibration in it, or one of another scorer.
    """
    try:
        found = msgspec.json.decode(Path(path).read_bytes(), type=Calibration)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}. Make it: orbench calibrate --labels FILE") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: no calibration ({error}). Make it: orbench calibrate --labels FILE") from None
    if found.scorer.digest != digest:
        raise RunError(
            f"{path}: made for scorer {found.scorer.name} {found.scorer.digest}, but this one is {digest}. "
            "Calibrate with the same --scorer, --judge and version of orbench"
        )
    return found


def calibrate(
    labels: str | Path | Labels,
    scorer: str = "cascade",
    *,
    judge: AnyModel | Sequence[AnyModel] | None = None,
    judge_template: str = TEMPLATE,
    judge_rule: str = "majority",
    family: str | None = None,
    phrases: str | Path | None = None,
    base_url: str | None = None,
    model_options: Mapping[str, Any] | None = None,
) -> Calibration:
    """Measure a scorer against labels by people.

    Args:
        labels: A file as `orbench.labels` describes, or what was read of one.
        scorer: `cascade`, `keywords`, `judge` or `paper`.
        judge: Model that reads what the scorer leaves to it; several make a panel.
        judge_template: How it is asked.
        judge_rule: How a panel settles.
        family: Family of phrases for `paper`.
        phrases: File of your own phrases, for `cascade` and `keywords`.
        base_url: Address of the judge.
        model_options: As in `orbench.evaluate`.

    Raises:
        orbench.OrbenchError: Labels that cannot be read, or options that cannot be meant.
    """
    loaded = labels if isinstance(labels, Labels) else load_labels(labels)
    options = make_options(base_url, None, model_options)

    async def run() -> Calibration:
        reader = open_judges(judge, judge_template, judge_rule, lambda _: options)
        try:
            made = make_scorer(scorer, judge=reader, family=family, phrases=phrases)
            if scorer == "paper" and reader and not any(label.split in PAPER_JUDGED for label in loaded.rows):
                raise UsageError(
                    f"--scorer paper asks its judge on {' and '.join(PAPER_JUDGED)} alone, and no row of {loaded.path} "
                    "has one of these in a column split: leave --judge out, or measure it by --scorer judge"
                )
            return _calibration(loaded, made, await _read(loaded.rows, made))
        finally:
            for model in reader.models if reader else ():
                await model.close()

    return run_sync(run())


async def _read(labels: Sequence[Label], scorer: Scorer) -> list[Verdict]:
    found: dict[str, Verdict] = {}
    undecided: list[Response] = []

    async def receive(response: Response, finding: Finding) -> None:
        found[response.prompt_id] = verdict(finding, response, scorer.digest)

    for start in range(0, len(labels), scorer.batch_size):
        responses = [
            Response(
                prompt_id=str(number),
                split=label.split or "labels",
                category="",
                kind="safe",
                prompt=label.prompt,
                response=label.response,
            )
            for number, label in enumerate(labels[start : start + scorer.batch_size], start)
        ]
        for response, finding in zip(responses, scorer.read_all(responses), strict=True):
            if finding is None:
                undecided.append(response)
            else:
                await receive(response, finding)

    async def given() -> AsyncIterator[Response]:
        for response in undecided:
            yield response

    if undecided and scorer.judge is not None:
        await scorer.judge.judge(given(), receive)
    return [found[str(number)] for number in range(len(labels))]


def _calibration(labels: Labels, scorer: Scorer, found: Sequence[Verdict]) -> Calibration:
    rows = list(zip(labels.rows, found, strict=True))
    partial = [said.refused for label, said in rows if label.label == PARTIAL]
    failures = [said.reason or "no reason told" for said in found if said.judge_failed]
    groups = {}
    for column in GROUPS:
        values = dict.fromkeys(label.groups[column] for label in labels.rows if column in label.groups)
        if values:
            groups[column] = {v: _group([row for row in rows if row[0].groups.get(column) == v]) for v in values}
    return Calibration(
        orbench_version=orbench.__version__,
        scorer=CalibratedScorer(scorer.name, scorer.digest, scorer.judge.name if scorer.judge else None),
        labels=labels.path.name,
        fingerprint=labels.fingerprint,
        rows=len(rows),
        partial=len(partial),
        partial_refused=sum(refused is True for refused in partial),
        partial_answered=sum(refused is False for refused in partial),
        other=sum(label.refused is None and label.label != PARTIAL for label in labels.rows),
        failed=len(failures),
        failure=Counter(failures).most_common(1)[0][0] if failures else None,
        overall=_group(rows),
        groups=groups,
        wrong=[
            label.id
            for label, said in rows
            if None not in (said.refused, label.refused) and said.refused != label.refused
        ],
    )


def _group(rows: Sequence[tuple[Label, Verdict]]) -> Group:
    labelled = [(label, said) for label, said in rows if label.refused is not None]
    failed = Counter(label.refused for label, said in labelled if said.judge_failed)
    largest = max((label.weight for label, _ in labelled), default=1.0)  # divided by, that no sum overflows
    counted = [
        (label.refused, said.refused, label.weight / largest) for label, said in labelled if not said.judge_failed
    ]

    def count(truth: bool, said: bool | None) -> int:
        return sum(a is truth and b is said for a, b, _ in counted)

    cells = [[weight for a, b, weight in counted if (a, b) == pair] for pair in _CELLS]
    weighed = [sum(cell) for cell in cells]
    tp, fn, fp, tn = weighed
    n_refusal, n_answer = _effective(cells[0] + cells[1]), _effective(cells[2] + cells[3])
    decided = [weight for cell in cells for weight in cell]
    f1, kappa = _bootstrap(weighed, _effective(decided))
    total = sum(weight for _, _, weight in counted)
    return Group(
        refusal=sum(label.refused is True for label, _ in labelled),
        compliance=sum(label.refused is False for label, _ in labelled),
        found_refusal=count(True, True),
        missed_refusal=count(True, False),
        found_compliance=count(False, False),
        missed_compliance=count(False, True),
        abstained_refusal=count(True, None),
        abstained_compliance=count(False, None),
        failed_refusal=failed[True],
        failed_compliance=failed[False],
        effective=(_share(tp, tp + fn) * n_refusal, n_refusal, _share(tn, fp + tn) * n_answer, n_answer),
        decided=sum(weighed) / total if total else None,
        sensitivity=_measure(tp, tp + fn, n_refusal),
        specificity=_measure(tn, fp + tn, n_answer),
        accuracy=_measure(tp + tn, sum(weighed), _effective(decided)),
        f1=f1,
        kappa=kappa,
    )


_CELLS = ((True, True), (True, False), (False, True), (False, False))
"""Truth and verdict: found and missed refusals, false refusals, found answers."""


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _effective(weights: Sequence[float]) -> float:
    """How many equally weighted rows say as much (L. Kish, Survey Sampling, 1965, section 11.7)."""
    largest = max(weights, default=0.0)
    if not largest:
        return 0.0
    shares = [weight / largest for weight in weights]
    return sum(shares) ** 2 / sum(share * share for share in shares)


def _measure(part: float, whole: float, effective: float) -> Measure:
    if not whole:
        return Measure(None, None, None)
    share = min(1.0, part / whole)
    low, high = wilson(share * effective, effective)
    return Measure(share, low, high)


def _bootstrap(cells: Sequence[float], effective: float) -> tuple[Measure, Measure]:
    """F1 and kappa of a table of truth against verdict."""
    if not effective:
        return Measure(None, None, None), Measure(None, None, None)
    shares = np.asarray(cells) / sum(cells)
    size = max(1, round(effective))
    drawn = np.random.default_rng(0).multinomial(size, shares, size=_DRAWS) / size
    measures = []
    for measure in (_f1, _kappa):
        value = float(measure(shares[None, :])[0])
        spread = measure(drawn)
        low, high = np.nanpercentile(spread, [2.5, 97.5]) if not np.isnan(spread).all() else (np.nan, np.nan)
        if np.isnan(value):
            measures.append(Measure(None, None, None))
        elif low < high:
            measures.append(Measure(value, float(min(low, value)), float(max(high, value))))
        else:  # draws of a table in which nothing varies say nothing of what another sample would show
            measures.append(Measure(value, None, None))
    return measures[0], measures[1]


def _f1(tables: Floats) -> Floats:
    tp, fn, fp, _ = tables.T
    whole = 2 * tp + fn + fp
    share: Floats = np.divide(2 * tp, whole, out=np.full(len(tables), np.nan), where=whole > 0)
    return share


def _kappa(tables: Floats) -> Floats:
    tp, fn, fp, tn = tables.T
    chance = (tp + fn) * (tp + fp) + (fp + tn) * (fn + tn)
    rest = 1 - chance
    share: Floats = np.divide(tp + tn - chance, rest, out=np.full(len(tables), np.nan), where=rest > 1e-12)
    return share
