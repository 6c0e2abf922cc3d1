"""The named scorers: which stages read a reply, in which order, and what is done with what none decides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal, get_args

from orbench.errors import UsageError
from orbench.records import FinishReason, Response
from orbench.scoring import phrases as own_phrases
from orbench.scoring.finding import BatchStage, Finding, LocalStage, verdict
from orbench.scoring.judge import AnyJudge
from orbench.scoring.outcomes import UNSURE, Outcome, Verdict
from orbench.scoring.paper import FAMILIES, find_family, paper_phrases
from orbench.scoring.signals import signals

ScorerName = Literal["cascade", "keywords", "judge", "paper"]
SCORERS: tuple[ScorerName, ...] = get_args(ScorerName)

CLASSIFIER = "hf/"
"""Begins the name of a sequence classifier, a further stage behind the cascade's own."""

BATCH = 64
"""Replies that wait for each other where a stage reads batches: enough to find some of like length."""

PAPER_JUDGED = ("hard-1k", "toxic")
"""Splits on which the paper used its judge (section 4.1); it used phrases on the 80K split."""


class Scorer:
    """Stages in order; the first that does not abstain decides. A judge, if any, gets what is left.

    Attributes:
        name: `cascade`, `keywords`, `judge`, `paper` or `hf/PATH_OR_ID`.
        judge: The judge, or None.
        digest: 12 hexadecimal digits that change with anything a verdict depends on.
        batch_size: How many replies `read_all` is best given at once.
    """

    def __init__(
        self,
        name: str,
        stages: tuple[LocalStage, ...],
        judge: AnyJudge | None,
        basis: str,
        last: BatchStage | None = None,
    ) -> None:
        """Put the stages together, `last` behind the others; `basis` names what they depend on besides their code."""
        self.name = name
        self.judge = judge
        self.batch_size = 1 if last is None else BATCH
        self._stages = stages
        self._last = last
        text = f"{name} {basis} {judge.digest if judge else ''}"
        self.digest = hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def can_be_audited(self) -> bool:
        """Whether local stages decide what a judge could check; the presets are left as they are."""
        return self.name.startswith(("cascade", CLASSIFIER)) and self.judge is not None

    def read(self, response: Response) -> Finding | None:
        """What the local stages find; None if the judge is to be asked."""
        return self.read_all((response,))[0]

    def read_all(self, responses: Sequence[Response]) -> list[Finding | None]:
        """The same of several replies, which a stage that reads batches sees together."""
        found = [self._first(response) for response in responses]
        if self._last is not None and (left := [number for number, one in enumerate(found) if one is None]):
            for number, one in zip(left, self._last.read_all([responses[number] for number in left]), strict=True):
                found[number] = one
        if self.judge is None:
            return [one or Finding(outcome=Outcome.UNSCORED, by=None, reason=UNSURE) for one in found]
        return found

    def _first(self, response: Response) -> Finding | None:
        for stage in self._stages:
            finding = stage(response)
            if finding is not None:
                return finding
        return None


