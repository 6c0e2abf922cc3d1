"""A model asked through its vendor's batch API, at half the price and within a day.

`BatchModel` takes a whole list of requests: the first is asked directly, so that a wrong name, a used-up account or a
parameter that the model does not take shows at once and not tomorrow; the others go out in batches as large as the
vendor takes. Every step is kept in the run folder before the next is taken (`store.py`), so the command may be stopped
anywhere and run again days later. What a batch leaves open (expired, failed on the vendor's side, missing from its
results) is raised as `RetryableError`; the engine then gives the rest of the list again, and it goes out anew.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec

from orbench.costs import BATCH_SHARE
from orbench.engine.calls import Retries
from orbench.engine.jsonl import without_surrogates
from orbench.errors import ModelError, RunError, UsageError
from orbench.models.base import Model, RejectedError, RetryableError
from orbench.models.batch.api import NOT_THERE, BatchApi, Result, Status, no_batches
from orbench.models.batch.store import Batch, Draft, Store, hash_of
from orbench.models.keys import without_keys
from orbench.models.wire import HttpError
from orbench.records import Completion, Request

FIRST_POLL_S = 0.2
"""Seconds before a new batch is first asked about; they double."""
LAST_POLL_S = 60.0
"""Seconds between two polls in the end."""
PATIENCE_S = 3600.0
"""Seconds for which the service may fail to answer before the command gives up waiting; the batch goes on."""
_TOLD_S = 600.0
"""Seconds between two lines about how far a batch is."""
_DOWNLOADS = 5
"""Times that results which lack some are fetched before those count as lost, and are paid for again."""
_UNREADABLE = 20
"""Results, of which not one is found, from which on the file is to blame and not its lines."""
_UNREACHABLE_POLLS = 3
"""Polls of a service that was never reached before the command gives up: its address is probably wrong."""


def in_batches(model: Model, folder: Path, scope: str, *, quiet: bool = False) -> BatchModel:
    """The model, asked through its vendor's batch API.

    Args:
        model: `openai/...` or `anthropic/...`.
        folder: Run folder, where the state is kept; it must be there when the model is asked.
        scope: What the replies depend on besides the request's id, such as the run's digest.
        quiet: Say nothing on standard error.

    Raises:
        UsageError: The model has no batch API.
    """
    return BatchModel(_batch_api(model), Store(folder, model.name, scope), quiet=quiet)


def refuse_under_way(model: Model, folder: Path, scope: str, requests: Sequence[str] | None = None) -> None:
    """Before requests with these ids (None: any) are asked directly: not while a batch may answer them.

    Raises:
        RunError: Some of them are in a batch that did not end.
    """
    store = Store(folder, model.name, scope)
    if batches := store.open_batches() if requests is None else store.under_way(requests):
        count = sum(batch.owed for batch in batches)
        raise RunError(
            f"{folder}: {_count(count, 'request')} in {_count(len(batches), 'batch')} ({_names(batches)}) did not end. "
            f"Add --batch to fetch them; or delete {store.folder} to leave them, and pay for their prompts again"
        )


def has_batches(model: Model) -> bool:
    """Whether the model can be asked through a batch API."""
    return _find_api(model) is not None


def _batch_api(model: Model) -> BatchApi:
    api = _find_api(model)
    if api is not None:
        return api
    raise UsageError(f"--batch: {model.name} cannot be asked in batches; openai/... and anthropic/... can")


def _find_api(model: Model) -> BatchApi | None:
    from orbench.models.anthropic import AnthropicModel
    from orbench.models.openai import OpenAIModel

    if isinstance(model, OpenAIModel) and model.service.has_batches:
        from orbench.models.batch.openai import OpenAIBatches

        return OpenAIBatches(model)
    if isinstance(model, AnthropicModel):
        from orbench.models.batch.anthropic import AnthropicBatches

        return AnthropicBatches(model)
    return None


class BatchModel:
    """A model behind a batch API.

    Attributes:
        name: As without batches: the replies are the same.
    """

    batch_size = None
    max_concurrency = None
    needs_machine = False
    price_share = BATCH_SHARE

    def __init__(self, api: BatchApi, store: Store, *, quiet: bool = False) -> None:
        """Nothing is sent; use `in_batches`."""
        self.name = api.model.name
        self._api = api
        self._model = api.model
        self._store = store
        self._quiet = quiet
        self._asked = False
        self._inherited: set[str] | None = None
        self._told = time.monotonic()
        self._largest = api.max_requests
        self._one_at_a_time = False
        self._maybe: set[str] = set()
        """Keys of batches that may have been created without our knowing their id."""
        self._waited_for: set[str] = set()
        """Those of them that were spoken of."""
        self._flying: dict[str, Batch] = {}
        """Batches that did not end, by key."""
        self._left: dict[str, str] = {}
        """Requests that ended batches left open, and why."""
        self._fatal: ModelError | None = None
        """What to raise when all that is there has been read."""

    @property
    def base_url(self) -> str:
        """The model's own address."""
        return self._model.base_url

    @property
    def adaptations(self) -> list[str]:
        """What the model had to change in its requests."""
        return self._model.adaptations

    async def close(self) -> None:
        """Close the connections; batches go on."""
        await self._model.close()

    def note_answered(self) -> None:
        """For the model itself."""
        self._model.note_answered()

    def is_under_way(self, request: str) -> bool:
        """Whether a batch of an earlier command, which did not end, holds the request with this id.

        It is paid for, and the reply comes with the batch when the request is given to `generate`.

        Raises:
            RunError: The state is damaged.
        """
        if self._inherited is None:
            self._inherited = set[str]().union(*(self._store.members(batch) for batch in self._store.open_batches()))
        return hash_of(request) in self._inherited

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """Yield the reply to each request, those of one batch together as it ends.

        Raises:
            RetryableError: Batches ended and left requests open; those are to be given again.
            ModelError: Nothing more can be asked, or the service cannot be reached.
        """
        owed = {hash_of(request.id): request for request in requests}
        self._left, self._fatal = {}, None
        self._store.clean()
        batches = self._store.open_batches()
        members = {batch.key: self._store.members(batch) & owed.keys() for batch in batches}
        self._flying = {batch.key: batch for batch in batches if members[batch.key]}
        self._maybe |= {key for key, batch in self._flying.items() if batch.id is None}
        for batch in self._flying.values():
            self._tell(f"{_known_as(batch)} of {batch.at} ({_count(batch.owed, 'request')}) is gone on with")
        new = [name for name in owed if not any(name in inside for inside in members.values())]
        try:
            if new and not self._asked:
                self._asked = True
                try:
                    completion = await self._directly(owed[new[0]])
                except ModelError as error:
                    if not self._flying:
                        raise
                    self._fatal, new, completion = error, [], None  # first what is there
                if completion is not None:
                    yield completion
                    del owed[new.pop(0)]
            for completion in await self._plan(new, owed):
                yield completion
            async for completion in self._fetch(owed):
                yield completion
        except (asyncio.CancelledError, GeneratorExit):
            self._tell_rest()
            raise
        if self._fatal is not None:
            raise self._fatal
        if self._left:
            raise RetryableError(next(iter(self._left.values())))

    async def _directly(self, request: Request) -> Completion | None:
        """The reply to one request over the ordinary API; None if it cannot be had now, and a batch is to bring it."""
        retries, began, attempt = Retries(), time.monotonic(), 0
        while True:
            attempt += 1
            try:
                async with aclosing(self._model.generate([request])) as completions:
                    return await anext(completions)
            except RejectedError as error:
                return Completion(id=request.id, text="", error=str(error))
            except RetryableError as error:
                if error.unreachable and attempt >= _UNREACHABLE_POLLS:
                    raise ModelError(f"{self.name}: {error}") from None
                wait = retries.next_wait_s(attempt, time.monotonic() - began, error.retry_after)
                if wait is None:
                    return None
                await asyncio.sleep(wait)

    async def _plan(self, names: Sequence[str], owed: dict[str, Request]) -> list[Completion]:
        """Write requests into files as large as the vendor takes; what can never be sent is an error at once."""
        api = self._api
        refused: list[Completion] = []
        draft: Draft | None = None
        for number, name in enumerate(names):
            if number % 500 == 0:
                await asyncio.sleep(0)
            draft = draft or self._store.draft(api.head, api.between, api.tail)
            try:
                line = msgspec.json.encode(api.line(f"{draft.key}-{name}", owed[name]))
            except UnicodeEncodeError as error:
                why = f"the prompt holds what UTF-8 cannot carry: {error.reason}"
                refused.append(Completion(id=owed.pop(name).id, text="", error=why))
                continue
            if draft.requests and (
                draft.requests >= self._largest or draft.size + len(line) + len(api.between) > api.max_bytes
            ):
                self._will_send(draft.keep())
                draft = self._store.draft(api.head, api.between, api.tail)
                line = msgspec.json.encode(api.line(f"{draft.key}-{name}", owed[name]))
            if draft.size + len(line) > api.max_bytes:
                why = f"the request is longer than the {api.max_bytes:,} bytes that a batch may have"
                refused.append(Completion(id=owed.pop(name).id, text="", error=why))
                continue
            draft.add(line)
        if draft is not None and draft.requests:
            self._will_send(draft.keep())
        elif draft is not None:
            draft.drop()
        return refused

    def _will_send(self, batch: Batch) -> None:
        self._flying[batch.key] = batch

    async def _fetch(self, owed: dict[str, Request]) -> AsyncGenerator[Completion, None]:
        """Bring every batch to its end; what it leaves open is in `_left`."""
        interval, failing_since, reached, failures = FIRST_POLL_S, time.monotonic(), False, 0
        while self._flying:
            wait = interval
            for key in list(self._flying):
                try:
                    batch = self._flying[key] = await self._sent(self._flying[key])
                    status = await self._status(batch)
                except RetryableError as error:
                    failures += 1
                    reached = reached or not error.unreachable
                    spent = time.monotonic() - failing_since
                    if (not reached and failures >= _UNREACHABLE_POLLS) or spent > PATIENCE_S:
                        raise self._stopped(self._flying[key], error) from None
                    wait = max(wait, min(error.retry_after or 0.0, PATIENCE_S))
                    continue
                reached, failing_since = True, time.monotonic()
                if status is None or not status.ended:
                    self._tell_how_far(batch, status)
                    continue
                interval = wait = FIRST_POLL_S
                if status.failed is not None:
                    for completion in await self._failed(batch, status, owed):
                        yield completion
                else:
                    async for completion in self._results(batch, status, owed):
                        yield completion
            if self._flying:
                await asyncio.sleep(wait)
                interval = min(2 * interval, LAST_POLL_S)

    async def _sent(self, batch: Batch) -> Batch:
        """The batch with its id: created if it was not yet, and the id saved before anything else."""
        if batch.id is not None:
            return batch
        id: str | None = None
        if batch.key in self._maybe:
            try:
                id, later = await self._api.find(batch, self._store.known_ids())
            except (HttpError, RejectedError) as error:
                if isinstance(error, HttpError) and error.status in NOT_THERE:
                    raise no_batches(self._model, error) from None  # kept: the address may be wrong this time alone
                raise self._meant(error, "cannot ask which batches there are") from None
            if id is None and later:
                if batch.key not in self._waited_for:
                    self._waited_for.add(batch.key)
                    self._tell(
                        f"whether {_known_as(batch)} was created is not known: another of its size is under way. "
                        "Its results will tell; nothing is sent twice"
                    )
                return batch
            self._maybe.discard(batch.key)
        if id is None:
            if self._one_at_a_time and self._others_are_sent(batch):
                return batch
            self._maybe.add(batch.key)  # until the reply is there
            try:
                id = await self._api.create(batch, self._store.path(batch))
            except (HttpError, RejectedError) as error:
                meant = self._meant(error, "the batch was refused")
                if isinstance(meant, ModelError):
                    self._end(batch, f"refused: {error}")
                raise meant from None
            except ModelError as error:  # it was not even asked for
                self._end(batch, f"never created: {error}")
                raise
        self._maybe.discard(batch.key)
        batch = msgspec.structs.replace(batch, id=id)
        self._store.save(batch)
        self._tell(f"{_known_as(batch)} ({_count(batch.requests, 'request')}) is under way; it goes on without us")
        return batch

    async def _status(self, batch: Batch) -> Status | None:
        """Where the batch is; None if it is not known whether it was created, or it has to wait for others."""
        if batch.id is None:
            return None
        try:
            return await self._api.status(batch.id)
        except (HttpError, RejectedError) as error:
            if isinstance(error, HttpError) and error.status == 404:
                raise ModelError(
                    f"{self.name}: {_known_as(batch)} is not known to the service ({error}). Use the key it was made "
                    f"with; or, if it is older than the vendor keeps results, delete {self._store.folder} to ask anew"
                ) from None
            raise self._meant(error, f"{_known_as(batch)} cannot be asked about") from None

    async def _failed(self, batch: Batch, status: Status, owed: dict[str, Request]) -> list[Completion]:
        """Nothing of a batch was done: in smaller ones, or later, if the account's queue was too full for it.

        Raises:
            ModelError: For any other reason.
        """
        members = self._store.members(batch)
        names = [name for name in owed if name in members]
        alone = not self._others_are_sent(batch)
        self._end(batch, f"failed: {status.failed}")
        if not status.queue_is_full or (alone and len(names) < 2):
            raise ModelError(f"{self.name}: {_known_as(batch)} failed as a whole: {status.failed}")
        self._one_at_a_time = True
        if alone:
            self._largest = max(1, len(names) // 2)
        self._tell(f"{_known_as(batch)} did not fit into the account's queue; its requests wait, or go in parts")
        return await self._plan(names, owed)

    async def _results(
        self, batch: Batch, status: Status, owed: dict[str, Request]
    ) -> AsyncGenerator[Completion, None]:
        """The replies of a batch that ended, each once.

        It counts as ended when all its requests have been handed on, or are to be asked again; as long as somebody may
        still want some of them it stays open for those.
        """
        members = self._store.members(batch)
        wanted = members & owed.keys()
        missing = set(wanted)
        self._api.prepare(self._store.path(batch))
        body = self._api.sent_body(self._store.path(batch))
        left: dict[str, str] = {}
        taken = self._store.take(batch)
        failed = 0
        try:
            for _ in range(_DOWNLOADS):  # what one lacks may be in the next
                async for result in self._downloaded(batch, status):
                    name = result.custom_id.removeprefix(f"{batch.key}-")
                    if name not in missing and name not in left:
                        continue
                    missing.discard(name)
                    try:
                        completion = self._read(owed[name].id, result, body)
                    except RetryableError as error:
                        left[name] = str(error)
                    except ModelError as error:
                        left[name] = str(error)
                        self._fatal = self._fatal or error
                    else:
                        failed += completion.error is not None
                        left.pop(name, None)  # of two lines about one request, the one that can be read
                        yield completion
                        taken.append(name)
                        del owed[name]
                if not missing:
                    break
        finally:
            taken.close()
        if len(missing) == len(wanted) >= _UNREADABLE:
            raise ModelError(
                f"{self.name}: the results of {_known_as(batch)} hold nothing that can be read of "
                f"{_count(len(wanted), 'request')}, which are paid for. Nothing is asked again: run the same command "
                f"later, or delete {self._store.folder} to ask anew"
            )
        left |= dict.fromkeys(missing, f"{_known_as(batch)} gave no result for it")
        self._left |= left
        if self._inherited is not None:
            self._inherited -= wanted  # what is asked about them from now on is to be paid for
        rest = members - wanted - self._store.taken(batch)
        self._end(batch, status.said, rest)
        again = f", {len(left):,} to be asked again ({next(iter(left.values()))})" if left else ""
        kept = f"; {len(rest):,} that nobody asks for now are kept for a command that does" if rest else ""
        errors = f", {failed:,} refused by the service" if failed else ""
        answered = len(wanted) - len(left) - failed
        self._tell(f"{_known_as(batch)} {status.said}: {answered:,} answered{errors}{again}{kept}")

    async def _downloaded(self, batch: Batch, status: Status) -> AsyncGenerator[Result, None]:
        """The results, from the start again where the connection breaks."""
        assert batch.id is not None
        retries, began, attempt = Retries(), time.monotonic(), 0
        while True:
            attempt += 1
            try:
                async with aclosing(self._api.results(batch.id, status)) as results:
                    async for result in results:
                        yield result
                return
            except RetryableError as error:
                failure = error
            except (HttpError, RejectedError) as error:
                meant = self._meant(error, f"the results of {_known_as(batch)} cannot be had")
                if not isinstance(meant, RetryableError):
                    raise meant from None
                failure = meant
            wait = retries.next_wait_s(attempt, time.monotonic() - began, failure.retry_after)
            if wait is None:
                raise self._stopped(batch, failure)
            await asyncio.sleep(wait)

    def _read(self, request: str, result: Result, body: dict[str, Any]) -> Completion:
        """What a result means, as if it had come over the ordinary API.

        Raises:
            RetryableError: The request is to be asked again.
            ModelError: No request will do.
        """
        if result.lost == "expired":
            raise RetryableError("it expired before the vendor got to it")
        if result.lost == "cancelled":
            return Completion(id=request, text="", error="the batch was cancelled at the vendor")
        try:
            if result.status != 200:
                raise HttpError(result.status, self._model.wire.without_key(result.body), {})
            completion = self._model.completion(request, result.body)
        except HttpError as error:
            if side := self._model.blocked_by(error):
                return Completion(id=request, text="", finish_reason="content_filter", blocked_by=side)
            if self._model.adapt(error, body):
                raise RetryableError(str(error)) from None
            meant = self._model.error(error)
            if isinstance(meant, (RetryableError, ModelError)):
                raise meant from None
            return Completion(id=request, text="", error=str(meant))
        except RejectedError as error:
            return Completion(id=request, text="", error=str(error))
        usage = completion.usage
        if usage is None:
            return completion
        return msgspec.structs.replace(completion, usage=msgspec.structs.replace(usage, batch=True))

    def _end(self, batch: Batch, how: str, rest: set[str] | frozenset[str] = frozenset()) -> None:
        """Nothing more comes of it, but for what nobody has taken."""
        kept = {"rest": tuple(sorted(rest))} if rest else {"ended": how}
        self._store.save(msgspec.structs.replace(batch, **kept))
        del self._flying[batch.key]

    def _others_are_sent(self, batch: Batch) -> bool:
        return any(other.id is not None for other in self._flying.values() if other.key != batch.key)

    def _meant(self, error: HttpError | RejectedError, what: str) -> ModelError | RetryableError:
        """What an error of the batch API itself means: try again, or stop."""
        meant = self._model.error(error) if isinstance(error, HttpError) else error
        if isinstance(meant, (ModelError, RetryableError)):
            return meant
        return ModelError(f"{self.name}: {what}: {meant}")

    def _stopped(self, batch: Batch, error: RetryableError) -> ModelError:
        return ModelError(
            f"{self.name}: {error}. {_known_as(batch)} goes on at the vendor if it was sent; run the same command again"
        )

    def _tell_how_far(self, batch: Batch, status: Status | None) -> None:
        if status is not None and status.done and time.monotonic() - self._told > _TOLD_S:
            self._told = time.monotonic()
            self._tell(f"{_known_as(batch)} {status.said}: {status.done:,} of {batch.requests:,}")

    def _tell_rest(self) -> None:
        """What an interrupted command leaves behind."""
        if sent := [batch for batch in self._flying.values() if batch.id is not None]:
            self._tell(
                f"{_count(len(sent), 'batch')} ({_names(sent)}) {'goes' if len(sent) == 1 else 'go'} on at the vendor; "
                "the same command fetches what comes of it"
            )

    def _tell(self, what: str) -> None:
        """One line on standard error, beside a progress bar if there is one."""
        if not self._quiet:
            from tqdm import tqdm

            tqdm.write(without_keys(f"orbench: {self.name}: {without_surrogates(what)}"), file=sys.stderr)


def _known_as(batch: Batch) -> str:
    return f"batch {batch.id or batch.key}"


def _names(batches: Sequence[Batch]) -> str:
    return ", ".join(batch.id or batch.key for batch in batches[:3]) + (" and more" if len(batches) > 3 else "")


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "es" if what.endswith("ch") else "s")
