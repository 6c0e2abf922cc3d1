"""How helpful replies are: by a judge's mark, or by a reward model's score.

In: replies and who scores them. Out: a number for each, saved line by line as it comes, None where it could not be
read. A judge gives a mark from 1 to 10 in double square brackets (`prompts/judge-helpfulness.jinja`). A reward model
is `reward/PATH_OR_ID`: a sequence classifier with one output that reads the conversation through its own chat
template, as ArmoRM-like and Bradley-Terry models on the Hub do; higher is better.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from orbench import templates
from orbench.engine.jsonl import Appender, read_lines
from orbench.engine.limits import ConcurrencyLimit
from orbench.engine.threads import run_sync
from orbench.errors import MissingExtraError, ModelError
from orbench.evaluation.setup import AnyModel
from orbench.ledger import Ledger
from orbench.models import open_model
from orbench.models.base import Model
from orbench.records import Judgement, Message, Response
from orbench.results import Row
from orbench.scoring.answers import last_label
from orbench.scoring.judge import Answer, ask, marked, named

TEMPLATE = "judge-helpfulness"
REWARD = "reward/"
_BATCH = 16


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `helpfulness.jsonl`: what one scorer says of one reply."""

    split: str
    prompt_id: str
    reply: str
    """First 16 hexadecimal digits of the sha256 of the reply."""
    scorer: str
    value: float | None
    judgement: Judgement | None = None


class Marks(msgspec.Struct, frozen=True):
    """The marks of some replies, and what they cost."""

    values: dict[tuple[str, str], float | None]
    """(split, prompt id) to the mark."""
    usage: Ledger


def rate_rows(scorer: AnyModel, rows: Iterable[Row], path: Path) -> dict[tuple[str, str], float | None]:
    """The marks of all rows that hold a reply, by (split, prompt id); those that are in the file are not asked again.

    Args:
        scorer: A judge, or `reward/PATH_OR_ID`.
        rows: Of a run.
        path: File of the marks.
    """
    replies = [
        Response(
            prompt_id=row.prompt_id,
            split=row.split,
            category=row.category,
            kind=row.kind,
            prompt=row.prompt,
            response=row.response,
        )
        for row in rows
        if row.response.strip()
    ]

    async def ask() -> Marks:
        if isinstance(scorer, str) and scorer.startswith(REWARD):
            return await rate_helpfulness(scorer, replies, path)
        model = open_model(scorer)
        try:
            return await rate_helpfulness(model, replies, path)
        finally:
            await model.close()

    return run_sync(ask()).values


async def rate_helpfulness(scorer: Model | str, replies: Iterable[Response], path: Path) -> Marks:
    """Score every reply that has no mark yet.

    Args:
        scorer: A judge, or `reward/PATH_OR_ID`.
        replies: What to score; (split, prompt_id) names each.
        path: The file of marks, continued if it exists.

    Raises:
        orbench.ModelError: The scorer cannot be used at all.
        orbench.RunError: The file cannot be read or written.
    """
    replies = list(replies)
    name = scorer if isinstance(scorer, str) else f"{named(scorer)} {TEMPLATE}:{templates.digest(TEMPLATE)}"
    known: dict[tuple[str, str, str, str], float | None] = {}
    usage = Ledger()
    for line in read_lines(path, Mark):
        known[line.split, line.prompt_id, line.reply, line.scorer] = line.value
        if line.judgement:
            usage.add(line.judgement.requests, line.judgement.usage)
    owed = [reply for reply in replies if known.get(_key(reply, name)) is None]
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(Appender[Mark](path)) as file:

        def keep(response: Response, value: float | None, judgement: Judgement | None) -> None:
            split, prompt_id, reply, _ = key = _key(response, name)
            known[key] = value
            if judgement:
                usage.add(judgement.requests, judgement.usage)
            file.append(
                Mark(split=split, prompt_id=prompt_id, reply=reply, scorer=name, value=value, judgement=judgement)
            )

        if isinstance(scorer, str):
            for response, value in _rewards(scorer, owed):
                keep(response, value, None)
        elif owed:

            async def receive(response: Response, answer: Answer) -> None:
                keep(response, None if answer.label is None else float(answer.label), answer.judgement)

            await ask(
                scorer,
                _each(owed),
                receive,
                messages=_question,
                read=read_mark,
                limit=ConcurrencyLimit(scorer.max_concurrency),
            )
    return Marks({reply.key: known.get(_key(reply, name)) for reply in replies}, usage)


def read_mark(text: str) -> str | None:
    """The mark that an answer ends with, `1` to `10`; None if its last bracket holds something else."""
    label = last_label(text)
    return label if label in {str(mark) for mark in range(1, 11)} else None


def _question(response: Response, again: bool) -> tuple[Message, ...]:
    return marked(TEMPLATE, response, again=again)


def _rewards(scorer: str, replies: Sequence[Response]) -> Iterable[tuple[Response, float | None]]:
    """Scores of a reward model, in batches."""
    if not replies:
        return
    if any(importlib.util.find_spec(module) is None for module in ("torch", "transformers")):
        raise MissingExtraError(scorer, "train")
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source = scorer.removeprefix(REWARD)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source)
        model: Any = AutoModelForSequenceClassification.from_pretrained(source).eval()
    except Exception as error:  # what loaders raise has no common base
        raise ModelError(f"{scorer} cannot be loaded: {next(iter(str(error).splitlines()), '')}") from error
    if model.config.num_labels != 1:
        raise ModelError(f"{scorer} has {model.config.num_labels} outputs: a reward model has one")
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    for start in range(0, len(replies), _BATCH):
        batch = replies[start : start + _BATCH]
        tokens = _tokens(tokenizer, batch)
        with torch.no_grad():
            found = model(**tokens.to(model.device)).logits[:, 0].float().tolist()
        yield from ((reply, value if math.isfinite(value) else None) for reply, value in zip(batch, found, strict=True))


def _tokens(tokenizer: Any, batch: Sequence[Response]) -> Any:
    """Question and reply as the reward model wants them: through its chat template, else as a pair of texts."""
    options = {"padding": True, "truncation": True, "return_tensors": "pt"}
    if not tokenizer.chat_template:  # such as OpenAssistant's DeBERTa
        return tokenizer([one.prompt for one in batch], [one.response for one in batch], **options)
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": one.prompt}, {"role": "assistant", "content": one.response}], tokenize=False
        )
        for one in batch
    ]
    return tokenizer(texts, add_special_tokens=False, **options)


def _key(response: Response, name: str) -> tuple[str, str, str, str]:
    return response.split, response.prompt_id, hashlib.sha256(response.response.encode()).hexdigest()[:16], name


async def _each(responses: Sequence[Response]) -> AsyncIterator[Response]:
    for response in responses:
        yield response