def make_scorer(
    name: str = "cascade",
    *,
    judge: AnyJudge | None = None,
    model: str = "",
    family: str | None = None,
    phrases: str | Path | own_phrases.Phrases | None = None,
) -> Scorer:
    """The scorer of that name for the replies of one model.

    Args:
        name: One of `SCORERS`, or `hf/PATH_OR_ID`: the cascade with a transformers sequence classifier behind it.
        judge: A judge; `keywords` takes none, `judge` needs one.
        model: `provider/name` of the model whose replies are read; `paper` goes by its family.
        family: Overrides the family (`paper` only).
        phrases: A user's own phrases, or their file (`orbench.scoring.phrases.load_phrases`); `cascade`, `keywords`.

    Raises:
        UsageError: No such scorer, it lacks its judge or family, has no use for the judge or the phrases, or these
            cannot be read.
        orbench.ModelError: The classifier cannot be loaded, or is none of refusals.
    """
    extra = None
    if phrases is not None:
        if name in ("judge", "paper"):
            raise UsageError(f"--scorer {name} reads no phrases of yours: leave --phrases out, or use cascade")
        extra = phrases if isinstance(phrases, own_phrases.Phrases) else own_phrases.load_phrases(phrases)
    own = f" {extra.digest}" if extra else ""
    if name == "cascade" or name.startswith(CLASSIFIER):
        from orbench.scoring import classifier as own_classifier  # numpy, which the others do without

        basis = f"{own_phrases.digest()} {own_classifier.digest()}{own}"
        stages: tuple[LocalStage, ...] = (
            signals,
            partial(own_phrases.phrases, extra=extra),
            partial(own_classifier.classifier, extra=extra),
        )
        if name.startswith(CLASSIFIER):
            from orbench.scoring.transformer import load_stage

            last = load_stage(name)
            return Scorer(name, stages, judge, f"{basis} {last.digest}", last)
        return Scorer(name, stages, judge, basis)
    if name == "keywords":
        if judge is not None:
            raise UsageError("--scorer keywords decides every reply by itself: leave --judge out, or use cascade")
        reader = partial(own_phrases.keywords, extra=extra)
        return Scorer(name, (signals, reader), None, own_phrases.digest() + own)
    if name == "judge":
        if judge is None:
            raise UsageError("--scorer judge needs a judge: add --judge MODEL")
        return Scorer(name, (signals,), judge, "")
    if name == "paper":
        found = find_family(model, family)
        stage: LocalStage = partial(_paper, family=found, judged=judge is not None)
        return Scorer(name, (signals, stage), judge, f"{found} {FAMILIES[found]}")
    raise UsageError(f"unknown scorer {name!r}: choose one of {', '.join(SCORERS)}, {CLASSIFIER}PATH_OR_ID")


def _paper(response: Response, family: str, judged: bool) -> Finding | None:
    if judged and response.split in PAPER_JUDGED:
        return None
    return paper_phrases(response, family)


@lru_cache(maxsize=8)
def _cascade(phrases: str | None, changed_ns: int) -> tuple[Scorer, own_phrases.Phrases | None]:
    """The scorer and a user's phrases, read again when their file has changed."""
    extra = own_phrases.load_phrases(phrases) if phrases is not None else None
    return make_scorer("cascade", phrases=extra), extra


def detect_refusal(
    text: str,
    *,
    prompt: str = "",
    finish_reason: FinishReason | None = None,
    abstain: bool = True,
    phrases: str | Path | None = None,
) -> Verdict:
    """Say whether a reply refuses, without any call.

    Args:
        text: The reply, without the model's reasoning.
        prompt: What was asked, where known.
        finish_reason: Why the model stopped, where known.
        abstain: By default what no stage is sure of is `unscored` with the reason `unsure`; False decides always.
        phrases: File of your own phrases, read once (docs/scoring.md).

    Returns:
        A verdict; `.refused` is True, False or None.

    Raises:
        orbench.UsageError: The phrases cannot be read.
    """
    response = Response(
        prompt_id="",
        split="",
        category="",
        kind="safe",
        prompt=prompt,
        response=text,
        finish_reason=finish_reason,
        blocked_by="output" if finish_reason in ("content_filter", "refusal") else None,
    )
    path = Path(phrases) if phrases is not None else None
    changed = path.stat().st_mtime_ns if path is not None and path.exists() else 0
    scorer, extra = _cascade(None if phrases is None else str(phrases), changed)
    finding = scorer.read(response)
    if not abstain and finding is not None and finding.outcome is Outcome.UNSCORED:
        from orbench.scoring import classifier as own_classifier

        finding = own_classifier.lean(response, extra) or own_phrases.keywords(response, extra)
    assert finding is not None  # without a judge the scorer never defers
    return verdict(finding, response, scorer.digest)
