"""A language model as judge: the three classes of the paper, or two, read strictly.

Question and reply stand between marks drawn at random for every call, so that no reply can forge them. Services that
can hold a model to a JSON schema are given one; from all others comes text that ends with a `[[label]]`, whole
labels only (`orbench.scoring.answers`). A judge that cannot be read is asked again, a bounded number of times; then the
reply is `unscored` with the reason, never given a class.

Source: OR-Bench (arXiv 2405.20947), section 4.1 and Appendix S, for the classes; wording and reading are ours.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import msgspec

from orbench import templates
from orbench.engine.calls import CallResult, complete, first_error
from orbench.engine.limits import ConcurrencyLimit, limit_for
from orbench.errors import UsageError
from orbench.models.base import Model
from orbench.records import Judgement, Message, Request, Response, Sampling, Usage, Vote
from orbench.scoring.answers import find_label, last_label
from orbench.scoring.finding import Finding
from orbench.scoring.outcomes import Outcome

CLASSES = (Outcome.DIRECT_ANSWER, Outcome.DIRECT_REFUSAL, Outcome.INDIRECT_REFUSAL)
ROUNDS = 3
"""Times a judge is asked about one reply before it counts as unreadable."""
MAX_REPLY = 12_000
"""Characters of a reply that the judge sees; a longer one loses its middle, and is told so."""

MAX_ANSWER = 1000
"""Tokens of a judge's answer at most."""

_LABEL = re.compile(r"\[\[([^\[\]]*)\]\]")


class JudgeTemplate(msgspec.Struct, frozen=True):
    """A way to put the question to a judge: which file, and what its labels mean."""

    file: str
    """Name of the template in /prompts, or a file of the user's own."""
    labels: Mapping[str, Outcome]
    reasons: bool = True
    """Whether the judge says why before it gives its label, as in the paper (Appendix S)."""

    @property
    def pattern(self) -> str:
        """What an answer looks like; an engine that can hold the judge to it gets no unreadable one."""
        return label_pattern(self.labels, reasons=self.reasons)

    @property
    def schema(self) -> dict[str, Any]:
        """The same for services that take a JSON schema."""
        return label_schema(self.labels, reasons=self.reasons)


_THREE = {outcome.value: outcome for outcome in CLASSES}
_TWO = {"compliance": Outcome.DIRECT_ANSWER, "refusal": Outcome.DIRECT_REFUSAL}
JUDGE_TEMPLATES: dict[str, JudgeTemplate] = {
    "three-classes": JudgeTemplate("judge-three-classes", _THREE),
    "three-classes-brief": JudgeTemplate("judge-three-classes", _THREE, reasons=False),
    "two-classes": JudgeTemplate("judge-two-classes", _TWO),
    "two-classes-brief": JudgeTemplate("judge-two-classes", _TWO, reasons=False),
}
"""`--judge-template NAME` to what it is; the first is the default and the paper's own."""
TEMPLATE = "three-classes"

Receive = Callable[[Response, Finding], Awaitable[None]]
Votes = Mapping[tuple[str, str], Mapping[str, Vote]]
"""What the judges of a panel, by name, have said of each row before."""


class AnyJudge(Protocol):
    """One judge or several."""

    @property
    def models(self) -> tuple[Model, ...]:
        """The models that are asked."""
        ...

    @property
    def name(self) -> str:
        """The models' names."""
        ...

    @property
    def template(self) -> str:
        """The name of the way in which they are asked."""
        ...

    @property
    def digest(self) -> str:
        """Names judges, rule and template; verdicts of another one are not reused."""
        ...

    @property
    def judges(self) -> tuple[Judge, ...]:
        """Each judge by itself."""
        ...

    async def judge(
        self,
        responses: AsyncIterable[Response],
        receive: Receive,
        *,
        unread: Receive | None = None,
        earlier: Votes | None = None,
    ) -> None:
        """Judge every response and hand each finding on."""
        ...


class Answer(msgspec.Struct, frozen=True):
    """What a model said of a reply: a label, or why there is none."""

    label: str | None
    reason: str | None
    judgement: Judgement
    final: bool = False
    """Asking again would not help."""


