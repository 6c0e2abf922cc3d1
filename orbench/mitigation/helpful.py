"""How helpful replies are: by a judge's mark, or by a reward model's score.

In: replies and who scores them. Out: a number for each, saved line by line as it comes, None where it could not be
read. A judge gives a mark from 1 to 10 in double square brackets (`prompts/judge-helpfulness.jinja`). A reward model
is `reward/PATH_OR_ID`: a sequence classifier of transformers with one output that reads the conversation through its
own chat template, as Bradley-Terry models on the Hub do; higher is better. Models that bring code of their own, such as
ArmoRM, are not loaded: nothing from the Hub is run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from orbench import templates
from orbench.costs import Estimate
from orbench.engine.jsonl import Appender, read_lines
from orbench.engine.threads import run_sync
from orbench.errors import MissingExtraError, ModelError
from orbench.evaluation.setup import AnyModel, shared_base_url
from orbench.ledger import Ledger
from orbench.mitigation.loading import quiet
from orbench.mitigation.terms import NO_TERMS, Terms, name_of
from orbench.models import make_options, open_model
from orbench.models.base import Model
from orbench.records import Judgement, Message, Prompt, Response
from orbench.results import Row
from orbench.scoring.answers import last_label
from orbench.scoring.judge import Answer, ask, marked, named

TEMPLATE = "judge-helpfulness"
REWARD = "reward/"
MARKS = "helpfulness.jsonl"
LOWEST = 1.0
"""A judge's lowest mark: what a reply without a word is worth."""
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
    cost_usd: dict[str, float | None] = {}
    """`helpfulness NAME` to what it has cost; nothing for a reward model, which runs on this machine."""


def rate_rows(
    scorer: AnyModel,
    rows: Iterable[Row],
    path: Path,
    *,
    empty: bool = False,
    base_url: str | None = None,
    terms: Terms = NO_TERMS,
) -> Marks:
    """The marks of all rows that hold a reply; those that are in the file are not asked again.

    Args:
        scorer: A judge, or `reward/PATH_OR_ID`.
        rows: Of a run.
        path: File of the marks.
        empty: Mark replies without a text too: a judge's lowest mark, unasked; a reward model reads them as they are.
        base_url: Address of the judge.
        terms: Calls open at once, and the money; replies that there is none for have no mark.

    Raises:
        orbench.OrbenchError: See `rate_helpfulness`.
    """
    is_reward = isinstance(scorer, str) and scorer.startswith(REWARD)
    given = [row for row in rows if row.error is None]
    silent = [row for row in given if not row.response.strip()] if empty else []
    replies = [
        Response(
            prompt_id=row.prompt_id,
            split=row.split,
            category=row.category,
            kind=row.kind,
            prompt=row.prompt,
            response=row.response,
        )
        for row in given
        if row.response.strip() or (empty and is_reward)
    ]
    marks = Helpfulness(scorer, [scorer], base_url, path, terms).rate(replies)
    lowest = {} if is_reward else {(row.split, row.prompt_id): LOWEST for row in silent}
    return msgspec.structs.replace(marks, values=marks.values | lowest)


