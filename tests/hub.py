"""A model hub of our own on loopback: what huggingface_hub asks of one, from folders, with faults on demand.

    with Hub({"org/name": folder}) as hub:
        subprocess.run([...], env={**os.environ, **hub.environment(home)})
        hub.asked          # every request: method, path, Range, status
        hub.commit("org/name")

Small files come from the hub itself; weights are redirected to another host ("localhost" for 127.0.0.1), as large
files of the real hub are.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

API = re.compile(r"/api/models/(?P<name>[^/]+/[^/]+)(?:/(?P<what>revision|tree)/(?P<revision>[^/]+))?")
FILE = re.compile(r"(?P<cdn>/cdn)?/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass(frozen=True)
class Asked:
    """One request and how it was answered."""

    method: str
    path: str
    range: str | None
    status: int


@dataclass(frozen=True)
class Refusal:
    """An answer in the place of what was asked for."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


class Hub:
    """The server. `refuse` maps a repository to what it is refused with; `cut` is how many bytes of the first answer
    with weights are sent before the connection breaks, `slow` how many seconds pass between pieces of weights."""

    def __init__(self, repositories: Mapping[str, Path]) -> None:
        self.repositories = dict(repositories)
        self.asked: list[Asked] = []
        self.refuse: dict[str, Refusal | Callable[[str], Refusal | None]] = {}
        self.cut: int | None = None
        self.slow = 0.0
        self.extra: dict[str, str] = {}
        """Headers of every answer about weights."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub._answer(self, body=True)

            def do_HEAD(self) -> None:
                hub._answer(self, body=False)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Go off the network."""
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path) -> dict[str, str]:
        """What a process needs to use this hub with an empty cache of its own."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}

    def commit(self, name: str) -> str:
        """The commit that `main` points to: it changes with every file."""
        digest = hashlib.sha1(name.encode())
        for path in self._files(name):
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()

    def sent(self, ending: str) -> list[Asked]:
        """What was asked about files of this ending, without the questions for their size."""
        return [one for one in self.asked if one.path.endswith(ending) and one.method == "GET"]

    def _files(self, name: str) -> list[Path]:
        return sorted(path for path in self.repositories[name].iterdir() if path.is_file())

    def _answer(self, to: BaseHTTPRequestHandler, body: bool) -> None:
        path = unquote(urlsplit(to.path).path)
        found = API.fullmatch(path) or FILE.fullmatch(path)
        refusal = self._refusal(found, path)
        if refusal is not None:
            self._send(to, refusal.status, {**refusal.headers, "Content-Length": "0"})
        elif found is not None and "file" in found.groupdict():
            self._file(to, found, body)
        elif found is not None:
            self._about(to, found["name"], found["what"])

    def _refusal(self, found: re.Match[str] | None, path: str) -> Refusal | None:
        if found is None:
            return Refusal(404)
        name, revision = found["name"], found["revision"]
        chosen = self.refuse.get(name)
        chosen = chosen(path) if callable(chosen) else chosen
        if chosen is not None:
            return chosen
        if name not in self.repositories:
            return Refusal(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."})
        if revision not in (None, "main", self.commit(name)):
            return Refusal(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"No {revision}"})
        if "file" in found.groupdict() and not (self.repositories[name] / found["file"]).is_file():
            return Refusal(404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "No such file"})
        return None

    def _about(self, to: BaseHTTPRequestHandler, name: str, what: str | None) -> None:
        files = self._files(name)
        answer: object = {
            "id": name,
            "modelId": name,
            "sha": self.commit(name),
            "private": False,
            "siblings": [{"rfilename": path.name} for path in files],
        }
        if what == "tree":
            answer = [
                {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": _etag(path)} for path in files
            ]
        text = json.dumps(answer).encode()
        self._send(to, 200, {"Content-Type": "application/json", "Content-Length": str(len(text))})
        to.wfile.write(text)

    def _file(self, to: BaseHTTPRequestHandler, found: re.Match[str], body: bool) -> None:
        path = self.repositories[found["name"]] / found["file"]
        size = path.stat().st_size
        about = {"X-Repo-Commit": self.commit(found["name"]), "ETag": f'"{_etag(path)}"'}
        if path.suffix == ".safetensors":
            about |= {"X-Linked-Etag": f'"{_etag(path)}"', "X-Linked-Size": str(size), **self.extra}
            if not found["cdn"]:
                place = self.url.replace("127.0.0.1", "localhost") + "/cdn" + to.path
                self._send(to, 302, {**about, "Location": place, "Content-Length": "0"})
                return
        start = _start(to.headers["Range"])
        status = 206 if start else 200
        about |= {"Content-Length": str(size - start), "Accept-Ranges": "bytes"}
        if start:
            about["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        self._send(to, status, about)
        if body:
            self._body(to, path.read_bytes()[start:], weights=path.suffix == ".safetensors")

    def _body(self, to: BaseHTTPRequestHandler, data: bytes, weights: bool) -> None:
        if weights and self.cut is not None:
            data, self.cut = data[: self.cut], None
            to.close_connection = True  # the client was promised more
        piece = max(1, len(data) // 50) if weights and self.slow else max(1, len(data))
        for at in range(0, len(data), piece):
            try:
                to.wfile.write(data[at : at + piece])
            except OSError:  # the client has gone
                to.close_connection = True
                return
            if weights:
                time.sleep(self.slow)

    def _send(self, to: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str]) -> None:
        self.asked.append(Asked(to.command, urlsplit(to.path).path, to.headers["Range"], status))
        to.send_response(status)
        for name, value in headers.items():
            to.send_header(name, value)
        to.end_headers()


def _etag(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _start(asked: str | None) -> int:
    found = re.fullmatch(r"bytes=(\d+)-", asked or "")
    return int(found[1]) if found else 0
