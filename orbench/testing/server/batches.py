"""Batch APIs of OpenAI (files and batches) and Anthropic (message batches), as far as a client needs them.

A batch gets on when it is asked about, not with time: it is done at the poll after `polls` of them. Results come in
another order than the requests, as the vendors reserve the right to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from orbench.testing.server.faults import Faults, draw
from orbench.testing.server.formats import Body, Format, error_body, prompt_of

Respond = Callable[[Format, Body], tuple[int, bytes]]
"""Status and body of the reply to one request."""
Found = tuple[int, Body | bytes]

_DAY = 86_400


class _Batch(msgspec.Struct):
    id: str
    format: Format
    requests: list[tuple[str, Body]]
    metadata: Any = None
    input_file: str = ""
    endpoint: str = ""
    polled: int = 0
    cancelled: bool = False
    done: bool = False
    invalid: str | None = None
    lines: list[bytes] = msgspec.field(default_factory=list)
    errors: list[bytes] = msgspec.field(default_factory=list)
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    full: bool = False
    created_at: int = msgspec.field(default_factory=lambda: int(time.time()))


class Batches:
    """The state of all files and batches of one server.

    Attributes:
        created: Batches that were ever created.
        calls: Method and path of every call, in the order of arrival.
    """

    def __init__(
        self, respond: Respond, attempt: Callable[[str], int], faults: Faults, polls: int, queue: int | None = None
    ) -> None:
        """Start empty.

        Args:
            respond: Answers one request, counted as answered.
            attempt: Counts an attempt at a prompt and returns its number.
            faults: Which requests fail or expire.
            polls: Times a batch is asked about before it is done.
            queue: Requests that may be under way at once at OpenAI; a batch beyond them fails. None for any number.
        """
        self.calls: list[tuple[str, str]] = []
        self._queue = queue
        self._respond = respond
        self._attempt = attempt
        self._faults = faults
        self._polls = polls
        self._files: dict[str, tuple[str, bytes]] = {}
        self._batches: dict[str, _Batch] = {}

    @property
    def created(self) -> int:
        """Batches that were ever created."""
        return len(self._batches)

    def cancel(self) -> None:
        """Cancel what is under way, as somebody does on the vendor's pages."""
        for batch in self._batches.values():
            batch.cancelled = batch.cancelled or not batch.done

    def fail(self, reason: str) -> None:
        """Fail what is under way as a whole, as OpenAI does with what it finds wrong."""
        for batch in self._batches.values():
            batch.invalid = batch.invalid or (None if batch.done else reason)

    def add_file(self, name: str, content: bytes) -> Found:
        """`POST /v1/files`."""
        identity = f"file-{len(self._files) + 1:08d}"
        self._files[identity] = (name, content)
        return 200, self._file(identity)

    def handle(self, method: str, path: str, query: Mapping[str, str], raw: bytes, root: str) -> Found | None:
        """Any other request below `/v1/files`, `/v1/batches` or `/v1/messages/batches`; None if there is no such."""
        parts = path.removeprefix("/v1/").split("/")
        if parts[0] == "files":
            return self._of_file(method, parts[1:])
        if parts[0] == "batches":
            return self._of_openai(method, parts[1:], query, raw)
        return self._of_anthropic(method, parts[2:], query, raw, root)

    def _page(self, anthropic: bool, query: Mapping[str, str]) -> tuple[list[_Batch], bool]:
        """The batches that a list shows, the newest first, and whether there are more."""
        found = [batch for batch in reversed(self._batches.values()) if (batch.format == "anthropic") is anthropic]
        ids = [batch.id for batch in found]
        after = query.get("after") or query.get("after_id")
        begin = ids.index(after) + 1 if after in ids else 0
        end = begin + int(query.get("limit", 20))
        for batch in found[begin:end]:
            self._poll(batch)
        return found[begin:end], end < len(found)

    def _of_file(self, method: str, parts: list[str]) -> Found | None:
        if method != "GET" or not parts:
            return None
        if parts[0] not in self._files:
            return 404, error_body("chat", 404, f"No such File object: {parts[0]}")
        if parts[1:] == ["content"]:
            return 200, self._download(parts[0], self._files[parts[0]][1])
        return 200, self._file(parts[0])

    def _download(self, what: str, content: bytes) -> bytes:
        """Results as they are sent: perhaps not to their end."""
        if self._faults.cuts(what, self._attempt(f"download {what}")):
            return content[: len(content) // 2]
        return content

    def _file(self, identity: str) -> Body:
        name, content = self._files[identity]
        described = {"id": identity, "object": "file", "filename": name, "bytes": len(content), "purpose": "batch"}
        return {**described, "created_at": int(time.time()), "status": "processed"}

    # OpenAI

    def _of_openai(self, method: str, parts: list[str], query: Mapping[str, str], raw: bytes) -> Found | None:
        if not parts:
            if method == "GET":
                mine, more = self._page(False, query)
                return 200, {"object": "list", "data": [self._openai(b) for b in mine], "has_more": more}
            return self._create_openai(msgspec.json.decode(raw))
        batch = self._batches.get(parts[0])
        if batch is None or batch.format == "anthropic":
            return 404, error_body("chat", 404, f"No batch found with id '{parts[0]}'.")
        if parts[1:] == ["cancel"] and method == "POST":
            batch.cancelled = True
            return 200, self._openai(batch)
        if method != "GET" or parts[1:]:
            return None
        self._poll(batch)
        return 200, self._openai(batch)

    def _create_openai(self, asked: Body) -> Found:
        file = self._files.get(str(asked.get("input_file_id")))
        if file is None:
            return 400, error_body("chat", 400, f"Invalid input file: {asked.get('input_file_id')}")
        endpoint = str(asked.get("endpoint"))
        batch = _Batch(
            id=f"batch_{len(self._batches) + 1:08d}",
            format="responses" if endpoint.endswith("/responses") else "chat",
            requests=[],
            metadata=asked.get("metadata"),
            input_file=asked["input_file_id"],
            endpoint=endpoint,
        )
        try:
            lines = [msgspec.json.decode(line) for line in file[1].splitlines() if line.strip()]
            batch.requests = [(line["custom_id"], line["body"]) for line in lines]
            if wrong := [line["url"] for line in lines if line["url"] != endpoint or line["method"] != "POST"]:
                batch.invalid = f"url {wrong[0]!r} is not the batch's endpoint"
        except (msgspec.MsgspecError, KeyError, TypeError) as error:
            batch.invalid = f"not JSON Lines of requests: {error!r}"
        if len({custom_id for custom_id, _ in batch.requests}) < len(batch.requests):
            batch.invalid = "duplicate custom_id"
        under_way = sum(len(b.requests) for b in self._batches.values() if not (b.done or b.invalid))
        if self._queue is not None and under_way + len(batch.requests) > self._queue:
            batch.invalid, batch.full = "Enqueued token limit reached; try again when others are done.", True
        self._batches[batch.id] = batch
        return 200, self._openai(batch)

    def _openai(self, batch: _Batch) -> Body:
        expired = batch.counts.get("expired", 0)
        status = "validating" if batch.polled == 0 else "in_progress"
        if batch.cancelled:
            status = "cancelled" if batch.done else "cancelling"
        elif batch.invalid and batch.polled:
            status = "failed"
        elif batch.done:
            status = "expired" if expired else "completed"
        ended = {"completed": "completed_at", "expired": "expired_at", "cancelled": "cancelled_at"}
        body: Body = {
            "id": batch.id,
            "object": "batch",
            "endpoint": batch.endpoint,
            "input_file_id": batch.input_file,
            "completion_window": "24h",
            "status": status,
            "output_file_id": None,
            "error_file_id": None,
            "errors": None,
            "created_at": batch.created_at,
            "expires_at": batch.created_at + _DAY,
            "metadata": batch.metadata,
            "request_counts": {
                "total": len(batch.requests),
                "completed": batch.counts.get("succeeded", 0),
                "failed": batch.counts.get("errored", 0),
            },
        }
        if status == "failed":
            code = "token_limit_exceeded" if batch.full else "invalid_json_line"
            body["errors"] = {"object": "list", "data": [{"code": code, "message": batch.invalid}]}
        if status in ended:
            body[ended[status]] = batch.created_at + 60
        if batch.done:
            for name, lines in (("output", batch.lines), ("error", batch.errors)):
                if lines:
                    identity = f"file-{name}-{batch.id}"
                    self._files.setdefault(identity, (f"{batch.id}_{name}.jsonl", b"".join(lines)))
                    body[f"{name}_file_id"] = identity
        return body

    # Anthropic

    def _of_anthropic(
        self, method: str, parts: list[str], query: Mapping[str, str], raw: bytes, root: str
    ) -> Found | None:
        if not parts:
            if method == "GET":
                mine, more = self._page(True, query)
                return 200, {"data": [self._anthropic(b, root) for b in mine], "has_more": more}
            return self._create_anthropic(msgspec.json.decode(raw), root)
        batch = self._batches.get(parts[0])
        if batch is None or batch.format != "anthropic":
            return 404, error_body("anthropic", 404, f"No batch {parts[0]}")
        if parts[1:] == ["cancel"] and method == "POST":
            batch.cancelled = True
            return 200, self._anthropic(batch, root)
        if method != "GET":
            return None
        if parts[1:] == ["results"]:
            if not batch.done:
                return 404, error_body("anthropic", 404, f"{batch.id} has no results yet")
            return 200, self._download(batch.id, b"".join(batch.lines))
        self._poll(batch)
        return 200, self._anthropic(batch, root)

    def _create_anthropic(self, asked: Body, root: str) -> Found:
        requests = [(line.get("custom_id"), line.get("params")) for line in asked.get("requests") or []]
        if not requests or len({custom_id for custom_id, _ in requests}) < len(requests):
            return 400, error_body("anthropic", 400, "requests: at least one, each custom_id once")
        batch = _Batch(id=f"msgbatch_{len(self._batches) + 1:08d}", format="anthropic", requests=requests)
        self._batches[batch.id] = batch
        return 200, self._anthropic(batch, root)

    def _anthropic(self, batch: _Batch, root: str) -> Body:
        status = "ended" if batch.done else "canceling" if batch.cancelled else "in_progress"
        kinds = ("succeeded", "errored", "canceled", "expired")
        counts = {kind: batch.counts.get(kind, 0) for kind in kinds}
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": status,
            "request_counts": {"processing": 0 if batch.done else len(batch.requests), **counts},
            "created_at": _told(batch.created_at),
            "expires_at": _told(batch.created_at + _DAY),
            "ended_at": _told(batch.created_at + 60) if batch.done else None,
            "cancel_initiated_at": _told(batch.created_at) if batch.cancelled else None,
            "archived_at": None,
            "results_url": f"{root}/v1/messages/batches/{batch.id}/results" if batch.done else None,
        }

    # Both

    def _poll(self, batch: _Batch) -> None:
        batch.polled += 1
        if batch.done or batch.invalid or (batch.polled <= self._polls and not batch.cancelled):
            return
        batch.done = True
        # A batch that is cancelled keeps what it had got to: half of it.
        reached = len(batch.requests) // 2 if batch.cancelled else len(batch.requests)
        for number, (custom_id, body) in sorted(enumerate(batch.requests), key=lambda one: draw(one[1][0])):
            self._end(batch, custom_id, body, cancelled=number >= reached)

    def _end(self, batch: _Batch, custom_id: str, body: Body, *, cancelled: bool) -> None:
        """Bring one request of a batch to its end."""
        prompt = prompt_of(body)
        attempt = self._attempt(prompt)
        fault = None if cancelled else self._faults.batch_fault(prompt, attempt)
        kind = "canceled" if cancelled else "expired" if fault == "expired" else "succeeded"
        status, content = 0, b"null"
        if fault == "failed":
            status, content = 500, msgspec.json.encode(error_body(batch.format, 500, "The server had an error."))
        elif kind == "succeeded":
            status, content = self._respond(batch.format, body)
        if kind == "succeeded" and status != 200:
            kind = "errored"
        batch.counts[kind] = batch.counts.get(kind, 0) + 1
        found = msgspec.Raw(content)
        if batch.format == "anthropic":
            result: Body = {"type": kind}
            if status:
                result["message" if kind == "succeeded" else "error"] = found
            batch.lines.append(self._written({"custom_id": custom_id, "result": result}, prompt, attempt))
            return
        line: Body = {
            "id": f"batch_req_{batch.id}_{custom_id}",
            "custom_id": custom_id,
            "response": None,
            "error": None,
        }
        if status:
            line["response"] = {"status_code": status, "request_id": f"req_{custom_id}", "body": found}
        else:
            code = "batch_cancelled" if cancelled else "batch_expired"
            line["error"] = {"code": code, "message": "This request was not executed before the batch ended."}
        (batch.lines if kind == "succeeded" else batch.errors).append(self._written(line, prompt, attempt))

    def _written(self, line: Body, prompt: str, attempt: int) -> bytes:
        """A result as it stands in the file, if it does."""
        content = msgspec.json.encode(line) + b"\n"
        fault = self._faults.line_fault(prompt, attempt)
        if fault == "batch_missing":
            return b""
        if fault == "batch_garbled":
            return content[: len(content) // 2] + b"\n"
        return 2 * content if fault == "batch_repeated" else content


def _told(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