async def rate_helpfulness(
    scorer: Model | str, replies: Iterable[Response], path: Path, terms: Terms = NO_TERMS
) -> Marks:
    """Score every reply that has no mark yet.

    Args:
        scorer: A judge, or `reward/PATH_OR_ID`.
        replies: What to score; (split, prompt_id) names each.
        path: The file of marks, continued if it exists.
        terms: Calls open at once, and the money; replies that there is none for have no mark.

    Raises:
        orbench.UsageError: The judge has no price, and there is a bound.
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
            usage.add(line.judgement.requests, line.judgement.usage, answered=bool(line.judgement.reply))
    owed = [reply for reply in replies if known.get(_key(reply, name)) is None]
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(Appender[Mark](path)) as file:

        def keep(response: Response, value: float | None, judgement: Judgement | None) -> None:
            split, prompt_id, reply, _ = key = _key(response, name)
            known[key] = value
            if judgement:
                usage.add(judgement.requests, judgement.usage, answered=bool(judgement.reply))
            file.append(
                Mark(split=split, prompt_id=prompt_id, reply=reply, scorer=name, value=value, judgement=judgement)
            )

        if isinstance(scorer, str):
            for response, value in _rewards(scorer, owed):
                keep(response, value, None)
        elif owed:

            async def receive(response: Response, answer: Answer) -> None:
                keep(response, None if answer.label is None else float(answer.label), answer.judgement)
                terms.settle(scorer, response, answer.judgement, question)

            await ask(
                scorer,
                terms.afford(scorer, owed, question),
                receive,
                messages=question,
                read=read_mark,
                limit=terms.limit(scorer),
            )
    cost = {} if isinstance(scorer, str) else terms.costs_of("helpfulness", {scorer.name: usage}, [scorer])
    return Marks({reply.key: known.get(_key(reply, name)) for reply in replies}, usage, cost)


class Helpfulness:
    """Who marks, opened where it is needed; nothing is sent before `rate`."""

    def __init__(
        self, scorer: AnyModel, teachers: Sequence[AnyModel], base_url: str | None, path: Path, terms: Terms
    ) -> None:
        """Keep it; nothing is opened yet.

        Args:
            scorer: A judge, or `reward/PATH_OR_ID`.
            teachers: Whose address, `base_url`, it shares if it is of the same provider.
            base_url: See there.
            path: The file of marks.
            terms: Calls open at once, and the money.
        """
        self._scorer, self._terms, self._path = scorer, terms, path
        self._options = make_options(shared_base_url(base_url, teachers, scorer), terms.concurrency, None)
        self._is_reward = isinstance(scorer, str) and scorer.startswith(REWARD)
        self.name = str(scorer) if self._is_reward else name_of(scorer)

    def check(self) -> None:
        """Before a teacher is paid: whether the judge can be opened and has a price, and what was paid to it before.

        Raises:
            orbench.UsageError: It has no price where there is a bound.
        """
        self._terms.count_spent(self._path, Mark)
        self._do(self._terms.price)

    def estimate(self, prompts: Sequence[Prompt], max_tokens: int) -> list[Estimate]:
        """What a judge would take for a reply to each prompt, as far as it has not marked it yet."""
        known = {(line.split, line.prompt_id) for line in read_lines(self._path, Mark) if line.value is not None}
        texts = [p.text for p in prompts if (p.split, p.id) not in known]
        found = self._do(lambda model: self._terms.estimate(model, texts, max_tokens, question))
        return [] if found is None else [found]

    def rate(self, replies: Sequence[Response]) -> Marks:
        """Mark all replies."""
        if self._is_reward:
            return run_sync(rate_helpfulness(str(self._scorer), replies, self._path))
        marks: Marks = self._do(lambda model: rate_helpfulness(model, replies, self._path, self._terms))
        return marks

    def _do(self, what: Callable[[Model], Any]) -> Any:
        async def do() -> Any:
            if self._is_reward:
                return None
            model = open_model(self._scorer, self._options)
            try:
                found = what(model)
                return await found if inspect.isawaitable(found) else found
            finally:
                await model.close()

        return run_sync(do())


def read_mark(text: str) -> str | None:
    """The mark that an answer ends with, `1` to `10`; None if its last bracket holds something else."""
    label = last_label(text)
    return label if label in {str(mark) for mark in range(1, 11)} else None


def question(response: Response, again: bool) -> tuple[Message, ...]:
    """What a judge is asked about a reply; `again` if its last answer could not be read."""
    return marked(TEMPLATE, response, again=again)


def _rewards(scorer: str, replies: Sequence[Response]) -> Iterable[tuple[Response, float | None]]:
    """Scores of a reward model, in batches."""
    if not replies:
        return
    if any(importlib.util.find_spec(module) is None for module in ("torch", "transformers")):
        raise MissingExtraError(scorer, "train")
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    quiet()
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
    size = 1 if tokenizer.pad_token_id is None else _BATCH  # what cannot be padded is read one by one
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    for start in range(0, len(replies), size):
        batch = replies[start : start + size]
        tokens = _tokens(tokenizer, batch)
        with torch.no_grad():
            found = model(**tokens.to(model.device)).logits[:, 0].float().tolist()
        yield from ((reply, value if math.isfinite(value) else None) for reply, value in zip(batch, found, strict=True))


def _tokens(tokenizer: Any, batch: Sequence[Response]) -> Any:
    """Question and reply as the reward model wants them: through its chat template, else as a pair of texts."""
    options = {"padding": len(batch) > 1, "truncation": True, "return_tensors": "pt"}
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