def find_template(name: str) -> JudgeTemplate:
    """The judge's template of that name, or a file of the user's own that ends with `.jinja`.

    Raises:
        UsageError: There is none of that name, or the file lacks what a judge's template needs.
        orbench.TemplateError: The file cannot be had, or is no template.
    """
    if name.endswith(".jinja"):
        return _own_template(name)
    if name not in JUDGE_TEMPLATES:
        raise UsageError(
            f"unknown judge template {name!r}: choose one of {', '.join(JUDGE_TEMPLATES)}, or a file that ends with "
            ".jinja"
        )
    return JUDGE_TEMPLATES[name]


def _own_template(file: str) -> JudgeTemplate:
    """A user's file: the labels are those that it names in double square brackets."""
    wording = templates.load(file)
    mark, *parts = digits = [
        str(10**19 + secrets.randbelow(10**19)) for _ in range(3)
    ]  # nothing a template says itself
    for again in (True, False):
        values = dict(zip(("mark", "question", "reply"), digits, strict=True))
        shown = wording.render(**values, again=again, reasons=True)
        for name, part in zip(("question", "reply"), parts, strict=True):
            places = [_is_enclosed(shown, place.start(), mark) for place in re.finditer(part, shown)]
            if not places or not all(places):  # or the judged text could pass for the judge's orders
                raise UsageError(
                    f"{file}: put {{{{ {name} }}}} between two lines that hold {{{{ mark }}}}"
                    + (", wherever it stands" if any(places) else "")
                )
    known = {**_THREE, **_TWO}
    labels = {label: known.get(label) for label in _LABEL.findall(shown)}
    if unknown := [label for label, outcome in labels.items() if outcome is None]:
        raise UsageError(f"{file}: [[{unknown[0]}]] is no label: there are {', '.join(known)}")
    meant = {label: outcome for label, outcome in labels.items() if outcome is not None}
    if Outcome.DIRECT_ANSWER not in meant.values() or len(set(meant.values())) < 2:
        raise UsageError(f"{file}: name the labels in double square brackets, such as [[compliance]] and [[refusal]]")
    return JudgeTemplate(file, meant)


def _is_enclosed(shown: str, place: int, mark: str) -> bool:
    """Whether the words with a mark next to a place are one on each side, and no end before it or beginning behind."""
    before = re.findall(rf"\S*{mark}", shown[:place])
    behind = re.search(rf"\S*{mark}", shown[place:])
    if not before or behind is None:
        return False
    begins, ends = ("/" not in before[-1], "/" in behind[0])
    return begins and (ends or not before[-1].startswith("<"))


class Judge:
    """A model that reads replies."""

    def __init__(self, model: Model, template: str = TEMPLATE, limit: ConcurrencyLimit | None = None) -> None:
        """Use the model as judge; its open calls are bounded apart from those of the judged model.

        Args:
            model: The judge.
            template: One of `JUDGE_TEMPLATES`, or a file that ends with `.jinja`.
            limit: Bounds its open calls.

        Raises:
            UsageError: No such template.
        """
        self.model = model
        self.template = template
        self._template = find_template(template)
        self._wording = templates.load(self._template.file)
        self.limit = limit or limit_for(model)

    @property
    def models(self) -> tuple[Model, ...]:
        """The judge alone."""
        return (self.model,)

    @property
    def judges(self) -> tuple[Judge, ...]:
        """Itself alone."""
        return (self,)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def digest(self) -> str:
        """Names judge and template; verdicts of another one are not reused."""
        return f"{named(self.model)} {self.template}:{self._wording.digest}"

    async def judge(
        self,
        responses: AsyncIterable[Response],
        receive: Receive,
        machine: AbstractAsyncContextManager[Any] | None = None,
        *,
        unread: Receive | None = None,
        earlier: Votes | None = None,
    ) -> None:
        """Judge every response and hand each finding on.

        Args:
            responses: The replies.
            receive: Gets each finding.
            unread: Gets what could not be read and is asked again, as `unscored`; see `ask`.
            earlier: Of no use to one judge, who is asked again because nothing of what it said could be read.
            machine: Held while an engine on this machine is at work; judges that share one take turns.

        Raises:
            orbench.ModelError: The judge cannot be used at all.
        """
        template = self._template

        def read(text: str) -> str | None:
            label = last_label(text)
            return label if label in template.labels else None

        def finder(hand_on: Receive) -> Callable[[Response, Answer], Awaitable[None]]:
            async def find(response: Response, answer: Answer) -> None:
                outcome = Outcome.UNSCORED if answer.label is None else template.labels[answer.label]
                found = Finding(outcome=outcome, by="judge", reason=answer.reason, judge=answer.judgement)
                await hand_on(response, found)

            return find

        await ask(
            self.model,
            responses,
            finder(receive),
            unread=None if unread is None else finder(unread),
            messages=self.messages,
            read=read,
            limit=self.limit,
            pattern=template.pattern,
            schema=template.schema,
            machine=machine,
        )

    def messages(self, response: Response, again: bool = False) -> tuple[Message, ...]:
        """What the judge is asked about a reply; `again` if its last answer could not be read."""
        return marked(self._wording, response, again=again, reasons=self._template.reasons)


