"""What a run folder keeps of its batches, so that whatever stops the program, nothing is paid for twice.

    batches/MODEL-DIGEST/state.jsonl    a line for each step of a batch; the last one of its key counts
    batches/MODEL-DIGEST/KEY.jsonl      what is sent, one request a line; there from before the batch is until its
                                        results are saved
    batches/MODEL-DIGEST/KEY.taken      the requests whose results were handed on to somebody who saved them

A batch has a key of ours, drawn before anything is sent, and each of its requests a name `KEY-HASH` that the vendor
gives back: so a batch whose id was never saved can be told, and which request a result belongs to needs no table.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from orbench.engine.jsonl import Appender, read_lines
from orbench.engine.run_folder import folder_name
from orbench.errors import RunError

FOLDER = "batches"
_STATE = "state.jsonl"


class Batch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One batch, as far as it got."""

    key: str
    """Ours: 12 hexadecimal digits."""
    requests: int
    at: str
    """When it was planned: UTC, ISO 8601."""
    id: str | None = None
    """The vendor's; None while nobody knows whether it was created."""
    ended: str | None = None
    """How it ended, once all that it brought is saved."""
    rest: tuple[str, ...] | None = None
    """Hashes of the requests that nobody wanted when its results were read; None before that. The vendor has them."""

    @property
    def owed(self) -> int:
        """Requests that may still bring something."""
        return self.requests if self.rest is None else len(self.rest)


class _Named(msgspec.Struct):
    custom_id: str


class Store:
    """The batches of one model in one run folder.

    Attributes:
        folder: Where they are.
    """

    def __init__(self, run: Path, model: str, scope: str) -> None:
        """Nothing is read or written yet.

        Args:
            run: The run folder.
            model: The model's name.
            scope: What the replies depend on besides model and request: a batch of another scope is not this one's.
        """
        self.folder = run / FOLDER / folder_name(model, hashlib.sha256(scope.encode()).hexdigest()[:8])

    def open_batches(self) -> list[Batch]:
        """Those that did not end, in the order in which they were planned.

        Raises:
            RunError: The state is damaged.
        """
        found = {batch.key: batch for batch in read_lines(self.folder / _STATE, Batch)}
        return [batch for batch in found.values() if batch.ended is None]

    def clean(self) -> None:
        """Delete what was written of batches that nobody knows of: the program was stopped over it."""
        known = {batch.key for batch in read_lines(self.folder / _STATE, Batch)}
        for path in self.folder.glob("*"):
            if path.name != _STATE and (path.suffix == ".part" or path.stem not in known):
                path.unlink(missing_ok=True)

    def known_ids(self) -> set[str]:
        """The vendor's ids of all batches of the folder."""
        return {batch.id for batch in read_lines(self.folder / _STATE, Batch) if batch.id}

    def path(self, batch: Batch) -> Path:
        """What is sent."""
        return self.folder / f"{batch.key}.jsonl"

    def members(self, batch: Batch) -> set[str]:
        """The hashes of a batch's requests; once its results were read, of those that nobody has taken.

        Raises:
            RunError: The file is gone or damaged.
        """
        path = self.path(batch)
        try:
            with path.open("rb") as file:
                names = [msgspec.json.decode(line.strip(b",\n"), type=_Named) for line in file if b"custom_id" in line]
        except (OSError, msgspec.MsgspecError) as error:
            raise RunError(
                f"{path}: cannot be read ({error}). Restore it, or delete {self.folder} to ask its prompts anew"
            ) from None
        hashes = {name.custom_id.rpartition("-")[2] for name in names}
        return hashes if batch.rest is None else hashes.intersection(batch.rest)

    def taken(self, batch: Batch) -> set[str]:
        """The hashes of those whose results were handed on, by whatever command."""
        return set(read_lines(self._taken(batch), str))

    def take(self, batch: Batch) -> Appender[str]:
        """Where to write the hash of each request whose result was handed on, when it was."""
        return Appender(self._taken(batch))

    def _taken(self, batch: Batch) -> Path:
        return self.folder / f"{batch.key}.taken"

    def draft(self, head: bytes, between: bytes, tail: bytes) -> Draft:
        """Begin a new batch: the file with what stands before, between and after its requests."""
        key = secrets.token_hex(6)
        return Draft(self, key, self.folder / f"{key}.jsonl", (head, between, tail))

    def add(self, key: str, requests: int) -> Batch:
        """Keep that a batch, whose file is written, is about to be sent."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        batch = Batch(key=key, requests=requests, at=now)
        self.save(batch)
        return batch

    def save(self, batch: Batch) -> None:
        """Keep how far a batch got, on the disk itself before anything else happens."""
        state: Appender[Batch] = Appender(self.folder / _STATE)
        try:
            state.append(batch)
        finally:
            state.close()
        if batch.ended is not None:
            self.path(batch).unlink(missing_ok=True)
            self._taken(batch).unlink(missing_ok=True)

    def under_way(self, requests: Iterable[str]) -> list[Batch]:
        """The open batches that hold any of the requests with these ids."""
        batches = self.open_batches()
        hashes = {hash_of(request) for request in requests} if batches else set()
        return [batch for batch in batches if not hashes.isdisjoint(self.members(batch))]


class Draft:
    """A batch that is being written; nobody knows of it before `keep`.

    Attributes:
        key: The batch's.
        requests: Requests written so far.
        size: Bytes the file will have.
    """

    def __init__(self, store: Store, key: str, path: Path, form: tuple[bytes, bytes, bytes]) -> None:
        """Open the file; use `Store.draft`.

        Raises:
            RunError: It cannot be written, here and in the other methods.
        """
        self.key = key
        self.requests = 0
        self._store = store
        self._path = path
        self._part = path.with_suffix(".part")
        head, self._between, self._tail = form
        self.size = len(head) + len(self._tail)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("wb")
        except OSError as error:
            raise self._failed(error) from None
        self._write(head)

    def add(self, line: bytes) -> None:
        """Write one request."""
        content = self._between + line if self.requests else line
        self._write(content)
        self.size += len(content)
        self.requests += 1

    def keep(self) -> Batch:
        """End the file, bring it to the disk, then note the batch."""
        self._write(self._tail)
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._part.replace(self._path)
        except OSError as error:
            raise self._failed(error) from None
        return self._store.add(self.key, self.requests)

    def drop(self) -> None:
        """Leave nothing of it."""
        self._file.close()
        self._part.unlink(missing_ok=True)

    def _write(self, content: bytes) -> None:
        try:
            self._file.write(content)
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> RunError:
        with suppress(OSError):
            self._part.unlink(missing_ok=True)
        return RunError(f"{self._path}: cannot be written: {error.strerror}. Make room or choose another --out")


def hash_of(request: str) -> str:
    """A request's id in 32 characters, which every vendor takes."""
    return hashlib.blake2b(request.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
