"""A chat server in a thread with a known model of 40 tokens, which misbehaves on demand.

The probability of every token follows from the two images of a request, so that a test knows what is right.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

from looktwice.types import Item

WORDS = ["0", "1", "Yes", "yes", " Yes", " yes", "No", "no", " No", " no", "True", "true", " True", " true", "False"]
VOCABULARY = [*WORDS, "false", " False", " false", *(f"w{i}" for i in range(22))]
Answer = tuple[int, dict[str, str], bytes]
Fault = Callable[["Stub", dict[str, Any], int], Answer | None]


def item(name: str, *colour: int) -> Item:
    return Item(name, image=Image.new("RGB", (24, 24), colour), sha256=f"sha-{name}")


def logps(shown: list[str]) -> np.ndarray[Any, Any]:
    """The model: log-probabilities of the vocabulary for what is shown, in this order."""
    seed = int.from_bytes(hashlib.sha256("|".join(shown).encode()).digest()[:4], "big")
    z = np.random.default_rng(seed).normal(size=len(VOCABULARY))
    z[VOCABULARY.index("1")] += 6.0 if len(set(shown)) < len(shown) else 1.0  # an item fits itself
    z[VOCABULARY.index("0")] += 2.0
    return z - np.log(np.exp(z).sum())


def shown_in(body: dict[str, Any]) -> list[str]:
    """What a request shows: each image's pixels as a hash, and its text."""
    found = []
    for part in body["messages"][0]["content"]:
        if part["type"] == "image_url":
            data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
            image = Image.open(io.BytesIO(data)).convert("RGB")
            found.append(hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest())
    return found or [part["text"] for part in body["messages"][0]["content"]]


def expected(query: Item, candidate: Item) -> float:
    """p of the prompt `object` for two images."""
    hashes = [hashlib.sha256(repr(i.image.size).encode() + i.image.tobytes()).hexdigest() for i in (query, candidate)]
    one, zero = (np.exp(logps(hashes)[VOCABULARY.index(text)]) for text in ("1", "0"))
    return float(one / (one + zero))


class Stub(ThreadingHTTPServer):
    """`fault` may answer a chat request in place of the model; `asked` holds the bodies of chat requests."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, **how: Any) -> None:
        super().__init__(("127.0.0.1", how.pop("port", 0)), _Handler)
        self.fault: Fault = lambda stub, body, number: None
        self.models = ["stub"]
        self.named, self.tokenizes, self.logprobs, self.top, self.shuffle = True, True, True, 20, False
        self.names = False  # whether an answer's id holds that of its request
        self.key: str | None = None
        self.delay = 0.0
        self.shift = 0.0  # of the log-probability of "1": another model
        self.asked: list[dict[str, Any]] = []
        self.ids: dict[int, str] = {}  # of answers, by the identity of a kept body
        self.paths: list[str] = []
        self.lock = threading.Lock()
        for name, value in how.items():
            setattr(self, name, value)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def answer(self, path: str, body: dict[str, Any], headers: Any) -> Answer:
        with self.lock:
            self.paths.append(path)
        if self.key is not None and headers.get("Authorization") != f"Bearer {self.key}":
            return said(401, f"Incorrect key: {headers.get('Authorization')}")
        if path == "/v1/models":
            return ok({"data": [{"id": name, "owned_by": "stub"} for name in self.models]})
        if path == "/tokenize" and self.tokenizes:
            known = body["prompt"] in VOCABULARY
            return ok({"tokens": [VOCABULARY.index(body["prompt"])] if known else [98, 99]})
        if path == "/v1/chat/completions":
            with self.lock:
                self.asked.append(body)
                if self.names:
                    self.ids[id(body)] = f"chatcmpl-{headers['X-Request-Id']}"
                number = len(self.asked)
            time.sleep(self.delay)
            return self.fault(self, body, number) or self.chat(body)
        return said(404, f"no {path}")

    def chat(self, body: dict[str, Any], **change: Any) -> Answer:
        if body["model"] not in self.models:
            return said(404, "no such model")
        found = logps(shown_in(body))
        found[VOCABULARY.index("1")] += self.shift
        order = sorted(range(len(found)), key=lambda i: -found[i])
        if self.named and "logprob_token_ids" in body:
            listed = [(f"token_id:{i}", found[i]) for i in [order[0], *body["logprob_token_ids"]]]
        elif body.get("top_logprobs", 0) > self.top:
            return said(400, f"top_logprobs must be at most {self.top}")
        else:
            listed = [(VOCABULARY[i], found[i]) for i in order[: body.get("top_logprobs", 0)]]
        if self.shuffle:
            np.random.default_rng(0).shuffle(listed)
        entries = [{"token": str(text), "logprob": float(value)} for text, value in listed]
        first = {"token": entries[0]["token"] if entries else "w", "logprob": -1.0, "top_logprobs": entries}
        choice = {"index": 0, "message": {"content": "1"}, "logprobs": {"content": [first]} if self.logprobs else None}
        usage = {"prompt_tokens": 100, "completion_tokens": 1}
        name = {"id": self.ids.get(id(body), "chatcmpl-1")}
        return ok({**name, "model": body["model"], "choices": [choice], "usage": usage} | change)


def ok(body: object) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()


def said(status: int, message: str, **headers: str) -> Answer:
    return status, headers, json.dumps({"error": {"message": message}}).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: dict[str, Any]) -> None:
        assert isinstance(self.server, Stub)
        status, headers, data = self.server.answer(self.path, body, self.headers)
        cut, slow, endless = (headers.pop(name, None) for name in ("cut", "slow", "endless"))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if not endless:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        try:
            while endless:
                self.wfile.write(data)
            if slow:
                for byte in data[:50]:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(float(slow))
            self.wfile.write(data[: len(data) // 2] if cut else data)
        except OSError:  # the client has left
            pass
        self.close_connection = self.close_connection or bool(cut)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(**how: Any) -> Iterator[Stub]:
    """Serve until the end of the block."""
    stub = Stub(**how)
    threading.Thread(target=stub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield stub
    finally:
        stub.shutdown()
        stub.server_close()
