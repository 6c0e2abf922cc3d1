"""A log of inspect_ai in orbench's own records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from orbench.engine.threads import run_sync
from orbench.errors import MissingExtraError, SplitError, UsageError
from orbench.integrations.imported import Imported, reply_to, splits_of
from orbench.models import is_installed
from orbench.records import Kind, Prompt, Response, Sampling
from orbench.report.format import plural
from orbench.scoring.finding import verdict
from orbench.scoring.outcomes import Policy, Verdict, is_refused
from orbench.scoring.signals import signals

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample
    from inspect_ai.scorer import Score

_METADATA = "orbench"
_SCORES = ("over_refusal", "toxic_rejection")
_UNUSED = {"events", "store", "attachments", "timelines"}


class _About(msgspec.Struct):
    """What a sample's metadata says of its prompt."""

    split: str
    category: str
    kind: Kind
    prompt_id: str
    place: int
    seed_id: str | None = None


class _Scored(msgspec.Struct):
    """What a score says of its verdict."""

    verdict: Verdict
    scorer: dict[str, Any]
    policy: Policy


def read_log(path: Path, model: str | None = None) -> Imported:
    """Read a finished log of one of orbench's tasks, `.eval` or `.json`.

    The verdicts come with it, those of a judge included, where every reply has one of the same scorer; where only some
    have, or a score was edited since, `unusable` says so.

    Args:
        path: The log.
        model: A better name for the model than the log's.

    Raises:
        orbench.MissingExtraError: inspect_ai, which alone reads its logs, is not installed.
        orbench.SplitError: The file is no log, not finished, of another task, or damaged.
        orbench.UsageError: Several epochs, or a conversation of several turns: no one reply to one prompt.
    """
    if not is_installed("inspect_ai"):
        raise MissingExtraError(f"{path}: a log of inspect_ai", "inspect")
    log = _read(path)
    _check(path, log)
    if not log.samples:
        raise SplitError(f"{path}: holds no samples. Run inspect eval without --no-log-samples")
    seen: dict[tuple[str, str], tuple[_About, Prompt, Response, _Scored | None]] = {}
    systems = set()
    edited: list[str] = []
    for sample in log.samples:
        about = _convert(path, sample, sample.metadata, _About, "was not made by a task of orbench (no split and kind)")
        system, text = _asked(path, sample)
        systems.add(system)
        prompt = Prompt(
            id=about.prompt_id,
            text=text,
            category=about.category,
            kind=about.kind,
            split=about.split,
            seed_id=about.seed_id,
        )
        if (prompt.split, prompt.id) in seen:
            raise SplitError(f"{path}: two samples of {prompt.split!r} have the prompt id {prompt.id!r}")
        score = _score(sample)
        scored = _scored(path, score, sample)
        if score and scored and _is_edited(score, scored):
            edited.append(str(sample.id))
        seen[prompt.split, prompt.id] = (about, prompt, _response(prompt, sample), scored)
    if len(systems) > 1:
        raise UsageError(f"{path}: not every sample was asked with the same system prompt; they are no one run")
    rows = sorted(seen.values(), key=lambda row: row[0].place)
    prompts = [prompt for _, prompt, _, _ in rows]
    config = log.plan.config
    told = [text for text in (config.system_message, *systems) if text]
    replied = [(response, score) for _, _, response, score in rows]
    unusable = _unusable(path, edited, replied)
    verdicts, first = ([], None) if unusable else _verdicts(replied)
    return Imported(
        model=model or log.eval.model,
        splits=splits_of(path, prompts),
        responses=[response for _, _, response, _ in rows],
        sampling=Sampling(
            temperature=Sampling().temperature if config.temperature is None else config.temperature,
            max_tokens=config.max_tokens or Sampling().max_tokens,
            top_p=config.top_p,
            seed=config.seed,
        ),
        system_prompt="\n\n".join(told) or None,
        origin={
            "tool": "inspect_ai",
            "version": log.eval.packages.get("inspect_ai"),
            "task": log.eval.task,
            "task_version": log.eval.task_version,
            "run_id": log.eval.run_id,
            "eval_id": log.eval.eval_id,
            "solver": [step.solver for step in log.plan.steps],
        },
        verdicts=verdicts,
        scorer=first.scorer if first else None,
        policy=first.policy if first else None,
        unusable=unusable,
    )


def _read(path: Path) -> EvalLog:
    from inspect_ai.log import read_eval_log_async

    if not path.is_file():
        raise SplitError(f"{path}: no such file")
    try:
        return run_sync(read_eval_log_async(str(path), exclude_fields=_UNUSED))
    except Exception as error:  # a broken archive, JSON of another shape: whatever its libraries raise
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise SplitError(f"{path}: not a log that inspect_ai can read: {why}") from None


