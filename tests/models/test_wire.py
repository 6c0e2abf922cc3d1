"""What a failed exchange means, told apart without a connection."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orbench import ModelError, RejectedError, RetryableError
from orbench.models.wire import HttpError, Wire, meaning, retry_after
from orbench.testing import LoopbackServer


def outcome_of(url: str, **options: Any) -> Exception:
    async def main() -> None:
        wire = Wire(url, {"Authorization": "Bearer sk-secret"}, **options)
        try:
            await wire.post({})
        finally:
            await wire.close()

    with pytest.raises((ModelError, RetryableError)) as caught:
        asyncio.run(main())
    return caught.value


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and the certificate that vouches for itself, in one file."""
    path = tmp_path / "own.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "2"]
    subprocess.run([*command, "-keyout", path, "-out", tmp_path / "certificate"], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + (tmp_path / "certificate").read_bytes())
    return path


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the program openssl")
def test_a_certificate_that_is_not_trusted_is_unreachable_and_sees_no_key(certificate: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    seen: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
            seen.append(secure.recv(100))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        failure = outcome_of(f"https://127.0.0.1:{listener.getsockname()[1]}/v1")
        thread.join()
    assert isinstance(failure, RetryableError)
    assert failure.unreachable
    assert "certificate" in str(failure).lower()
    assert seen in ([], [b""])


@pytest.mark.parametrize("url", ["http://127.0.0.1:port/v1", "ftp://127.0.0.1/v1", "http://"])
def test_an_address_that_cannot_be_asked_stops_the_run(url: str) -> None:
    failure = outcome_of(url)
    assert isinstance(failure, ModelError)
    assert url in str(failure)


def test_a_redirect_is_not_followed_so_the_key_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    async def post(url: str) -> None:
        wire = Wire(url, {"Authorization": "Bearer sk-secret"})
        try:
            await wire.post({"messages": "Hello"})
        finally:
            await wire.close()

    with LoopbackServer() as elsewhere:
        target = elsewhere.base_url.replace("127.0.0.1", "localhost") + "/chat/completions"
        with LoopbackServer((307, {}, {"Location": target})) as server, pytest.raises(HttpError, match="307"):
            asyncio.run(post(server.base_url + "/chat/completions"))
        assert elsewhere.headers == []


def test_the_proxy_of_the_environment_is_used_but_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    wire = Wire("http://service.example/v1", {})
    assert wire._proxy("http://service.example/v1") == "http://proxy.example:3128"
    assert wire._proxy("http://inside.example/v1") is None
    assert wire._proxy("http://127.0.0.1:8000/v1") is None


@contextlib.contextmanager
def proxy_that_says(status: bytes) -> Iterator[int]:
    """A proxy that turns its one client away; yields its port."""

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4000)
            connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_a_proxy_that_wants_another_login_stops_the_run_and_its_password_is_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with proxy_that_says(b"407 Proxy Authentication Required") as port:
        monkeypatch.setenv("https_proxy", f"http://user:pa%40ss-word@127.0.0.1:{port}")
        failure = outcome_of("https://service.invalid/v1")
    assert isinstance(failure, ModelError)
    assert "407" in str(failure)
    assert "HTTPS_PROXY" in str(failure)
    assert "ss-word" not in str(failure)


def test_a_proxy_that_does_not_get_through_may_do_so_later(monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy_that_says(b"502 Bad Gateway") as port:
        monkeypatch.setenv("https_proxy", f"http://user:pass-word@127.0.0.1:{port}")
        failure = outcome_of("https://service.invalid/v1")
    assert isinstance(failure, RetryableError)
    assert "502 Bad Gateway" in str(failure)
    assert "pass-word" not in str(failure)


@pytest.mark.parametrize("proxy", ["socks5://user:pass-word@127.0.0.1:1", "http://user:pass-word@127.0.0.1:port"])
def test_no_password_of_an_odd_proxy_is_told(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    assert "pass-word" not in str(outcome_of("http://service.invalid/v1"))


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
    [
        (407, ModelError),
        (400, RejectedError),
        (413, RejectedError),
        (422, RejectedError),
        (425, RetryableError),
        (599, RetryableError),
    ],
)
def test_a_status_tells_a_run_from_a_call_and_from_a_request(status: int, kind: type[Exception]) -> None:
    assert type(meaning(HttpError(status, b"", {}), "openai/tiny", None, "http://127.0.0.1")) is kind


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:27:00 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "soon"}, None),
    ],
)
def test_the_wish_to_wait_is_read_from_seconds_milliseconds_or_a_date(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers) == seconds


def test_a_large_body_is_sent_whole_and_without_a_warning() -> None:
    text = "word " * 500_000

    async def main() -> bytes:
        wire = Wire(f"{server.base_url}/chat/completions", {})
        try:
            return await wire.post({"model": "any", "messages": [{"role": "user", "content": text}]})
        finally:
            await wire.close()

    with LoopbackServer("Certainly.") as server:
        assert b"Certainly" in asyncio.run(main())
    assert server.requests[0]["messages"][0]["content"] == text