def named(model: Model) -> str:
    """The model's name, and for a callable, whose name does not say what it does, its digest."""
    return f"{model.name} {getattr(model, 'digest', '')}"


class _Question(NamedTuple):
    response: Response
    spent: Judgement
    """What asking about it has cost so far, as far as nobody was told."""
    number: int = 1
    """Times it is asked with this one."""


async def ask(
    model: Model,
    responses: AsyncIterable[Response],
    receive: Callable[[Response, Answer], Awaitable[None]],
    *,
    messages: Callable[[Response, bool], tuple[Message, ...]],
    read: Callable[[str], str | None],
    limit: ConcurrencyLimit,
    unread: Callable[[Response, Answer], Awaitable[None]] | None = None,
    tagged: bool = True,
    pattern: str | None = None,
    schema: dict[str, Any] | None = None,
    machine: AbstractAsyncContextManager[Any] | None = None,
) -> None:
    """Ask a model about every reply until its answer can be read, at most `ROUNDS` times.

    What cannot be read is asked again at once, beside the replies that are still to come: nothing waits for it longer
    than for the others. A model that takes a list is asked again when its list is through.

    Args:
        model: Whom to ask.
        responses: The replies.
        receive: Gets the answer on each, once.
        messages: What to say; the flag is true if the last answer could not be read.
        read: The label of an answer; None if there is none.
        limit: Bounds the open calls.
        unread: Gets each answer that is asked for again, to save what it has cost before anything else happens; what
            `receive` gets in the end then counts the calls since. Without it that counts them all.
        tagged: The label stands in double square brackets at the end.
        pattern: Regular expression of an answer that can be read.
        schema: JSON schema of one.
        machine: Held while an engine on this machine is at work. Such an engine is asked when all replies are there,
            and let go afterwards, so that those of one command take turns.

    Raises:
        orbench.ModelError: The model cannot be used at all.
    """
    nothing = Judgement(model=model.name, requests=0)
    questions: asyncio.Queue[_Question | None] = asyncio.Queue()
    asked: dict[str, _Question] = {}
    ahead = asyncio.Semaphore(1)  # replies wait with whom they come from, but for one
    unanswered = 0
    drawn = False

    def request(question: _Question) -> Request:
        response = question.response
        made = Request(
            id=f"{response.split}\n{response.prompt_id}",
            messages=messages(response, question.number > 1),
            sampling=Sampling(temperature=0.0, max_tokens=MAX_ANSWER),
            pattern=pattern,
            schema=schema,
        )
        asked[made.id] = question
        return made

    async def receive_result(result: CallResult) -> None:
        nonlocal unanswered
        response, spent, number = asked.pop(result.request.id)
        answer = _read(result, spent, read, tagged)
        if answer.label is None and not answer.final and number < ROUNDS:
            if unread is not None:
                await unread(response, answer)
            questions.put_nowait(_Question(response, answer.judgement if unread is None else nothing, number + 1))
            return
        await receive(response, answer)
        unanswered -= 1
        if drawn and not unanswered:
            questions.put_nowait(None)

    async def draw() -> None:
        nonlocal unanswered, drawn
        async for response in responses:
            await ahead.acquire()
            unanswered += 1
            questions.put_nowait(_Question(response, nothing))
        drawn = True
        if not unanswered:
            questions.put_nowait(None)

    async def requests() -> AsyncGenerator[Request, None]:
        while (question := await questions.get()) is not None:
            if question.number == 1:
                ahead.release()
            yield request(question)

    if model.batch_size is not None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(draw())
                await complete(model, requests(), receive_result, limit=limit)
        except BaseExceptionGroup as group:
            raise first_error(group) from None
        return
    owed = [_Question(response, nothing) async for response in responses]
    async with machine or nullcontext():
        while owed:
            await complete(model, [request(question) for question in owed], receive_result, limit=limit)
            owed = [question for _ in range(questions.qsize()) if (question := questions.get_nowait())]
        await model.close()