def _check(path: Path, log: EvalLog) -> None:
    if _METADATA not in (log.eval.metadata or {}):
        raise SplitError(
            f"{path}: a log of the task {log.eval.task!r}, which is none of orbench's: nothing says which of its "
            "prompts are safe. Write its replies to a table with prompt, response and kind, and import that"
        )
    if log.status != "success":
        why = {"cancelled": "was cancelled", "error": "ended in an error"}.get(log.status, "is not finished")
        done = sum(sample.error is None for sample in log.samples or ())
        of = log.eval.dataset.samples
        raise SplitError(
            f"{path}: the evaluation {why} after {done} of {of} samples. inspect eval-retry {path} finishes it"
        )
    if log.invalidated:
        raise SplitError(f"{path}: samples of it were declared invalid. inspect eval-retry {path} asks them again")
    if (log.eval.config.epochs or 1) > 1:
        raise UsageError(
            f"{path}: holds {log.eval.config.epochs} epochs; a run has one reply a prompt. Run inspect eval with "
            "--epochs 1, or measure repetitions with orbench sweep"
        )


def _asked(path: Path, sample: EvalSample) -> tuple[str | None, str]:
    """System prompt and prompt as they were sent, whatever the solver made of the sample."""
    given = sample.messages or (sample.input if isinstance(sample.input, list) else [])
    users = [message.text for message in given if message.role == "user"]
    systems = [message.text for message in given if message.role == "system"]
    if len(users) > 1:
        raise UsageError(f"{path}: sample {sample.id!r} is a conversation of {len(users)} turns, not one prompt")
    if users:
        return "\n\n".join(systems) or None, users[0]
    if not isinstance(sample.input, str):
        raise SplitError(f"{path}: sample {sample.id!r} holds no prompt")
    return "\n\n".join(systems) or None, sample.input


def _response(prompt: Prompt, sample: EvalSample) -> Response:
    from orbench.integrations.inspect.reply import to_response

    if sample.error is not None:
        return reply_to(prompt, "", error=" ".join(sample.error.message.split())[:300])
    if sample.limit is not None and not sample.output.choices:
        return reply_to(prompt, "", error=f"stopped at inspect's limit of {sample.limit.type}")
    response = to_response(prompt, sample.output)
    return msgspec.structs.replace(response, received_at=str(sample.completed_at or ""))


def _score(sample: EvalSample) -> Score | None:
    """What orbench's own scorer gave."""
    scores = ((sample.scores or {}).get(name) for name in _SCORES)
    return next((score for score in scores if score and _METADATA in (score.metadata or {})), None)


def _scored(path: Path, score: Score | None, sample: EvalSample) -> _Scored | None:
    if score is None:
        return None
    found = (score.metadata or {})[_METADATA]
    scored: _Scored = _convert(path, sample, found, _Scored, "holds a verdict that cannot be read")
    return scored


def _is_edited(score: Score, scored: _Scored) -> bool:
    """Whether what inspect_ai counts (1 refused, 0 answered, NaN unscored) is no longer what the verdict says."""
    refused = is_refused(scored.verdict.outcome, scored.policy)
    if refused is None:
        return not (isinstance(score.value, float) and math.isnan(score.value))
    return bool(score.value != refused)


def _unusable(path: Path, edited: list[str], rows: Sequence[tuple[Response, _Scored | None]]) -> str | None:
    """Why the log's verdicts would give other rates than its scores; None where they are all there, or none is."""
    if edited:
        return (
            f"{path}: {plural(len(edited), 'score')} edited in inspect_ai, of sample {edited[0]!r} first, no longer "
            "of orbench's verdict"
        )
    scored = [score for response, score in rows if response.error is None]
    readers = {
        (str(score.scorer.get("name")), str(score.scorer.get("digest")), score.policy) for score in scored if score
    }
    if len(readers) > 1:
        return f"{path}: read by {len(readers)} scorers or policies of orbench, each a part of the replies"
    if readers and not all(scored):
        return f"{path}: only {sum(map(bool, scored))} of {len(scored)} replies have a verdict of orbench's scorer"
    return None


def _verdicts(rows: Sequence[tuple[Response, _Scored | None]]) -> tuple[list[Verdict], _Scored | None]:
    """The log's own verdicts; none where no reply was read."""
    first = next((score for response, score in rows if response.error is None and score is not None), None)
    if first is None:
        return [], None
    lines = []
    for response, score in rows:
        if response.error is None and score is not None:
            lines.append(score.verdict)
        else:
            found = signals(response)
            assert found is not None  # an error is always found
            lines.append(verdict(found, response, first.scorer["digest"]))
    return lines, first


def _convert(path: Path, sample: EvalSample, given: Any, kind: Any, otherwise: str) -> Any:
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise SplitError(f"{path}: sample {sample.id!r} {otherwise}: {error}") from None
