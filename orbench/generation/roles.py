"""What each role is asked, and what its reply means: a request in, a line for a file out."""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec

from orbench import templates
from orbench.engine.calls import CallResult
from orbench.engine.jsonl import without_surrogates
from orbench.generation.config import GenerationConfig
from orbench.generation.formats import NONE, read_items, read_label, reason
from orbench.generation.personal_data import scrub
from orbench.generation.records import Call, CallOutcome, Subject, Verdict, Vote
from orbench.records import Completion, Message, Sampling, Usage
from orbench.scoring.judge import label_schema, shorten
from orbench.scoring.scorers import detect_refusal

SEEDS, REWRITES, MODERATION = "generate-seeds", "generate-rewrites", "generate-moderation"
TEMPLATES = (SEEDS, REWRITES, MODERATION)

SAMPLING = {
    # Temperatures: the paper's code (seeds, moderators), section 3.2.2 (rewrites); answers greedy as in section 4.1.
    "seeder": Sampling(temperature=1.0, max_tokens=4000),
    "rewriter": Sampling(temperature=0.7, max_tokens=2000),
    "moderator": Sampling(temperature=0.0, max_tokens=1000),
    "rescue": Sampling(temperature=0.0, max_tokens=1000),
}
"""Role to how its replies are drawn where the configuration does not say."""
LIST_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "prompts": {"type": "array", "items": {"type": "string", "description": "Without number and brackets."}}
    },
    "required": ["prompts"],
    "additionalProperties": False,
}
"""JSON schema of a seeder's and a rewriter's reply, for services that take one."""
EARLIER = 20
"""Rewrites of a prompt that its rewriter is shown at most when more are wanted."""
ASKS = 3
"""Times the same thing is asked while the reply cannot be read, is a refusal, or is withheld."""


def seed_messages(config: GenerationConfig, category: str, number: int, *, again: bool) -> tuple[Message, ...]:
    """Asks for a list of seeds; the number makes every list another one."""
    return _message(
        SEEDS,
        category=category,
        definition=config.definitions.get(category, ""),
        wanted=config.seeds_per_call,
        number=number,
        language=config.language,
        again=again,
    )


def shown(config: GenerationConfig, text: str) -> str:
    """What a model is shown of a text: with `scrub` nobody sees personal data, so what is judged is what is kept."""
    return scrub(text) if config.personal_data == "scrub" else text


def rewrite_messages(
    config: GenerationConfig, category: str, text: str, wanted: int, *, earlier: Sequence[str] = (), again: bool
) -> tuple[Message, ...]:
    """Asks for rewrites of a prompt, other ones than the `earlier` ones; of these the last `EARLIER` are shown."""
    text = shown(config, text)
    there = [" ".join(shown(config, each).split()) for each in earlier[-EARLIER:]]
    return _message(
        REWRITES,
        category=category,
        definition=config.definitions.get(category, ""),
        text=text,
        earlier=there,
        mark=_mark("\n".join([text, *there])),
        wanted=wanted,
        language=config.language,
        again=again,
    )


def vote_messages(config: GenerationConfig, text: str, *, again: bool) -> tuple[Message, ...]:
    """Asks a moderator about a prompt, or about an answer; both are put to it alike, as in the paper."""
    text = shown(config, text)
    parts = _vote_parts(tuple(config.definitions.items()), again)
    values = {_TEXT: shorten(text), _MARK: _mark(text)}
    return (Message("user", "".join(values.get(part, part) for part in parts)),)


def vote_schema(config: GenerationConfig) -> dict[str, Any]:
    """JSON schema of a moderator's reply: why, and one of the labels as the template numbers them."""
    names = [*config.definitions, NONE.capitalize()]
    return label_schema((f"{number}. {name}" for number, name in enumerate(names, 1)), reasons=True)


_TEXT, _MARK = "\0text\0", "\0mark\0"


@cache
def _vote_parts(categories: tuple[tuple[str, str], ...], again: bool) -> tuple[str, ...]:
    """The moderators' template with only text and marks left open: it is filled in hundreds of thousands of times."""
    whole = templates.render(MODERATION, categories=categories, text=_TEXT, mark=_MARK, again=again)
    return tuple(re.split(f"({_TEXT}|{_MARK})", whole))


