"""A stand-in for the Hugging Face Hub on loopback, spoken to by the real `datasets` and `huggingface_hub`."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

import orbench.splits


@dataclass
class Hub:
    """One dataset repository at one commit."""

    files: dict[str, bytes]
    repository: str = "bench-llm/or-bench"
    commit: str = "0123456789abcdef0123456789abcdef01234567"
    url: str = ""
    requests: list[str] = field(default_factory=list)


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            hub.requests.append(f"{self.command} {url.path}")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            api = f"/api/datasets/{hub.repository}"
            if url.path.startswith(f"/datasets/{hub.repository}/resolve/"):
                revision, _, name = url.path.removeprefix(f"/datasets/{hub.repository}/resolve/").partition("/")
                self.file(unquote(revision), unquote(name))
                return
            if not url.path.startswith(api):
                self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
                return
            action, _, rest = url.path.removeprefix(api).strip("/").partition("/")
            revision, _, folder = rest.partition("/")
            if revision and not self.known(unquote(revision)):
                self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            elif action in {"", "revision"}:
                siblings = [{"rfilename": name} for name in hub.files]
                self.json({"id": hub.repository, "sha": hub.commit, "siblings": siblings, "tags": [], "private": False})
            elif action == "tree":
                self.json([self.entry(name) for name in hub.files if not folder or name.startswith(folder + "/")])
            elif action == "paths-info":
                paths = self.paths(body)
                self.json([self.entry(name) for name in hub.files if name in paths])
            else:
                self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})

        def do_CONNECT(self) -> None:
            """A request for another host: `run_python` makes this server the proxy for those."""
            hub.requests.append(f"CONNECT {self.path}")
            self.answer(403, b"", {})

        do_HEAD = do_POST = do_GET

        def paths(self, body: bytes) -> list[str]:
            if "json" in self.headers.get("Content-Type", ""):
                return list(json.loads(body)["paths"])
            return parse_qs(body.decode())["paths"]

        def known(self, revision: str) -> bool:
            return revision in {"main", hub.commit}

        def entry(self, name: str) -> dict[str, Any]:
            content = hub.files[name]
            return {"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content), "path": name}

        def file(self, revision: str, name: str) -> None:
            if not self.known(revision):
                self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
            elif name not in hub.files:
                self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": hub.commit})
            else:
                etag = f'"{hashlib.sha1(hub.files[name]).hexdigest()}"'
                self.answer(200, hub.files[name], {"ETag": etag, "X-Repo-Commit": hub.commit})

        def json(self, value: object) -> None:
            self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the tests' output clean."""

    return Handler


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A Hub that has the dataset, with no files yet."""
    hub = Hub({})
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs code in a fresh interpreter, because the Hub's libraries read their settings when imported."""

    def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "ORBENCH_"))}
        root = str(Path(orbench.splits.__file__).parents[2])
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.run(
            [sys.executable, "-c", code],
            env=kept | {"PYTHONPATH": path, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1"} | environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORBENCH_DATA_DIR", raising=False)
