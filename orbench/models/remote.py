"""What all models behind a wire share: one call a request, what the model does not accept left out, errors told apart.

A provider's file says three things: the body for a request (`body`), what a reply means (`read`), and which errors are
the platform's way of blocking a prompt (`blocked_by`). The batch APIs take and give the same bodies.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from orbench.errors import ModelError
from orbench.models.base import RejectedError, RetryableError
from orbench.models.rate_limits import RateLimits
from orbench.models.wire import DeniedError, HttpError, Wire, meaning
from orbench.records import BlockedBy, Completion, Request

if TYPE_CHECKING:
    import httpx2

_REFUSES = re.compile(
    r"support|unexpected|extra|deprecated|unknown|unrecogni[sz]ed|not allowed|permitted", re.IGNORECASE
)
_OF_RANGE = re.compile(
    r"\brange\b|\bat (?:most|least)\b|\bbetween\b|\b(?:less|lower|smaller|more|greater|higher|larger) than\b|[<>]="
    r"|\babove\b|\bbelow\b|exceed|maximum|minimum|positive|negative|too (?:high|low|large|small)|(?:max|min)_value"
    r"|(?:greater|less)_than",
    re.IGNORECASE,
)
"""Words of an error that is about the value of a field, not about the field."""
_BESIDE = 80
"""Characters."""
_UNSUPPORTED = re.compile(r"unsupported|unknown|unrecogni[sz]ed|forbidden", re.IGNORECASE)
"""Codes of an error that is about the field itself."""
_DENIED_IN_A_ROW = 20
"""Refusals with status 403, no reply among them, after which the account is to blame and not the prompts."""
_SCHEMA_FIELDS = ("response_format", "text", "output_config", "responseJsonSchema")
"""What the services call a schema of the reply."""
_OF_SCHEMA = re.compile(
    r"response[ _]?(?:format|json|schema|mime)|json[ _]?(?:schema|mode)|structured[ _]output|output_config"
    r"|text\.format|grammar|guided",
    re.IGNORECASE,
)
"""Words of an error that is about such a schema."""


class RemoteModel(ABC):
    """A model behind a wire.

    Attributes:
        name: `provider/name`.
        base_url: Address of the service, for the run folder.
        client: The vendor's package and its version, for the run folder.
        settings: Choices that change the replies beyond sampling, for the run folder and its digest.
        adaptations: What the model did not accept as it was sent, for the run folder.
        wire: The connections; a batch API uses them too.
        max_concurrency: Calls that may be open at once; None leaves it to the engine.
    """

    batch_size = 1
    optional: ClassVar[tuple[str, ...]] = ("temperature", "top_p", "seed", "random_seed")
    """Fields of the body that are left out for a model which does not accept them."""

    def __init__(self, name: str, wire: Wire, *, base_url: str, client: str, key_variable: str | None) -> None:
        """Nothing is sent."""
        self.name = name
        self.wire = wire
        self.base_url = base_url
        self.client = client
        self.settings: dict[str, str] = {}
        self.adaptations: list[str] = []
        self.max_concurrency: int | None = None
        self.key_variable = key_variable
        self._left_out: set[str] = set()
        self._takes_schema = True
        self._has_answered = False
        self._accepted: set[str] = set()
        self._denied = 0  # since the last reply

    @abstractmethod
    def body(self, request: Request) -> dict[str, Any]:
        """What is posted for a request."""

    @abstractmethod
    def read(self, request_id: str, content: bytes) -> Completion:
        """What the body of a reply means.

        Raises:
            RetryableError: It is malformed, or says that the service failed.
            HttpError: It holds an error where a reply should be.
        """

    def blocked_by(self, error: HttpError) -> BlockedBy | None:
        """Which side the platform blocked, where the error is its way of saying so."""
        return None

    @property
    def rate_limits(self) -> RateLimits | None:
        """What is left of the account's limits, as the last reply said; None where it said nothing."""
        return self.wire.rate_limits

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """Ask each request in turn."""
        for request in requests:
            yield await self._complete(request)

    async def close(self) -> None:
        """Close the connections."""
        await self.wire.close()

    def meaning(self, error: HttpError) -> Exception:
        """What a status says that is neither a reply nor a block, by itself."""
        return meaning(error, self.name, self.key_variable, self.wire.url)

    def error(self, error: HttpError) -> Exception:
        """What to raise for it after what came before.

        Access that is denied stops the run, but for one that has been granted before, by this command or an earlier
        one of the run, or that is denied by a firewall's page: then it concerns the request, until it is denied too
        often in a row.
        """
        meant = self.meaning(error)
        if not isinstance(meant, DeniedError) or not (self._has_answered or error.is_page):
            return meant
        self._denied += 1
        if self._denied < _DENIED_IN_A_ROW:
            return RejectedError(str(error))
        return ModelError(
            f"{self.name}: access denied {self._denied} times in a row (403: {error.message}); check the account, and "
            "what lies between here and the service, and the same command goes on"
        )

    def note_answered(self) -> None:
        """As if a reply had come: one has, in an earlier command of the same run."""
        self._has_answered = True

    def adapt(self, error: HttpError, body: dict[str, Any]) -> bool:
        """Learn from a refusal what the model does not accept; False if that was not the trouble.

        Calls that were under way beside the one that taught it are refused too, and are sent again likewise. A field
        that came with a request which was answered is accepted: an error that names it is about something else.

        Raises:
            ModelError: A value is out of the range that the service takes.
        """
        accepted = self._accepted
        if error.sent is None:  # from a batch, whose end of the service may take less than the one that is called
            error.sent, accepted = body, set()
        return self._learns(error, self._fields(body), accepted)

    def _fields(self, body: dict[str, Any]) -> dict[str, Any]:
        """The part of the body that holds the sampling."""
        return body

    def _learns(self, error: HttpError, fields: dict[str, Any], accepted: set[str]) -> bool:
        """As `adapt`, from an error that knows what was sent."""
        if error.status not in (400, 422):
            return False
        sent = [name for name in _SCHEMA_FIELDS if name in fields]
        if sent and _is_of_schema(error, sent) and (not self._takes_schema or accepted.isdisjoint(sent)):
            self._takes_schema = False
            self.note("no schema of the reply, which it does not take: asked in words alone")
            return True
        for name in self.optional:
            if name not in fields or not _names(error, name):
                continue
            if name in self._left_out:
                return True
            if name in accepted:
                continue
            if _is_of_range(error, name) and not _UNSUPPORTED.search(error.codes):
                raise ModelError(
                    f"{self.name}: {name} {fields[name]} is out of the range that it takes ({error.status}: "
                    f"{error.message}); give another one"
                )
            self._left_out.add(name)
            self.note(f"{name} left to the model, which accepts no other")
            return True
        return False

    def completion(self, request_id: str, content: bytes) -> Completion:
        """As `read`; a key that the service repeats in an error is taken out of it."""
        try:
            completion = self.read(request_id, content)
        except HttpError as error:
            raise HttpError(error.status, self.wire.without_key(error.body), error.headers) from None
        self._has_answered = True
        self._denied = 0
        return completion

    def note(self, adaptation: str) -> None:
        """Keep an adaptation for the run folder, once."""
        if adaptation not in self.adaptations:
            self.adaptations.append(adaptation)

    def without_refused(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body without what the model has refused."""
        return {k: v for k, v in body.items() if k not in self._left_out} if self._left_out else body

    def schema(self, request: Request) -> dict[str, Any] | None:
        """The schema to send with a request; None where none is wanted or the model has refused one."""
        return request.schema if self._takes_schema else None

    async def _complete(self, request: Request) -> Completion:
        body = self.body(request)
        while True:
            try:
                completion = self.completion(request.id, await self.wire.post(body))
                self._accepted.update(self._fields(body))
                return completion
            except HttpError as error:
                error.sent = body
                if side := self.blocked_by(error):
                    return Completion(id=request.id, text="", finish_reason="content_filter", blocked_by=side)
                if not self.adapt(error, body):
                    raise self.error(error) from None
                body = self.body(request)


@contextmanager
def without_gc() -> Iterator[None]:
    """Import a vendor's package quickly: the collector would walk its many classes again and again, now and later."""
    import gc

    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


def silent_client() -> httpx2.AsyncClient:
    """A client for an SDK that is asked for address and headers alone: its own would load the trust store, 20 ms."""
    import httpx2

    return httpx2.AsyncClient(transport=httpx2.MockTransport(lambda request: httpx2.Response(503)))


def _names(error: HttpError, name: str) -> bool:
    """Whether the service does not take this field, or its value; a field that it names apart goes before words."""
    if error.param:
        return name in re.split(r"\W+", error.param)
    refuses = re.search(rf"\b{name}\b", error.words) and _REFUSES.search(error.words)
    return bool(refuses) or _is_of_range(error, name)


def _is_of_range(error: HttpError, name: str) -> bool:
    """Whether it is about the value of this field; without a field named apart the words must stand beside its name."""
    words = error.words
    if error.param:
        return bool(_OF_RANGE.search(words))
    beside = (words[max(0, at.start() - _BESIDE) : at.end() + _BESIDE] for at in re.finditer(rf"\b{name}\b", words))
    return any(_OF_RANGE.search(part) for part in beside)


def _is_of_schema(error: HttpError, sent: list[str]) -> bool:
    """Likewise for the schema of the reply."""
    if error.param:
        return bool(_OF_SCHEMA.search(error.param) or set(sent) & set(re.split(r"\W+", error.param)))
    return bool(_OF_SCHEMA.search(error.words))


def decoded(decode: Any, content: bytes) -> Any:
    """The reply, decoded; what cannot be read is asked for again.

    Raises:
        RetryableError: Malformed.
    """
    try:
        return decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RetryableError(f"malformed reply: {error}") from None


def decoded_reply(decoder: msgspec.json.Decoder[Any], content: bytes) -> Any:
    """As `decoded`; a good answer with something odd beside it is read as it is (`odd_replies`).

    Raises:
        RetryableError: Malformed.
    """
    try:
        return decoder.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        from orbench.models.odd_replies import read_oddly

        try:
            return read_oddly(content, decoder.type)
        except (ValueError, RecursionError):
            raise RetryableError(f"malformed reply: {error}") from None


def told_error(error: dict[str, Any] | None, content: bytes) -> HttpError | None:
    """The error that came with status 200 instead of a reply; None if there is none."""
    if not error:
        return None
    code = error.get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else 502
    return HttpError(status, content, {})
