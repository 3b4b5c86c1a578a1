"""More hostile requests: slow and odd bytes on the wire, images that lie, filters that run away."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from attacking import SECRET, png_chunk, png_of, raw, refused
from PIL import Image
from serving import GALLERY, Running, running

from looktwice.serve import Settings
from looktwice.testing import BrightnessScorer

PIXEL = base64.b64encode((GALLERY / "images" / "scene-001.jpg").read_bytes()).decode()
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
HEAD = b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server(drawings: Path) -> Iterator[Running]:
    settings = Settings(tables=(drawings,), mllm="stub", allow_write=False, header_seconds=1, body_seconds=2)
    with running(settings, BrightnessScorer()) as made:
        yield made


@pytest.fixture(autouse=True)
def still_there(server: Running) -> Iterator[None]:
    """Whatever was sent, the next ordinary request is answered, and nothing of the request is held any more."""
    yield
    assert server.post("/v1/search", {"query": {"image": PIXEL}, "k": 1}).status_code == 200
    until = time.monotonic() + 5
    while server.service.memory.held and time.monotonic() < until:
        time.sleep(0.02)
    assert server.service.memory.held == 0


def connected(server: Running, wait: float = 10) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=wait)


# --- the wire ---------------------------------------------------------------------------------------------------------


def test_slow_headers_of_a_second_request_are_cut_off_too(server: Running) -> None:
    with connected(server) as line:
        line.sendall(HEALTH + b"\r\n")
        assert b"200 OK" in line.recv(65536)
        begin = time.monotonic()
        try:
            for byte in HEALTH * 2:
                line.sendall(bytes([byte]))
                time.sleep(0.1)
                if time.monotonic() - begin > 5:
                    break
        except ConnectionError:
            pass
        assert 0.9 < time.monotonic() - begin < 4


@pytest.mark.parametrize(
    "request_",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",  # no host
        HEALTH + b"Host: evil.example\r\n\r\n",
        HEALTH + b"A: b\r\n c\x00d\r\n\r\n",
        HEALTH + b"Bad Name: x\r\n\r\n",
        b"GET /he\x01althz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"F" * 30 + b"\r\n{}",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;" + b"x" * 70_000 + b"\r\n{}\r\n0\r\n\r\n",
    ],
    ids=["http2", "http09", "no-host", "two-hosts", "nul", "name", "control", "huge-chunk", "minus", "extension"],
)
def test_odd_framing(server: Running, request_: bytes) -> None:
    answer = raw(server, request_, wait=6)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head[:10] == b"HTTP/1.1 4", answer[:300]
    first = body.partition(b"HTTP/1.1 ")[0]
    assert set(json.loads(first)["error"]) == {"type", "code", "message", "param"}


def test_a_request_for_another_site_is_refused(server: Running) -> None:
    answer = raw(
        server, b"GET http://evil.example/v1/tables HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    )
    assert b" 421 " in answer and b"photos" not in answer


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8765@evil.example", "[::1", "[::1].evil.example", "localhost.evil.example", "127.0.0.1 evil"]
)
def test_hosts_that_only_begin_like_this_machine(server: Running, host: str) -> None:
    refused(server.client.get("/v1/tables", headers={"Host": host}), 421, "wrong_host")


def test_a_flood_in_one_connection_is_answered_in_order(server: Running) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-Id: %d\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nX-Request-Id: 500\r\n\r\n"
    answer = raw(server, b"".join(one % n for n in range(500)), last, wait=20)
    ids = [line.split(b": ")[1] for line in answer.split(b"\r\n") if line.startswith(b"x-request-id")]
    assert ids == [b"%d" % n for n in range(501)]


def test_an_upgrade_to_another_protocol_is_not_made(server: Running) -> None:
    for kind in (b"websocket", b"h2c"):
        asked = HEALTH + b"Connection: Upgrade\r\nUpgrade: " + kind + b"\r\nSec-WebSocket-Version: 13\r\n"
        answer = raw(server, asked + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", wait=2)
        assert b" 101 " not in answer


def test_a_reader_who_does_not_read_holds_up_nobody(server: Running) -> None:
    lines = [connected(server) for _ in range(20)]
    body = json.dumps({"query": {"image": PIXEL}, "k": 40, "stream": True, "explain": True}).encode()
    for line in lines:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        line.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    begin = time.monotonic()
    assert server.post("/v1/search", {"query": {"text": "a"}, "rerank": False}).status_code == 200
    assert time.monotonic() - begin < 5
    for line in lines:
        line.close()


# --- images that lie --------------------------------------------------------------------------------------------------


def animated() -> bytes:
    out = io.BytesIO()
    frames = [Image.new("P", (64, 64), number % 256) for number in range(2000)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    return out.getvalue()


PROFILE = png_chunk(b"iCCP", b"x\0\0" + zlib.compress(b"\0" * 200_000_000, 9))
TEXT = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 200_000_000, 9))
ODD_IMAGES = {
    "many frames": animated(),
    "a colour profile that unpacks to 200 MB": png_of(64, 64, 64 * (64 * 3 + 1), PROFILE),
    "a comment that unpacks to 200 MB": png_of(64, 64, 64 * (64 * 3 + 1), TEXT),
    "less data than it says": png_of(4000, 4000, 1000),
    "more data than it says": png_of(8, 8, 50_000_000),
    "a page after the image": (GALLERY / "images" / "scene-001.jpg").read_bytes() + b"<script>alert(1)</script>" * 100,
    "a page that begins like one": b"\xff\xd8\xff<script>alert(1)</script>",
    "an archive": b"PK\x03\x04" + b"\0" * 100,
}


@pytest.mark.parametrize("data", ODD_IMAGES.values(), ids=ODD_IMAGES)
def test_odd_images_cost_little(server: Running, data: bytes) -> None:
    process = psutil.Process()
    before, begin = process.memory_info().rss, time.monotonic()
    answer = server.post("/v1/search", {"query": {"image": base64.b64encode(data).decode()}, "k": 1})
    assert answer.status_code in (200, 422), answer.text
    assert not [word for word in SECRET if word in answer.text] and "<script>" not in answer.text
    assert time.monotonic() - begin < 10 and process.memory_info().rss - before < 150_000_000


def test_many_bombs_in_one_request_are_not_held_together(server: Running) -> None:
    bomb = base64.b64encode(png_of(4000, 4000, 4000 * (4000 * 3 + 1))).decode()  # 64 MB in memory
    process, most = psutil.Process(), 0
    before = process.memory_info().rss
    body = {"query": "a", "documents": [{"image": bomb, "text": str(n)} for n in range(20)], "prompt": "mixed"}
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        asked = threading.Thread(target=lambda: client.post("/v1/rerank", json=body))
        asked.start()
        while asked.is_alive():
            most = max(most, process.memory_info().rss - before)
            time.sleep(0.02)
    assert 64_000_000 < most < 20 * 64_000_000 * 0.7


@pytest.mark.parametrize(
    "uri",
    [
        "data:text/html;base64," + PIXEL,
        "data:" + ";a" * 50_000,
        "data:image/jpeg;base64;base64," + PIXEL,
        "data:image/jpeg," + PIXEL,
        " " * 1_000_000,
        "=" * 10_000,
        PIXEL + "====",
        "\u200b" + PIXEL,
        "Ａ" * 1000,
    ],
    ids=["html", "long", "twice", "plain", "spaces", "pads", "tail", "zero-width", "wide"],
)
def test_odd_data_uris(server: Running, uri: str) -> None:
    begin = time.monotonic()
    answer = server.post("/v1/search", {"query": {"image": uri}, "k": 1})
    assert answer.status_code in (200, 422) and time.monotonic() - begin < 3
    assert not [word for word in SECRET if word in answer.text], answer.text


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"where": {"id": {"like": "%a" * 5000}}}, (200, 400)),
        ({"where": {"id": {"like": "%_" * 20 + "x"}}}, (200,)),
        ({"where": {"id": ["x"] * 100_000}}, (200, 400)),
        ({"where": {"id) OR (1=1": 1}}, (400,)),
        ({"where": {"id": {"in": "x' UNION SELECT"}}}, (400,)),
        ({"where": {f"c{n}": n for n in range(5000)}}, (400,)),
        ({"table": ["photos"] * 50_000}, (200,)),
        ({"table": ["photos", "../photos"]}, (404,)),
        ({"like": ["scene-001.jpg"] * 33}, (422,)),
        ({"fusion": "coarse=" + "9" * 5000 + ",p=1"}, (400, 422)),
        ({"fusion": "__import__('os').system('id')"}, (400, 404, 422)),
        ({"query": {"text": "\u202e\u0000".replace("\u0000", "") * 1000}}, (200,)),
        ({"query": {"text": "a", "__class__": {}}}, (422,)),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_odd_searches(server: Running, body: dict[str, Any], status: tuple[int, ...]) -> None:
    begin = time.monotonic()
    answer = server.post("/v1/search", {"query": {"text": "a"}, "rerank": False, "k": 1, **body})
    assert answer.status_code in status, answer.text[:300]
    assert time.monotonic() - begin < 10
    assert not [word for word in SECRET if word in answer.text], answer.text[:500]


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/rerank", {"query": "a", "documents": ["b"], "instruction": "x\0y"}, "text_not_utf8"),
        ("/v1/rerank", {"query": "a", "documents": [{"content": []}]}, "empty"),
        ("/v1/rerank", {"query": "a", "documents": [{}]}, "empty"),
        ("/v1/rerank", {"query": "a", "documents": [[["b"]]]}, None),
        ("/v1/rerank", {"query": "a", "documents": "b"}, None),
        ("/v1/score", {"queries": ["a"] * 1001, "documents": ["b"] * 1001}, "too_many_documents"),
        ("/v1/decisions", {"input": "a", "questions": [{"name": "q", "instructions": "b"}] * 401}, "too_long"),
        ("/v1/explain", {"query": {"text": "a"}, "candidate": {"item": "../../etc/passwd"}}, "unknown_item"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_odd_pairs(server: Running, path: str, body: dict[str, Any], code: str | None) -> None:
    answer = server.post(path, body)
    assert answer.status_code in (404, 422), answer.text
    assert code is None or answer.json()["error"]["code"] == code


@pytest.mark.parametrize(
    "query", ["w=0", "w=-5", "w=1e9", "w=" + "9" * 400, "w=16&w=99999", "w=%00", "v=" + "a" * 50_000, "w=320&v=%ff"]
)
def test_odd_previews(server: Running, query: str) -> None:
    answer = server.client.get(f"/v1/tables/photos/items/scene-001.jpg/preview?{query}")
    assert answer.status_code in (200, 404, 422), answer.text[:200]
    assert "immutable" not in answer.headers.get("cache-control", "")


@pytest.mark.parametrize("page", ["offset=-1", "limit=1000000", "offset=" + "9" * 30, "limit=0", "offset=1.5"])
def test_odd_pages(server: Running, page: str) -> None:
    for name in ("items", "ledger"):
        assert server.client.get(f"/v1/tables/photos/{name}?{page}").status_code == 422


def test_writing_stays_shut_whatever_is_sent(server: Running) -> None:
    place = "/v1/tables/photos/items"
    for method, path in (("PUT", f"{place}/x"), ("DELETE", f"{place}/scene-001.jpg"), ("POST", f"{place}:batch")):
        override = {"X-HTTP-Method-Override": "DELETE", "X-Original-URL": "/v1/tables"}
        answer = server.client.request(method, path, content=b'{"id": "x", "text": "y"}', headers=override)
        assert answer.status_code in (403, 422), answer.text
    assert server.client.get(f"{place}/scene-001.jpg", headers={"X-HTTP-Method-Override": "DELETE"}).status_code == 200
    assert server.client.get(f"{place}/scene-001.jpg").status_code == 200
