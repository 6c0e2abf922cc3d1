"""What a failed exchange means, told apart without a connection."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx2
import pytest

from orbench import ModelError, RejectedError, RetryableError
from orbench.models.wire import HttpError, meaning, post, retry_after


class FailingClient:
    """Stands where a vendor's HTTP client would, and fails as it is told."""

    def __init__(self, error: Callable[[], Exception]) -> None:
        self._error = error

    def build_request(self, method: str, url: str, **rest: Any) -> None:
        return None

    async def send(self, request: None, *, stream: bool) -> None:
        raise self._error()


def outcome_of(error: Callable[[], Exception]) -> Exception:
    with pytest.raises((ModelError, RetryableError)) as caught:
        asyncio.run(post(FailingClient(error), "http://127.0.0.1:1/v1", {}, {}))
    return caught.value


def wrapped(inner: Exception) -> Exception:
    try:
        raise httpx2.ConnectError(str(inner)) from inner
    except httpx2.ConnectError as error:
        return error


class AnsweringClient:
    """Gives one answer, and keeps whether it was closed."""

    headers: Mapping[str, str] = {}

    def __init__(self, status: int, body: bytes) -> None:
        self.status_code = status
        self.closed = False
        self._body = body

    def build_request(self, method: str, url: str, **rest: Any) -> None:
        return None

    async def send(self, request: None, *, stream: bool) -> AnsweringClient:
        return self

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        yield self._body

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": "Bearer k3y"}, {"X-Api-Key": "k3y"}, {"x-goog-api-key": "k3y"}, {"api-key": "k3y"}],
)
def test_a_key_that_the_service_repeats_is_taken_out_and_nothing_else(headers: dict[str, str]) -> None:
    client = AnsweringClient(401, b"Not as JSON: k3y")
    with pytest.raises(HttpError) as caught:
        asyncio.run(post(client, "http://127.0.0.1:1/v1", {**headers, "Accept": "JSON", "x-empty": ""}, {}))
    assert str(caught.value) == "HTTP 401: Not as JSON: [key]"


def test_an_answer_is_always_closed() -> None:
    client = AnsweringClient(200, b"{}")
    assert asyncio.run(post(client, "http://127.0.0.1:1/v1", {}, {})) == b"{}"
    assert client.closed


def test_a_certificate_that_is_not_trusted_is_unreachable() -> None:
    place: Any = SimpleNamespace(host="127.0.0.1", port=1, ssl=True, is_ssl=True)
    certificate = ssl.SSLCertVerificationError(1, "self-signed certificate")
    failure = outcome_of(lambda: wrapped(aiohttp.ClientConnectorCertificateError(place, certificate)))
    assert isinstance(failure, RetryableError)
    assert failure.unreachable
    assert "self-signed certificate" in str(failure)


def test_a_read_that_takes_too_long_may_be_tried_again() -> None:
    failure = outcome_of(lambda: httpx2.ReadTimeout("too slow"))
    assert isinstance(failure, RetryableError)
    assert not failure.unreachable


@pytest.mark.parametrize("error", [httpx2.UnsupportedProtocol("x"), httpx2.InvalidURL("x"), ValueError("x")])
def test_an_address_that_cannot_be_asked_stops_the_run(error: Exception) -> None:
    failure = outcome_of(lambda: error)
    assert isinstance(failure, ModelError)
    assert "http://127.0.0.1:1/v1" in str(failure)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "Two\\n lines."}}', "Two lines."),
        (b'[{"error": {"message": "In a list."}}]', "In a list."),
        (b'{"error": "A text."}', "A text."),
        (b'{"message": "At the top."}', "At the top."),
        (b'{"detail": "Elsewhere."}', '{"detail": "Elsewhere."}'),
        (b"<h1>Bad gateway</h1>", "<h1>Bad gateway</h1>"),
        (b"\xff", "\ufffd"),
        (b"[" * 100_000, "[" * 300),
        (b"", ""),
    ],
)
def test_the_service_s_own_words_are_found_in_any_body(body: bytes, message: str) -> None:
    assert HttpError(500, body, {}).message == message


@pytest.mark.parametrize("body", [b'{"error": {"innererror": "flat"}}', b"[]", b"7", b"null"])
def test_an_odd_body_names_no_code(body: bytes) -> None:
    assert HttpError(400, body, {}).codes == ""


def test_a_long_message_is_cut() -> None:
    assert len(HttpError(500, b"a" * 1000, {}).message) == 300


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, RejectedError), (413, RejectedError), (422, RejectedError), (425, RetryableError), (599, RetryableError)],
)
def test_other_statuses_concern_one_request(status: int, kind: type[Exception]) -> None:
    assert type(meaning(HttpError(status, b"", {}), "openai/tiny", None, "http://127.0.0.1")) is kind


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:27:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "soon"}, None),
    ],
)
def test_the_wish_to_wait_is_read_from_seconds_milliseconds_or_a_date(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], seconds: float | None
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1445412480.0)  # 21 Oct 2015 07:28:00 GMT
    assert retry_after(headers) == seconds
