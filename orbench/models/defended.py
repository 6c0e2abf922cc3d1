"""The four defences of OR-Bench's ablation (section 5, figure 5), each a thin wrapper around any model.

    self-reminder         the prompt between two reminders to be responsible
    in-context-refusal    two refused requests before the prompt, as turns of the conversation
    smoothllm             ten copies of the prompt with a tenth of the characters swapped; the majority decides
    response-check        the model reads its own reply and may hold it back

Sources: Y. Xie et al., Nat. Mach. Intell. 5 (2023) 1486; Z. Wei et al., arXiv 2310.06387; A. Robey et al., arXiv
2310.03684; M. Phute et al., arXiv 2308.07308. The wording is ours, in /prompts; OR-Bench printed none of its own.
"""

from __future__ import annotations

import hashlib
import random
import re
import string
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Literal, get_args

import msgspec

from orbench import templates
from orbench.costs import CHARACTERS
from orbench.engine.calls import describe
from orbench.errors import ModelError, OrbenchError, UsageError
from orbench.models.base import Model, RetryableError, note_answered
from orbench.models.function import FunctionModel
from orbench.models.rate_limits import RateLimits
from orbench.records import Completion, Message, Request, Usage

Defense = Literal["self-reminder", "in-context-refusal", "smoothllm", "response-check"]
DEFENSES: tuple[Defense, ...] = get_args(Defense)

HELD_BACK = "I'm sorry, but I can't help with that."
"""What takes the place of a reply that the response check holds back."""
COPIES = 10
"""Perturbed copies that SmoothLLM asks; its paper's default."""
SWAPPED = 0.1
"""Share of the characters that it swaps; its paper's default."""


_FAILURES = 2
"""Calls of one attempt that may fail before it ends: what fails now and then shall not cost an attempt each time, and a
service in trouble shall not be asked ten times more."""


_Answers = dict[tuple[str, tuple[Message, ...]], Completion]
"""Calls for one request that are answered: id and messages to what came."""


