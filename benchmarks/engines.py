"""Pairs per second of the same pairs: our own path, a server with images, a server with stored tokens, a bare loop.

    python benchmarks/engines.py                                   # our own path, and our client on a canned server
    python benchmarks/engines.py --server http://127.0.0.1:8000/v1#tiny-vl --tokens-from tiny-vl

The canned server answers at once with the same log-probabilities, so what is left is the client: encoding images,
bodies, connections, reading. The bare loop sends the same bodies, made beforehand, and reads only the status. The CPU
is that of this process, with the canned server in it. Queries and scenes are the bundled gallery's. Every figure is the
best of `--repeats`; each repeat has images of its own, so that no cache of images answers for the second one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

os.environ.setdefault("OMP_NUM_THREADS", "1")

import httpx
from _smoke import finish, parse
from PIL import Image

import looktwice
from looktwice import Scorer, load_scorer
from looktwice.score.remote.config import RemoteConfig
from looktwice.types import Item

GALLERY = Path(looktwice.__file__).parent / "assets" / "tiny" / "gallery"
PLAIN: dict[str, Any] = {"trust_env": False, "verify": False, "timeout": 60}
PLAIN["headers"] = {"Content-Type": "application/json"}
LOCAL: dict[str, Any] = {"device": "cpu", "dtype": "float32", "prompt": "object"}
Requests: TypeAlias = list[tuple[Item, list[Item]]]
Cost: TypeAlias = tuple[float, float]  # pairs per second; milliseconds of this process's CPU per pair


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--server", help="address of a chat server, such as http://127.0.0.1:8000/v1#tiny-vl")
    parser.add_argument("--tokens-from", help="local model whose stored tokens the server takes")
    parser.add_argument("--queries", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    options = parse(parser, argv, queries=1, candidates=4, repeats=1, concurrency=[1, 4])
    found = {"local": local_rates(options), "client": client_rates(options)}
    if options.server:
        found["server"] = server_rates(options)
    rows = [
        {"where": name, "what": what, "rate": rate, "cpu_ms": cpu}
        for name, rates in found.items()
        for what, (rate, cpu) in rates.items()
    ]
    for row in rows:
        print(f"{row['where']:8} {row['what']:32} {row['rate']:10.1f} pairs/s {row['cpu_ms']:10.2f} ms of CPU a pair")
    finish("engines", options, {"rows": rows})


def requests(options: argparse.Namespace, repeat: int) -> Requests:
    """Queries with scenes, the images of every repeat different in one pixel."""
    paths = sorted((GALLERY / "images").glob("*.jpg"))
    queries = sorted((GALLERY / "queries").glob("*.jpg"))[: options.queries]
    n = options.candidates
    return [
        (_item(query, repeat), [_item(paths[(n * i + j) % len(paths)], repeat) for j in range(n)])
        for i, query in enumerate(queries)
    ]


def _item(path: Path, repeat: int) -> Item:
    image = Image.open(path).convert("RGB")
    image.putpixel((0, 0), (repeat % 256, 7, os.getpid() % 256))
    return Item(path.name, image, sha256=f"{path.name}-{repeat}-{os.getpid()}")


_repeat = iter(range(1 << 30))


def rate(
    options: argparse.Namespace, run: Callable[[Requests], object], prepare: Callable[[Requests], Requests]
) -> Cost:
    """The best pairs per second and the least CPU of the repeats; making the requests does not count."""
    best, least, pairs = 0.0, float("inf"), options.queries * options.candidates
    for _ in range(options.repeats):
        asked = prepare(requests(options, next(_repeat)))
        begin, used = time.perf_counter(), time.process_time()
        run(asked)
        best = max(best, pairs / (time.perf_counter() - begin))
        least = min(least, (time.process_time() - used) / pairs)
    return round(best, 2), round(1000 * least, 3)


def local_rates(options: argparse.Namespace) -> dict[str, Cost]:
    scorer = load_scorer("tiny-vl", **LOCAL)
    scorer.score_many(requests(options, -1))
    images = rate(options, scorer.score_many, lambda asked: asked)
    return {
        "images": images,
        "stored tokens": rate(options, scorer.score_many, lambda asked: with_tokens(scorer, asked)),
    }


def with_tokens(scorer: Scorer, asked: Requests) -> Requests:
    """The same requests with visual tokens in place of images, as a table would give them."""
    maker = scorer.tokens()
    assert maker is not None

    def stored(items: Sequence[Item]) -> list[Item]:
        tokens = maker.visual_tokens(items)
        return [replace(item, image=None, tokens=one) for item, one in zip(items, tokens, strict=True)]

    return [(stored([query])[0], stored(candidates)) for query, candidates in asked]


def server_rates(options: argparse.Namespace) -> dict[str, Cost]:
    rates: dict[str, Cost] = {}
    for concurrency in options.concurrency:
        scorer = load_scorer(options.server, remote=RemoteConfig(concurrency=concurrency), **LOCAL)
        scorer.score_many(requests(options, next(_repeat)))  # opens the window
        rates[f"images, concurrency {concurrency}"] = rate(options, scorer.score_many, lambda asked: asked)
        if options.tokens_from:
            settings = RemoteConfig(concurrency=concurrency, tokens_from=options.tokens_from)
            sender = load_scorer(options.server, remote=settings, **LOCAL)
            sender.score_many(with_tokens(sender, requests(options, next(_repeat))))
            prepare = lambda asked, own=sender: with_tokens(own, asked)  # noqa: E731
            rates[f"stored tokens, concurrency {concurrency}"] = rate(options, sender.score_many, prepare)
        rates |= bare_rates(options, options.server.partition("#")[0], concurrency)
    return rates


def client_rates(options: argparse.Namespace) -> dict[str, Cost]:
    """Our client and a bare loop on a server that does nothing, in turns."""
    rates: dict[str, Cost] = {}
    with canned() as url:
        for most in options.concurrency:
            scorer = load_scorer(f"{url}#canned", remote=RemoteConfig(concurrency=most), **LOCAL)
            scorer.score_many(requests(options, next(_repeat)))
            rates[f"ours, concurrency {most}"] = rate(options, scorer.score_many, lambda asked: asked)
            rates |= bare_rates(options, url, most)
    return rates


def bare_rates(options: argparse.Namespace, url: str, concurrency: int) -> dict[str, Cost]:
    bodies: list[bytes] = []

    def prepare(asked: Requests) -> Requests:
        bodies[:] = [body for body in bodies_of(asked, options.server)]
        return asked

    if concurrency == 1:
        return {"bare loop, one by one": rate(options, lambda _: one_by_one(url, bodies), prepare)}
    many = rate(options, lambda _: asyncio.run(at_once(url, bodies, concurrency)), prepare)
    return {f"bare loop, concurrency {concurrency}": many}


def bodies_of(asked: Requests, server: str | None) -> Iterator[bytes]:
    """The bodies that our client would send."""
    from looktwice.score.prompting import built_in
    from looktwice.score.remote.chat_server import chat_content
    from looktwice.score.remote.dialect import Dialect
    from looktwice.score.remote.images import ImageEncoder

    model = (server or "").partition("#")[2] or "canned"
    prompt, encoder, fields = built_in.get("object"), ImageEncoder(None), Dialect(True, 0).fields([0, 1])
    for query, candidates in asked:
        for candidate in candidates:
            items = {"query": query, "candidate": candidate}
            content = chat_content(prompt.lay_out(query, candidate), items, encoder, False)
            yield json.dumps({"model": model, "messages": [{"role": "user", "content": content}], **fields}).encode()


def one_by_one(url: str, bodies: Sequence[bytes]) -> None:
    with httpx.Client(**PLAIN) as client:
        for body in bodies:
            for _ in range(3):
                with suppress(httpx.TransportError):
                    client.post(f"{url}/chat/completions", content=body).raise_for_status()
                    break


async def at_once(url: str, bodies: Sequence[bytes], concurrency: int) -> None:
    left = iter(bodies)
    async with httpx.AsyncClient(**PLAIN) as client:

        async def work() -> None:
            for body in left:
                for _ in range(3):  # a server may close a kept connection just when it is used
                    with suppress(httpx.TransportError):
                        (await client.post(f"{url}/chat/completions", content=body)).raise_for_status()
                        break

        await asyncio.gather(*(work() for _ in range(concurrency)))


class _Canned(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._send({"data": [{"id": "canned"}]})

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/tokenize":
            self._send({"tokens": [int(json.loads(data)["prompt"] == "1")]})
            return
        value = -1.0 - sum(data[::97]) % 100 / 1000  # swapped images answer differently, as a probe expects
        listed = [{"token": "token_id:0", "logprob": -0.7}, {"token": "token_id:1", "logprob": value}]
        content = [{"token": "token_id:0", "logprob": -0.7, "top_logprobs": listed}]
        self._send({"model": "canned", "choices": [{"logprobs": {"content": content}}], "usage": {"prompt_tokens": 1}})

    def _send(self, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def canned() -> Iterator[str]:
    """A server in a thread that gives every pair the same answer."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Canned)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()


if __name__ == "__main__":
    main()