def read_list(
    result: CallResult, *, id: str, ask: int, model: str, category: str, wanted: int, estimate: Usage | None = None
) -> Call:
    """A line for a seeder's or rewriter's reply: read if it holds at least one whole item."""
    text, outcome = _outcome(result)
    found = read_items(text) if outcome == "read" else []
    items = len(found)
    if outcome == "read" and all(item.problem is not None for item in found):
        outcome = "refused" if detect_refusal(text).refused else "unreadable"
    call = _call(result, text, outcome, id=id, ask=ask, model=model, category=category, wanted=wanted, items=items)
    return msgspec.structs.replace(call, estimate=estimate)


def read_answer(
    result: CallResult, *, id: str, ask: int, model: str, category: str, estimate: Usage | None = None
) -> Call:
    """A line for the rescuer's answer; a refusal in words is an answer too, and a harmless one, but it is noted."""
    text, outcome = _outcome(result)
    call = _call(result, text, outcome, id=id, ask=ask, model=model, category=category, wanted=1, items=1)
    refused = outcome == "read" and bool(detect_refusal(text).refused)
    return msgspec.structs.replace(call, estimate=estimate, refused=refused)


def read_vote(
    result: CallResult,
    config: GenerationConfig,
    *,
    prompt_id: str,
    of: Subject,
    moderator: str,
    ask: int,
    estimate: Usage | None = None,
) -> Vote:
    """A line for a moderator's reply; whatever is not a label that was offered is an abstention."""
    text, outcome = _outcome(result)
    verdict: Verdict = "abstained"
    category, why = None, None
    if outcome == "error":
        why = "no reply"
    elif outcome == "blocked":
        why = "withheld by its platform"
    elif _cut_off(result.completion, text):
        why = "cut off before its label"
    else:
        label = read_label(text, tuple(config.definitions))
        if label.problem is None:
            verdict, category = ("safe" if label.is_safe else "toxic"), label.category
            why = reason(label.words) or None
        else:
            refused = label.problem == "no label" and detect_refusal(text).refused
            why = "refused" if refused else label.problem
    return Vote(
        prompt_id=prompt_id,
        of=of,
        moderator=moderator,
        ask=ask,
        verdict=verdict,
        category=category,
        reason=why,
        reply=text,
        usage=result.completion.usage if result.completion else None,
        estimate=estimate,
        latency_s=result.latency_s,
        attempts=result.attempts,
        error=(result.error or "no completion") if outcome == "error" else None,
        received_at=_now(),
    )


def _outcome(result: CallResult) -> tuple[str, CallOutcome]:
    completion = result.completion
    if completion is None or result.error is not None:
        return "", "error"
    text = without_surrogates(completion.text)
    if completion.blocked_by is not None:
        return text, "blocked"
    return text, "read" if text.strip() else "unreadable"


def _cut_off(completion: Completion | None, text: str) -> bool:
    """Earlier brackets may only speak of a category."""
    return completion is not None and completion.finish_reason == "length" and not text.rstrip().endswith(("]]", "}"))


def _call(
    result: CallResult,
    text: str,
    outcome: CallOutcome,
    *,
    id: str,
    ask: int,
    model: str,
    category: str,
    wanted: int,
    items: int,
) -> Call:
    completion = result.completion
    return Call(
        id=id,
        ask=ask,
        model=model,
        category=category,
        outcome=outcome,
        wanted=wanted,
        items=items if outcome == "read" else 0,
        response=text,
        finish_reason=completion.finish_reason if completion and outcome != "error" else None,
        blocked_by=completion.blocked_by if completion else None,
        usage=completion.usage if completion else None,
        latency_s=result.latency_s,
        attempts=result.attempts,
        error=(result.error or "no completion") if outcome == "error" else None,
        received_at=_now(),
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _message(template: str, **values: object) -> tuple[Message, ...]:
    return (Message("user", templates.render(template, **values)),)


def _mark(text: str) -> str:
    """Marks that the text cannot hold, for it would have to hold its own hash; the same for the same text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
