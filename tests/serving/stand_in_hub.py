"""A Hub on loopback: the routes that huggingface_hub asks to write a repository and to read it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "hf_standin"


class StandIn:
    """Repositories of one server.

    Attributes
    ----------
    url : of the server.
    repositories : contents of files by path, by name of the repository.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.repositories: dict[str, dict[str, bytes]] = {}

    def commit(self, name: str) -> str:
        """The 40 digits of a repository's contents."""
        text = repr(sorted(self.repositories[name].items())).encode()
        return hashlib.sha1(text).hexdigest()

    def create(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = f"{asked['organization']}/{asked['name']}"
        self.repositories.setdefault(name, {})
        return {"url": f"{self.url}/{name}"}

    def preupload(self, asked: dict[str, Any]) -> dict[str, Any]:
        files = [{"path": f["path"], "uploadMode": "regular"} for f in asked["files"]]
        return {"files": [{**f, "shouldIgnore": False} for f in files]}

    def write(self, name: str, lines: bytes) -> dict[str, Any]:
        for line in map(json.loads, lines.splitlines()):
            if line["key"] == "file":
                value = line["value"]
                assert value["encoding"] == "base64"
                self.repositories[name][value["path"]] = base64.b64decode(value["content"])
        commit = self.commit(name)
        return {"commitUrl": f"{self.url}/{name}/commit/{commit}", "commitOid": commit}

    def tree(self, name: str) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for path, data in self.repositories[name].items()
        ]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: StandIn

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        path = self.path.partition("?")[0]
        if self.headers.get("authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            self._answer(200, self.hub.create(json.loads(body)))
        elif path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif re.fullmatch(r"/api/models/[\w/]+/preupload/main", path):
            self._answer(200, self.hub.preupload(json.loads(body)))
        elif match := re.fullmatch(r"/api/models/(\w+/\w+)/commit/main", path):
            self._answer(200, self.hub.write(match[1], body))
        else:
            self._unknown()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        match = re.fullmatch(r"(?:/api/models)?/(\w+/\w+)/(revision|tree|resolve)/(.+)", path)
        if match is None:
            self._unknown()
            return
        name, what, rest = match.groups()
        if name not in self.hub.repositories:
            missing = {"x-error-code": "RepoNotFound", "x-error-message": "Repository not found"}
            self._answer(404, {"error": "Repository not found"}, missing)
        elif what == "revision":
            self._answer(200, {"id": name, "sha": self.hub.commit(name), "siblings": []})
        elif what == "tree":
            self._answer(200, self.hub.tree(name))
        else:
            commit, _, file = rest.partition("/")
            assert commit == self.hub.commit(name)
            data = self.hub.repositories[name][file]
            tag = {"etag": f'"{hashlib.sha1(data).hexdigest()}"', "x-repo-commit": commit}
            self._answer(200, data, tag)

    do_HEAD = do_GET

    def _unknown(self) -> None:
        """What the client asks for besides, and does without."""
        self._answer(404, {"error": "no such route"})

    def _answer(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        kind = "octet-stream" if isinstance(value, bytes) else "json"
        self.send_response(status)
        self.send_header("content-type", f"application/{kind}")
        self.send_header("content-length", str(len(data)))
        for key, text in (headers or {}).items():
            self.send_header(key, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def stand_in_hub() -> Iterator[StandIn]:
    """An empty Hub, as long as the context lasts."""
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.hub = StandIn(f"http://127.0.0.1:{server.server_port}")
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield handler.hub
        finally:
            server.shutdown()
            thread.join()
