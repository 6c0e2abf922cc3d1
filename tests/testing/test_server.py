"""The service on loopback, which users' own tests rely on."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from orbench.testing import LoopbackServer, chat_completion


def post(server: LoopbackServer, body: dict[str, Any], **headers: str) -> Any:
    request = urllib.request.Request(
        f"{server.base_url}/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **headers},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as response:
        return json.load(response)


def test_a_text_is_answered_as_a_chat_completion() -> None:
    with LoopbackServer("Well, certainly.") as server:
        assert post(server, {"model": "m"}) == chat_completion("Well, certainly.")
    assert server.answered == 1


def test_a_chat_completion_counts_its_tokens() -> None:
    body = chat_completion("Well, certainly.", finish_reason="length", refusal=None)
    assert body["usage"] == {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "Well, certainly.", "refusal": None}


@pytest.mark.parametrize("reply", [{"any": 1}, b'{"any": 1}', (200, {"any": 1}), (200, b'{"any": 1}')])
def test_a_body_is_answered_as_it_is(reply: Any) -> None:
    with LoopbackServer(reply) as server:
        assert post(server, {}) == {"any": 1}
    assert server.answered == 1


def test_a_function_answers_by_the_request_s_body() -> None:
    with LoopbackServer(lambda body: body["model"]) as server:
        assert post(server, {"model": "m"}) == chat_completion("m")


def test_a_status_and_headers_are_sent() -> None:
    with LoopbackServer((429, {"error": {}}, {"Retry-After": "3"})) as server:
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(server, {})
        caught.value.close()
    assert (caught.value.code, caught.value.headers["Retry-After"]) == (429, "3")
    assert server.answered == 0
    assert len(server.requests) == 1


def test_requests_and_their_headers_are_kept() -> None:
    with LoopbackServer() as server:
        post(server, {"model": "one"}, Authorization="Bearer x")
        post(server, {"model": "two"})
    assert server.requests == [{"model": "one"}, {"model": "two"}]
    assert server.headers[0]["authorization"] == "Bearer x"


def test_it_tells_how_long_it_was_busy() -> None:
    with LoopbackServer() as server:
        assert server.served_s == 0
        post(server, {})
        first = server.served_s
        post(server, {})
    assert 0 < first < server.served_s


def test_it_serves_the_same_address_when_entered_again() -> None:
    server = LoopbackServer()
    with server:
        first = server.base_url
    with pytest.raises(urllib.error.URLError, match="refused"):
        post(server, {})
    with server:
        post(server, {})
        assert server.base_url == first
    assert server.answered == 1


def test_leaving_drops_open_requests() -> None:
    with LoopbackServer(latency_s=600) as server:
        connection = socket.create_connection(("127.0.0.1", server.port))
        connection.settimeout(60)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
        connection.sendall(head + b"Expect: 100-continue\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")  # from here on it is being answered
        connection.sendall(b"{}")
    with connection, contextlib.suppress(ConnectionResetError):
        assert connection.recv(100) == b""
    assert server.answered == 0


def test_a_port_that_is_taken_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = LoopbackServer()
        server.port = taken.getsockname()[1]
        with pytest.raises(OSError, match=str(server.port)), server:
            raise AssertionError("it must not start")


def test_a_log_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="log"), LoopbackServer(log=tmp_path / "none" / "log"):
        raise AssertionError("it must not start")


@pytest.mark.parametrize(
    ("argument", "said"), [("--log=/nonexistent/x", "No such file"), ("--rate-limited=20", "rate_limited")]
)
def test_the_program_says_in_a_line_what_cannot_be(argument: str, said: str) -> None:
    command = [sys.executable, "-m", "orbench.testing.server", argument]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
