"""A stand-in for the Hugging Face Hub on loopback: data sets to read and to write, spoken to by the real libraries.

It answers what `huggingface_hub` and `datasets` ask for to create a data set, commit files (in the commit itself or as
large files) and load it again, and nothing else. Point them at it by `HF_ENDPOINT`, before they are imported, or by
their `endpoint` argument. Large files are taken by the LFS protocol alone: set `HF_HUB_DISABLE_XET=1`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_loopback"  # noqa: S105 - opens nothing but this stand-in
"""What the stand-in takes for a token unless it is told another."""


class LoopbackHub:
    """Data sets on a server of the test's own; a context manager."""

    def __init__(
        self,
        datasets: dict[str, dict[str, bytes]] | None = None,
        *,
        token: str = TOKEN,
        large: tuple[str, ...] = (),
    ) -> None:
        """Prepare it; nothing runs yet.

        Args:
            datasets: `owner/name` to path to content, what is there from the start.
            token: The one that may write.
            large: Ends of file names, such as `.parquet`, that are to be uploaded as large files.
        """
        self.datasets: dict[str, dict[str, bytes]] = datasets or {}
        """`owner/name` to path to content; may be changed at any time."""
        self.private: set[str] = set()
        """The data sets that were created as private ones."""
        self.messages: list[str] = []
        """Messages of the commits, oldest first."""
        self.requests: list[str] = []
        """Method and path of every request, in the order of arrival."""
        self.large = large
        self.objects: dict[str, bytes] = {}
        """Large files by the sha256 of their content, committed or not."""
        self._token = token
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def commit(self, dataset: str) -> str:
        """The commit of a data set's `main`: a digest of its files."""
        digest = hashlib.sha1(usedforsecurity=False)
        for name, content in sorted(self.datasets[dataset].items()):
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()

    def may_write(self, authorization: str | None) -> bool:
        """Whether a request with this header may write."""
        return authorization == f"Bearer {self._token}"

    def __enter__(self) -> LoopbackHub:
        """Start serving."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(hub: LoopbackHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            hub.requests.append(f"{self.command} {path}")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = [unquote(part) for part in path.strip("/").split("/")]
            if path == "/api/validate-yaml":
                self.validate(body)
            elif path == "/api/repos/create":
                self.create(body)
            elif parts[0] == "objects":
                self.store(parts[1], body)
            elif parts[0] == "datasets" and parts[2:][1:3] == ["info", "lfs"]:
                self.large_files(body)
            elif parts[0] == "datasets" and len(parts) > 5 and parts[3] == "resolve":
                self.read("/".join(parts[1:3]), parts[4], "/".join(parts[5:]))
            elif parts[:2] == ["api", "datasets"] and len(parts) >= 4:
                self.about("/".join(parts[2:4]), parts[4:], body)
            else:
                self.missing("EntryNotFound")

        do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

        def do_CONNECT(self) -> None:
            """A request for another host, from a client that has this server as its proxy."""
            hub.requests.append(f"CONNECT {self.path}")
            self.answer(403, b"")

        def about(self, name: str, rest: list[str], body: bytes) -> None:
            action, revision = (*rest, "", "")[:2]
            folder = "/".join(rest[2:])
            if name not in hub.datasets:
                self.missing("RepoNotFound")
                return
            files = hub.datasets[name]
            if revision not in ("", "main", hub.commit(name)):
                self.missing("RevisionNotFound")
            elif action in ("", "revision"):
                siblings = [{"rfilename": path} for path in files]
                private = name in hub.private
                self.json({"id": name, "sha": hub.commit(name), "siblings": siblings, "tags": [], "private": private})
            elif action == "tree":
                self.json([_entry(path, files[path]) for path in files if not folder or path.startswith(f"{folder}/")])
            elif action == "paths-info":
                paths = self.paths(body)
                self.json([_entry(path, files[path]) for path in files if path in paths])
            elif action == "preupload" and self.writer():
                asked = [file["path"] for file in json.loads(body)["files"]]
                modes = [(path, "lfs" if path.endswith(hub.large or "\0") else "regular") for path in asked]
                self.json(
                    {"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes]}
                )
            elif action == "commit" and self.writer():
                self.take(name, body)
            elif action not in ("preupload", "commit"):
                self.missing("EntryNotFound")

        def take(self, name: str, body: bytes) -> None:
            lines = [json.loads(line) for line in body.splitlines()]
            files = dict(hub.datasets[name])
            message = ""
            for key, value in ((line["key"], line["value"]) for line in lines):
                if key == "header":
                    message = value["summary"]
                elif key == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif key == "lfsFile":
                    if value["oid"] not in hub.objects:
                        self.json({"error": f"{value['path']}: its content was never uploaded"}, 400)
                        return
                    files[value["path"]] = hub.objects[value["oid"]]
                elif key == "deletedFile":
                    files.pop(value["path"], None)
            hub.datasets[name] = files
            hub.messages.append(message)
            commit = hub.commit(name)
            self.json({"success": True, "commitOid": commit, "commitUrl": f"{hub.url}/datasets/{name}/commit/{commit}"})

        def validate(self, body: bytes) -> None:
            import yaml

            header = json.loads(body)["content"].split("---\n")[1]
            try:
                errors = [] if isinstance(yaml.safe_load(header), dict) else [{"message": "not a mapping"}]
            except yaml.YAMLError as error:
                errors = [{"message": str(error)}]
            self.json({"errors": errors, "warnings": []}, 400 if errors else 200)

        def create(self, body: bytes) -> None:
            if not self.writer():
                return
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in hub.datasets:
                here = f"{hub.url}/datasets/{name}"
                self.json({"error": "You already created this dataset repo", "url": here}, 409)
                return
            hub.datasets[name] = {}
            if asked.get("private") or asked.get("visibility") == "private":
                hub.private.add(name)
            self.json({"url": f"{hub.url}/datasets/{name}"})

        def large_files(self, body: bytes) -> None:
            if self.writer():
                objects = [
                    {"oid": each["oid"], "size": each["size"]}
                    | ({} if each["oid"] in hub.objects else {"actions": {"upload": {"href": self.place(each["oid"])}}})
                    for each in json.loads(body)["objects"]
                ]
                self.json({"transfer": "basic", "objects": objects})

        def place(self, oid: str) -> str:
            return f"{hub.url}/objects/{oid}"

        def store(self, oid: str, body: bytes) -> None:
            if hashlib.sha256(body).hexdigest() != oid:
                self.answer(400, b"")
                return
            hub.objects[oid] = body
            self.answer(200, b"")

        def read(self, name: str, revision: str, path: str) -> None:
            if name not in hub.datasets:
                self.missing("RepoNotFound")
            elif revision not in ("main", hub.commit(name)):
                self.missing("RevisionNotFound")
            elif path not in hub.datasets[name]:
                self.missing("EntryNotFound", {"X-Repo-Commit": hub.commit(name)})
            else:
                content = hub.datasets[name][path]
                self.answer(200, content, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": hub.commit(name)})

        def writer(self) -> bool:
            if hub.may_write(self.headers.get("Authorization")):
                return True
            self.json({"error": "Invalid username or password."}, 401)
            return False

        def paths(self, body: bytes) -> list[str]:
            if "json" in self.headers.get("Content-Type", ""):
                return list(json.loads(body)["paths"])
            return parse_qs(body.decode())["paths"]

        def missing(self, code: str, headers: dict[str, str] | None = None) -> None:
            self.answer(404, b"{}", {"X-Error-Code": code, **(headers or {})})

        def json(self, value: object, status: int = 200) -> None:
            self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the tests' output clean."""

    return Handler


def _entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "oid": _oid(content), "size": len(content), "path": path}


def _oid(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
