"""Batch APIs of OpenAI (files and batches) and Anthropic (message batches), as far as a client needs them.

A batch gets on when it is asked about, not with time: it is done at the poll after `polls` of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from orbench.testing.server.faults import Faults
from orbench.testing.server.formats import Body, Format, error_body, prompt_of

Respond = Callable[[Format, Body], tuple[int, bytes]]
"""Status and body of the reply to one request."""
Found = tuple[int, Body | bytes]

_CREATED = 1_700_000_000
_DAY = 86_400
_TIME = "2023-11-14T22:13:20Z"


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
    lines: list[Body] = msgspec.field(default_factory=list)
    errors: list[Body] = msgspec.field(default_factory=list)
    counts: dict[str, int] = msgspec.field(default_factory=dict)


class Batches:
    """The state of all files and batches of one server.

    Attributes:
        created: Batches that were ever created.
    """

    def __init__(self, respond: Respond, attempt: Callable[[str], int], faults: Faults, polls: int) -> None:
        """Start empty.

        Args:
            respond: Answers one request, counted as answered.
            attempt: Counts an attempt at a prompt and returns its number.
            faults: Which requests fail or expire.
            polls: Times a batch is asked about before it is done.
        """
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

    def add_file(self, name: str, content: bytes) -> Found:
        """`POST /v1/files`."""
        identity = f"file-{len(self._files) + 1:08d}"
        self._files[identity] = (name, content)
        return 200, self._file(identity)

    def handle(self, method: str, path: str, raw: bytes, root: str) -> Found | None:
        """Any other request below `/v1/files`, `/v1/batches` or `/v1/messages/batches`; None if there is no such."""
        parts = path.removeprefix("/v1/").split("/")
        if parts[0] == "files":
            return self._of_file(method, parts[1:])
        if parts[0] == "batches":
            return self._of_openai(method, parts[1:], raw)
        return self._of_anthropic(method, parts[2:], raw, root)

    def _of_file(self, method: str, parts: list[str]) -> Found | None:
        if method != "GET" or not parts:
            return None
        if parts[0] not in self._files:
            return 404, error_body("chat", 404, f"No such File object: {parts[0]}")
        return 200, self._files[parts[0]][1] if parts[1:] == ["content"] else self._file(parts[0])

    def _file(self, identity: str) -> Body:
        name, content = self._files[identity]
        described = {"id": identity, "object": "file", "filename": name, "bytes": len(content), "purpose": "batch"}
        return {**described, "created_at": _CREATED, "status": "processed"}

    # OpenAI

    def _of_openai(self, method: str, parts: list[str], raw: bytes) -> Found | None:
        if not parts:
            if method == "GET":
                mine = [b for b in self._batches.values() if b.format != "anthropic"]
                return 200, {"object": "list", "data": [self._openai(b) for b in mine], "has_more": False}
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
            "created_at": _CREATED,
            "expires_at": _CREATED + _DAY,
            "metadata": batch.metadata,
            "request_counts": {
                "total": len(batch.requests),
                "completed": batch.counts.get("succeeded", 0),
                "failed": batch.counts.get("errored", 0),
            },
        }
        if status == "failed":
            body["errors"] = {"object": "list", "data": [{"code": "invalid_json_line", "message": batch.invalid}]}
        if status in ended:
            body[ended[status]] = _CREATED + 60
        if batch.done:
            for name, lines in (("output", batch.lines), ("error", batch.errors)):
                if lines:
                    identity = f"file-{name}-{batch.id}"
                    content = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
                    self._files.setdefault(identity, (f"{batch.id}_{name}.jsonl", content))
                    body[f"{name}_file_id"] = identity
        return body

    # Anthropic

    def _of_anthropic(self, method: str, parts: list[str], raw: bytes, root: str) -> Found | None:
        if not parts:
            if method == "GET":
                mine = [b for b in self._batches.values() if b.format == "anthropic"]
                return 200, {"data": [self._anthropic(b, root) for b in mine], "has_more": False}
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
            return 200, b"".join(msgspec.json.encode(line) + b"\n" for line in batch.lines)
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
            "created_at": _TIME,
            "expires_at": _TIME.replace("-14T", "-15T"),
            "ended_at": _TIME if batch.done else None,
            "cancel_initiated_at": _TIME if batch.cancelled else None,
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
        for number, (custom_id, body) in enumerate(batch.requests):
            self._end(batch, custom_id, body, cancelled=number >= reached)

    def _end(self, batch: _Batch, custom_id: str, body: Body, *, cancelled: bool) -> None:
        """Bring one request of a batch to its end."""
        prompt = prompt_of(body)
        fault = None if cancelled else self._faults.batch_fault(prompt, self._attempt(prompt))
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
            batch.lines.append({"custom_id": custom_id, "result": result})
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
        (batch.lines if kind == "succeeded" else batch.errors).append(line)