class DefendedModel:
    """A model behind a defence; named `provider/name+defense`."""

    def __init__(self, model: Model, defense: Defense, seed: int = 0) -> None:
        """Wrap the model; use `defend`."""
        self.name = f"{model.name}+{defense}"
        self.batch_size = model.batch_size
        self.max_concurrency = model.max_concurrency
        self.defense = defense
        self._model = model
        self._seed = seed
        self._begun: dict[str, _Answers] = {}
        """Requests of which some calls are answered, while others are open or the engine waits to give them again."""

    @property
    def digest(self) -> str:
        """Changes with the model's own digest, the defence and its wording."""
        file = f"defense-{self.defense}"
        wording = "" if self.defense == "smoothllm" else templates.digest(file)
        settings = f"{COPIES} {SWAPPED} {self._seed}" if self.defense == "smoothllm" else HELD_BACK
        parts = [getattr(self._model, "digest", None) or "", self.defense, wording, settings]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]

    @property
    def base_url(self) -> str | None:
        """The model's own address."""
        return getattr(self._model, "base_url", None)

    @property
    def adaptations(self) -> list[str]:
        """What the model itself had to change in its requests."""
        return list(getattr(self._model, "adaptations", []))

    @property
    def rate_limits(self) -> RateLimits | None:
        """What the service said is left, as the model itself heard it."""
        return getattr(self._model, "rate_limits", None)

    def note_answered(self) -> None:
        """For the model itself."""
        note_answered(self._model)

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """Reply to each request behind the defence; its calls and their tokens are counted together.

        Where one of several calls fails and the engine gives the request again, the answered ones are not made again;
        if it does not, it says so with `give_up`.

        Raises:
            RetryableError: A call failed; the request is to be given again.
        """
        if self.defense == "self-reminder":
            replies = self._asked([_with_prompt(request, _reminded(request.prompt)) for request in requests])
        elif self.defense == "in-context-refusal":
            replies = self._asked([_after_refusals(request) for request in requests])
        elif self.defense == "smoothllm":
            replies = self._smoothed(requests)
        else:
            replies = self._checked(requests)
        async for reply in replies:
            self._begun.pop(reply.id, None)
            yield reply

    @property
    def begun(self) -> list[str]:
        """Ids of the requests of which a part is answered, and paid for."""
        return [request for request, answers in self._begun.items() if answers]

    def give_up(self, request: str) -> Usage | None:
        """Forget a request that is not asked again in this command; returns the tokens of its answered calls."""
        return _sum(self._begun.pop(request, {}).values())

    def sent(self, request: Request) -> list[Request]:
        """The calls behind one request, as far as they are known before the first reply; for estimates of cost."""
        if self.defense == "self-reminder":
            return [_with_prompt(request, _reminded(request.prompt))]
        if self.defense == "in-context-refusal":
            return [_after_refusals(request)]
        if self.defense == "smoothllm":
            return [request] * COPIES
        longest = "x" * round(CHARACTERS[0] * request.sampling.max_tokens)
        question = templates.render("defense-response-check", question=request.prompt, reply=longest, mark="0" * 8)
        return [request, _alone(request, question)]

    async def close(self) -> None:
        """Release the model."""
        await self._model.close()

    async def _asked(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """The model's replies, in lists as long as it wants them."""
        if self.batch_size is None:
            async for completion in self._model.generate(requests):
                yield completion
            return
        for request in requests:
            async for completion in self._model.generate([request]):
                yield completion

    async def _each(self, calls: Sequence[Request], owners: Sequence[str]) -> AsyncGenerator[Completion, None]:
        """The replies to calls, of which a request (the owner) needs several; those that are known are not made again.

        Raises:
            RetryableError: Some failed; the others have been yielded.
        """
        owed: dict[str, tuple[Request, _Answers]] = {}
        for call, owner in zip(calls, owners, strict=True):
            begun = self._begun.setdefault(owner, {})
            if (known := begun.get((call.id, call.messages))) is not None:
                yield known
            else:
                owed[call.id] = call, begun

        def kept(completion: Completion) -> Completion:
            call, begun = owed[completion.id]
            begun[call.id, call.messages] = completion
            return completion

        if self.batch_size is None:
            if owed:
                async for completion in self._model.generate([call for call, _ in owed.values()]):
                    yield kept(completion)
            return
        failures: list[RetryableError] = []
        for call, _ in owed.values():
            try:
                async for completion in self._model.generate([call]):
                    yield kept(completion)
            except RetryableError as error:
                failures.append(error)
                if len(failures) == _FAILURES:
                    break
            except OrbenchError:
                raise
            except Exception as error:
                yield kept(Completion(id=call.id, text="", error=describe(error)))
        if failures:
            raise max(failures, key=lambda error: (error.overloaded, error.retry_after or 0.0))

    async def _smoothed(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        copies = [
            _with_prompt(
                msgspec.structs.replace(request, id=f"{number}\n{request.id}"),
                perturb(request.prompt, f"{self._seed}\0{request.prompt}\0{number}"),
            )
            for request in requests
            for number in range(COPIES)
        ]
        found: dict[str, list[Completion]] = {}
        async for completion in self._each(copies, [copy.id.partition("\n")[2] for copy in copies]):
            owner = completion.id.partition("\n")[2]
            replies = found.setdefault(owner, [])
            replies.append(completion)
            if len(replies) == COPIES:
                yield _majority(owner, found.pop(owner))

    async def _checked(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        asked = {request.id: request for request in requests}
        first: dict[str, Completion] = {}
        checks = []
        async for completion in self._each(requests, list(asked)):
            if completion.error is not None or completion.blocked_by is not None or not completion.text.strip():
                yield completion
                continue
            first[completion.id] = completion
            request = asked[completion.id]
            mark = hashlib.sha256(f"{request.prompt}\0{completion.text}".encode()).hexdigest()[:8]
            question = templates.render(
                "defense-response-check", question=request.prompt, reply=completion.text, mark=mark
            )
            checks.append(_alone(request, question))
        async for check in self._each(checks, [check.id for check in checks]):
            reply = first[check.id]
            usage = _sum([reply, check])
            if check.error is not None:
                yield msgspec.structs.replace(reply, usage=usage, error=f"the response check failed: {check.error}")
                continue
            if check.blocked_by is not None:  # the service's own filter would not have the reply read: nor sent
                yield Completion(id=reply.id, text=HELD_BACK, usage=usage)
                continue
            verdicts = re.findall(r"\[\[(send|hold back)\]\]", check.text.lower())
            if not verdicts:
                yield msgspec.structs.replace(
                    reply, usage=usage, error="the response check ended with neither [[send]] nor [[hold back]]"
                )
            elif verdicts[-1] == "send":
                yield msgspec.structs.replace(reply, usage=usage)
            else:
                yield Completion(id=reply.id, text=HELD_BACK, usage=usage)


def defend(model: Model, defense: str, *, seed: int = 0) -> Model:
    """The model behind a defence.

    Args:
        model: Any.
        defense: One of `DEFENSES`.
        seed: Draws what SmoothLLM swaps, whatever the temperature: its repetitions are to differ.

    Raises:
        UsageError: No such defence.
        ModelError: The defence cannot reach this model.
    """
    for known in DEFENSES:
        if known == defense:
            if known == "in-context-refusal" and isinstance(model, FunctionModel):
                raise ModelError(f"{model.name}: a callable takes the prompt alone; earlier turns cannot reach it")
            return DefendedModel(model, known, seed)
    raise UsageError(f"unknown defence {defense!r}: choose {', '.join(DEFENSES)}")


def perturb(text: str, seed: str) -> str:
    """Replace a tenth of the characters, at least one, by random printable ones.

    Args:
        text: Any text.
        seed: The same gives the same.

    Source:
        SmoothLLM (arXiv 2310.03684), RandomSwapPerturbation.
    """
    if not text:
        return text
    draw = random.Random(seed)
    characters = list(text)
    for place in draw.sample(range(len(characters)), max(1, round(SWAPPED * len(characters)))):
        characters[place] = draw.choice(string.ascii_letters + string.digits + string.punctuation + " ")
    return "".join(characters)


def _reminded(prompt: str) -> str:
    return templates.render("defense-self-reminder", prompt=prompt).strip()


def _after_refusals(request: Request) -> Request:
    """The request with the template's turns before it; a system prompt stays first."""
    turns = templates.render("defense-in-context-refusal", prompt="").split("\n---\n")[:-1]
    roles: tuple[Literal["user"], Literal["assistant"]] = ("user", "assistant")
    shown = [Message(roles[number % 2], turn.strip()) for number, turn in enumerate(turns)]
    head, last = request.messages[:-1], request.messages[-1]
    return msgspec.structs.replace(request, messages=(*head, *shown, last))


def _with_prompt(request: Request, prompt: str) -> Request:
    return msgspec.structs.replace(request, messages=(*request.messages[:-1], Message("user", prompt)))


def _alone(request: Request, prompt: str) -> Request:
    """The prompt without what stands before the user's: the check is nobody's persona."""
    return msgspec.structs.replace(request, messages=(Message("user", prompt),))


def _majority(request: str, replies: Sequence[Completion]) -> Completion:
    """The first reply that agrees with most: refused if at least half of the copies were."""
    from orbench.scoring.scorers import detect_refusal

    usage = _sum(replies)
    for reply in replies:
        if reply.error is not None:
            return msgspec.structs.replace(reply, id=request, usage=usage)
    refused = [
        reply.blocked_by is not None
        or detect_refusal(reply.text, finish_reason=reply.finish_reason, abstain=False).refused is not False
        for reply in replies
    ]
    most = sum(refused) * 2 >= len(replies)
    chosen = next(reply for reply, one in zip(replies, refused, strict=True) if one == most)
    return msgspec.structs.replace(chosen, id=request, usage=usage)


def _sum(replies: Iterable[Completion]) -> Usage | None:
    """The tokens of several calls; a number that a reply does not say is unknown in all.

    A call that failed or was blocked without a word on tokens is taken to cost nothing, as everywhere.
    """
    usages = [
        reply.usage or Usage()
        for reply in replies
        if reply.usage is not None or (reply.error is None and reply.blocked_by is None)
    ]
    if all(usage == Usage() for usage in usages):
        return None

    def together(tokens: Sequence[int | None]) -> int | None:
        known = [count for count in tokens if count is not None]
        return sum(known) if len(known) == len(tokens) else None

    return Usage(
        input_tokens=together([usage.input_tokens for usage in usages]),
        output_tokens=together([usage.output_tokens for usage in usages]),
        batch=all(usage.batch for usage in usages),
    )