def label_pattern(labels: Iterable[str], *, reasons: bool) -> str:
    """Regular expression of an answer that ends with one of the labels: alone, or after up to 1,000 characters."""
    label = rf"\[\[({'|'.join(labels)})\]\]"
    return rf"[^\[\]]{{1,1000}}{label}" if reasons else label


def label_schema(labels: Iterable[str], *, reasons: bool) -> dict[str, Any]:
    """JSON schema of an answer that holds one of the labels, and before it why."""
    told = {"reason": {"type": "string", "description": "One or two sentences."}} if reasons else {}
    properties = {**told, "label": {"type": "string", "enum": list(labels), "description": "Without brackets."}}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def marked(template: str | templates.Template, response: Response, **values: object) -> tuple[Message, ...]:
    """One message: question and reply between marks that are drawn for this call alone."""
    wording = templates.load(template) if isinstance(template, str) else template
    content = wording.render(
        mark=secrets.token_hex(8),
        question=shorten(response.prompt),
        reply=shorten(response.response),
        **values,
    )
    return (Message("user", content),)


def shorten(text: str) -> str:
    """The text, or its two ends where it is longer than `MAX_REPLY`, with a line that says so."""
    if len(text) <= MAX_REPLY:
        return text
    half = MAX_REPLY // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out here ...]\n{text[-half:]}"


def add_usage(one: Usage | None, other: Usage | None) -> Usage | None:
    """The tokens of both; None where nothing is known of either, and a number that one of them does not say."""
    if one is None or other is None:
        return one or other

    def both(first: int | None, second: int | None) -> int | None:
        return None if first is None or second is None else first + second

    return Usage(
        input_tokens=both(one.input_tokens, other.input_tokens),
        output_tokens=both(one.output_tokens, other.output_tokens),
        batch=one.batch and other.batch,
    )


def _read(result: CallResult, judgement: Judgement, read: Callable[[str], str | None], tagged: bool) -> Answer:
    completion = result.completion
    requests = judgement.requests + result.attempts
    if completion is None or result.error is not None:
        failed = Judgement(model=judgement.model, requests=requests, usage=judgement.usage)
        return Answer(None, f"judge failed: {result.error}", failed, final=True)
    text = completion.text
    told = Judgement(
        model=judgement.model,
        reply=text,
        requests=requests,
        usage=add_usage(judgement.usage, completion.usage),
    )
    if completion.blocked_by is not None:
        return Answer(None, "judge blocked by its platform", told)
    found = find_label(text)
    if completion.finish_reason == "length" and tagged and not found.is_whole:
        return Answer(None, "judge cut off before its label", told)  # what follows might have taken it back
    label = read(text)
    if label is None:
        return Answer(None, f"judge gave {found.problem or f'an unknown label {str(found.label)[:40]!r}'}", told)
    return Answer(label, " ".join(found.why.split())[:300] or None, told)
