"""Hostile requests: none gets through, each gets a plain refusal, and the server goes on."""

from __future__ import annotations

import base64
import gzip
import io
import json
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from attacking import SECRET, png_of, raw, refused
from pydantic import SecretStr
from serving import GALLERY, Running, running

from looktwice.errors import UsageError
from looktwice.serve import Settings, create_app
from looktwice.sources import download
from looktwice.testing import BrightnessScorer

KEY = "correct-horse-battery-staple"
PIXEL = base64.b64encode((GALLERY / "images" / "scene-001.jpg").read_bytes()).decode()


@pytest.fixture(scope="module")
def server(drawings: Path) -> Iterator[Running]:
    limits: dict[str, Any] = {"max_body": 300_000, "body_seconds": 1, "header_seconds": 1}
    with running(Settings(tables=(drawings,), mllm="stub", **limits), BrightnessScorer()) as made:
        yield made


@pytest.fixture(scope="module")
def closed(drawings: Path) -> Iterator[Running]:
    settings = Settings(tables=(drawings,), mllm=None, api_keys=(SecretStr(KEY), SecretStr("another-key-of-someone")))
    with running(settings) as made:
        yield made


@pytest.fixture(scope="module")
def fetching(drawings: Path) -> Iterator[Running]:
    with running(Settings(tables=(drawings,), mllm="stub", allow_urls=True), BrightnessScorer()) as made:
        yield made


@pytest.fixture(autouse=True)
def still_there(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever was sent, the next ordinary request is answered."""
    yield
    for name in {"server", "fetching"} & set(request.fixturenames):
        answer = request.getfixturevalue(name).post("/v1/search", {"query": {"image": PIXEL}, "k": 1})
        assert answer.status_code == 200, answer.text


# --- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b'{"query": {"text": NaN}}',
        b'{"query": {"text": "a"}, "fusion": Infinity}',
        b'{"query": {"text": "a"}, "fusion": 1e999}',
        b'{"query": {"text": "a\\ud800"}}',
        b'{"query": {"text": "a"}, "where": {"\\udfff": 1}}',
        b'{"query": {"text": "\xff\xfe"}}',
        b'{"query": {"text": "a"}, "query": {"text": "b"}}',
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        b'{"query": {"text": "a"}, "k": ' + b"9" * 5000 + b"}",
        b'{"query": {"text": "a"}',
        b"\x00" * 100,
        gzip.compress(b'{"query": {"text": "a"}}' * 1000, mtime=0),
        pickle.dumps({"query": {"text": "a"}}),
    ],
    ids=lambda body: repr(body[:30]),
)
def test_what_is_not_plain_json_is_refused(server: Running, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    refused(server.client.post("/v1/search", content=body, headers=headers), 400, "bad_json")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"query": {"text": "a\0b"}}, 422, "text_not_utf8"),
        ({"query": {"text": "a" * 50_001}}, 422, "text_too_long"),
        ({"query": {"text": "a"}, "k": True}, 422, None),
        ({"query": {"text": "a"}, "k": -1}, 422, None),
        ({"query": {"text": "a"}, "k": 10**30}, 422, None),
        ({"query": {"text": "a"}, "timeout_s": 1e308}, 422, None),
        ({"query": {"text": "a"}, "where": {"id": "x' OR 1=1 --"}}, 200, None),
        ({"query": {"text": "a"}, "where": {"id": {"=": {"a": 1}}}}, 400, None),
        ({"query": {"text": "a"}, "where": {"vector": 1}}, 400, None),
        ({"query": {"text": "a"}, "like": ["/etc/passwd"]}, 404, "unknown_item"),
        ({"query": {"text": "a"}, "like": ["../scene-001.jpg"]}, 404, "unknown_item"),
        ({"query": {"item": "file:///etc/passwd"}}, 404, "unknown_item"),
        ({"query": {"text": "a"}, "prompt": "../../prompt.toml"}, 400, "unknown_name"),
        ({"query": {"text": "a"}, "table": "../../etc"}, 404, "unknown_table"),
        ([], 422, None),
        (7, 422, None),
        ("text", 422, None),
        (None, 422, None),
    ],
    ids=lambda value: json.dumps(value)[:40] if not isinstance(value, int) else "",
)
def test_odd_values(server: Running, body: Any, status: int, code: str | None) -> None:
    answer = server.post("/v1/search", body)
    assert answer.status_code == status, answer.text
    assert not [word for word in SECRET if word in answer.text], answer.text
    if code is not None:
        assert answer.json()["error"]["code"] == code
    if status == 200:
        assert answer.json()["hits"] == []


def test_bodies_that_are_too_large_with_and_without_a_length(server: Running) -> None:
    big = json.dumps({"query": {"text": "a" * 400_000}}).encode()
    headers = {"content-type": "application/json"}
    refused(server.client.post("/v1/search", content=big, headers=headers), 413, "body_too_large")
    chunks = iter([big[:1000]] * 400)
    refused(server.client.post("/v1/search", content=chunks, headers=headers), 413, "body_too_large")


def test_another_content_type_is_no_json(server: Running) -> None:
    answer = server.client.post(
        "/v1/search", content=b'{"query": {"text": "a"}}', headers={"content-type": "text/plain"}
    )
    assert answer.status_code == 422


# --- the wire ---------------------------------------------------------------------------------------------------------

HEAD = b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


def test_slow_bodies_and_slow_headers_are_cut_off(server: Running) -> None:
    answer = raw(server, HEAD + b"Content-Length: 100\r\n\r\n{", wait=8)
    assert b" 408 " in answer and b"slow_body" in answer
    assert raw(server, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n", wait=8) == b""


def test_floods_of_headers(server: Running) -> None:
    many = b"".join(b"X-%d: a\r\n" % i for i in range(100_000))
    answer = raw(server, HEAD + many + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ") or not answer  # the client still sends when the connection closes
    assert b"200 OK" in raw(server, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    answer = raw(server, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: " + b"a" * 66_000)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert json.loads(body)["error"]["code"] == "headers_too_large"


def test_what_is_no_http_gets_an_error_in_the_apis_shape(server: Running) -> None:
    for line in (b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"):  # the second begins TLS
        head, _, body = raw(server, line).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ") and json.loads(body)["error"]["code"] == "bad_http"


def test_one_connection_too_many_is_told_to_come_back(drawings: Path) -> None:
    with running(Settings(tables=(drawings,), mllm=None, max_connections=3)) as made:
        idle = [socket.create_connection(("127.0.0.1", int(made.url.rpartition(":")[2]))) for _ in range(3)]
        try:
            answer = made.client.get("/v1/tables")
            refused(answer, 429, "queue_full")
            assert answer.headers["retry-after"] == "1" and answer.headers["connection"] == "close"
        finally:
            for one in idle:
                one.close()
        time.sleep(0.1)
        assert made.client.get("/v1/tables").status_code == 200


@pytest.mark.parametrize(
    "lengths",
    [
        b"Content-Length: -1\r\n",
        b"Content-Length: 0x10\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: " + b"9" * 40 + b"\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    ],
)
def test_wrong_lengths(server: Running, lengths: bytes) -> None:
    answer = raw(server, HEAD + lengths + b"\r\n{}{}{}{}", wait=5)
    assert b" 200 " not in answer
    assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 413", b"HTTP/1.1 501", b"HTTP/1.1 408"), answer[:300]


def test_a_smuggled_second_request_is_no_request(server: Running) -> None:
    inner = b"GET /v1/tables HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    both = b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % (len(inner) + 5)
    answer = raw(server, HEAD + both + inner, wait=3)
    assert b'"tables"' not in answer or answer.count(b"HTTP/1.1 ") == 2


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "/../../../../etc/passwd",
        "/..%2f..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/static/../../serve/app.py",
        "/....//....//etc/passwd",
        "/%00",
        "/v1/tables/..%2f..%2fetc/items/passwd/preview",
        "/v1/tables/photos/items/..%2f..%2f..%2fetc%2fpasswd/preview",
        "/v1/tables/photos/items/file%3A%2F%2F%2Fetc%2Fpasswd/preview",
        "/v1/tables/photos/items/%ff%fe/preview",
        "/v1/tables/photos/items/%00/preview",
        "/v1/tables/photos/items/a%27%20OR%201=1/preview",
        "//etc/passwd",
        "/v1/tables/photos/../../../etc/passwd",
    ],
)
def test_no_path_leads_out(server: Running, target: str) -> None:
    answer = raw(server, f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    status = int(answer.split()[1])
    assert status in (400, 404), answer[:400]
    assert b"root:" not in answer and not [word for word in SECRET if word.encode() in answer]


# --- images -----------------------------------------------------------------------------------------------------------


def saved_tensor() -> bytes:
    out = io.BytesIO()
    torch.save(torch.zeros(3), out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (png_of(30_000, 30_000), "image_too_large"),
        (png_of(1, 99_000), "image_too_long"),
        (png_of(0, 0), None),
        (saved_tensor(), "image_not_an_image"),
        (pickle.dumps(print), "image_not_an_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "image_not_an_image"),
        (b"GIF89a" + b"\xff" * 50, None),
        (b"", None),
        (b"%PDF-1.7", "image_not_an_image"),
    ],
    ids=["bomb", "line", "empty-png", "tensor", "pickle", "svg", "gif", "nothing", "pdf"],
)
def test_images_that_are_none(server: Running, data: bytes, code: str | None) -> None:
    coded = base64.b64encode(data).decode()
    for path, body in (
        ("/v1/search", {"query": {"image": coded}}),
        ("/v1/rerank", {"query": "a", "documents": ["b", {"image": coded}]}),
    ):
        answer = server.post(path, body)
        assert answer.status_code == 422, answer.text
        assert not [word for word in SECRET if word in answer.text], answer.text
        assert code is None or answer.json()["error"]["code"] == code
        assert answer.json()["error"]["param"] == ("query" if path == "/v1/search" else "documents.1.image")


# --- URLs -------------------------------------------------------------------------------------------------------------

OWN = ("http://127.0.0.1:{port}/a.jpg", "http://localhost:{port}/a.jpg", "http://2130706433:{port}/a.jpg")
INSIDE = (
    *OWN,
    "http://0x7f000001:{port}/a.jpg",
    "http://0177.0.0.1:{port}/a.jpg",
    "http://127.1:{port}/a.jpg",
    "http://[::1]:{port}/a.jpg",
    "http://[::ffff:127.0.0.1]:{port}/a.jpg",
    "http://0.0.0.0:{port}/a.jpg",
    "http://user:pass@127.0.0.1:{port}/a.jpg",
    "http://169.254.169.254/latest/meta-data/",
    "http://10.0.0.1/a.jpg",
    "http://[fe80::1]/a.jpg",
    "http://[64:ff9b::7f00:1]/a.jpg",
    "HTTP://LOCALHOST:{port}/a.jpg",
    "http://127.0.0.1:{port}\\@example.org/a.jpg",
)


class Inside(BaseHTTPRequestHandler):
    """A server that nobody outside may reach; it notes who did."""

    seen: ClassVar[list[str]] = []
    to: str | None = None

    def do_GET(self) -> None:
        self.seen.append(self.path)
        if self.to:
            self.send_response(302)
            self.send_header("Location", self.to)
            self.end_headers()
            return
        data = (GALLERY / "images" / "scene-001.jpg").read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def inside() -> Iterator[HTTPServer]:
    Inside.seen, Inside.to = [], None
    with HTTPServer(("127.0.0.1", 0), Inside) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


@pytest.mark.parametrize("url", INSIDE)
def test_urls_that_lead_inside(fetching: Running, inside: HTTPServer, url: str) -> None:
    url = url.format(port=inside.server_port)
    answer = fetching.post("/v1/search", {"query": {"image": url}})
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["code"] in ("url_forbidden_address", "url_download"), answer.text
    assert Inside.seen == [] and "127" not in answer.text


def test_a_request_fetches_a_few_urls_only(
    fetching: Running, inside: HTTPServer, outside: HTTPServer, resolver: list[str]
) -> None:
    resolver[:] = ["127.0.0.2"] * 50
    documents = [{"image": f"http://public.example:{inside.server_port}/{n}"} for n in range(40)]
    refused(fetching.post("/v1/rerank", {"query": "a", "documents": documents}), 422, "too_many_urls")
    assert len(Inside.seen) == 32


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/a", "gopher://127.0.0.1/a", "data:text/html,x"])
def test_other_schemes_are_no_images(fetching: Running, url: str) -> None:
    assert fetching.post("/v1/search", {"query": {"image": url}}).status_code == 422


def test_urls_are_refused_on_every_route_unless_allowed(server: Running, inside: HTTPServer) -> None:
    url = f"http://127.0.0.1:{inside.server_port}/a.jpg"
    part = {"type": "image_url", "image_url": {"url": url}}
    for path, body in (
        ("/v1/search", {"query": {"image": url}}),
        ("/v1/search", {"query": {"text": "a"}, "like": [{"image": url}]}),
        ("/v1/rerank", {"query": {"image": url}, "documents": ["a"]}),
        ("/v1/rerank", {"query": "a", "documents": [{"content": [part]}]}),
        ("/v1/score", {"queries": "a", "documents": {"image": url}}),
        ("/v1/decisions", {"input": [{"content": [part]}], "questions": [{"name": "a", "instructions": "b"}]}),
        ("/v1/explain", {"query": {"image": url}, "candidate": {"text": "a"}}),
    ):
        refused(server.post(path, body), 403, "urls_refused")
    assert Inside.seen == []


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A resolver of our own: each look-up of any name takes the next address; 127.0.0.2 plays the public internet."""
    answers: list[str] = []
    monkeypatch.setattr(download, "_resolve", lambda host, port: [answers.pop(0) if answers else "127.0.0.1"])
    real = download.is_public
    monkeypatch.setattr(download, "is_public", lambda address: address == "127.0.0.2" or real(address))
    return answers


@pytest.fixture
def outside(inside: HTTPServer) -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.2", inside.server_port), Inside) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def test_a_name_that_changes_its_address_is_checked_each_time(
    fetching: Running, inside: HTTPServer, outside: HTTPServer, resolver: list[str]
) -> None:
    body = {"query": {"image": f"http://rebinding.example:{inside.server_port}/a.jpg"}, "rerank": False}
    resolver[:] = ["127.0.0.2", "127.0.0.1"]
    assert fetching.post("/v1/search", body).status_code == 200  # the address that was checked is the one connected to
    refused(fetching.post("/v1/search", body), 422, "url_forbidden_address")
    assert Inside.seen == ["/a.jpg"]


@pytest.mark.parametrize("to", ["http://127.0.0.1:{port}/b", "http://inside.example:{port}/b", "file:///etc/passwd"])
def test_a_redirect_is_checked_too(
    fetching: Running, inside: HTTPServer, outside: HTTPServer, resolver: list[str], to: str
) -> None:
    resolver[:] = ["127.0.0.2"]
    Inside.to = to.format(port=inside.server_port)
    answer = fetching.post("/v1/search", {"query": {"image": f"http://public.example:{inside.server_port}/a"}})
    assert answer.status_code == 422 and Inside.seen == ["/a"]


# --- keys, hosts, origins ---------------------------------------------------------------------------------------------


def test_every_route_but_health_needs_a_key(closed: Running) -> None:
    app = closed.server.config.loaded_app
    paths = [(path, method) for path, methods in app.openapi()["paths"].items() for method in methods]
    tried = [*paths, ("/", "get"), ("/openapi.json", "get"), ("/docs", "get"), ("/nothing", "get"), ("/rerank", "post")]
    for path, method in tried:
        answer = closed.client.request(method, path.replace("{table}", "photos").replace("{id}", "scene-001.jpg"))
        if path in ("/healthz", "/readyz"):
            assert answer.status_code == 200
            continue
        refused(answer, 401, "no_key")
        assert answer.headers["www-authenticate"].startswith("Basic")
    assert len(paths) > 10


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Bearer {KEY}", 200),
        (f"bearer {KEY}", 200),
        ("Bearer another-key-of-someone", 200),
        ("Basic " + base64.b64encode(f"me:{KEY}".encode()).decode(), 200),
        (f"Bearer {KEY[:-1]}", 401),
        (f"Bearer {KEY}x", 401),
        ("Bearer", 401),
        (KEY, 401),
        ("Basic !!!", 401),
        ("Basic " + base64.b64encode(KEY.encode()).decode(), 401),
        (f"Digest {KEY}", 401),
    ],
)
def test_keys(closed: Running, header: str, status: int) -> None:
    assert closed.client.get("/v1/tables", headers={"Authorization": header}).status_code == status


def test_a_host_that_others_reach_needs_a_key(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", ""):
        with pytest.raises(UsageError, match="API key"):
            create_app(Settings(host=host))
    with pytest.raises(UsageError, match="16 characters"):
        create_app(Settings(host="0.0.0.0", api_keys=(SecretStr("short"),)))
    assert KEY not in repr(Settings(api_keys=(SecretStr(KEY),)))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", ""])
def test_another_name_for_this_machine_is_refused(server: Running, host: str) -> None:
    refused(server.client.get("/v1/tables", headers={"Host": host}), 421, "wrong_host")


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_pages_of_other_sites_may_not_call(server: Running, headers: dict[str, str]) -> None:
    answer = server.post("/v1/search", {"query": {"text": "a"}}, headers=headers)
    refused(answer, 403, "wrong_origin")
    assert "access-control-allow-origin" not in answer.headers
    asked = {**headers, "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in server.client.options("/v1/search", headers=asked).headers


def test_one_origin_may_be_let_in(drawings: Path) -> None:
    origin = "https://shop.example"
    with running(Settings(tables=(drawings,), mllm=None, cors=(origin,))) as made:
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        before = made.client.options("/v1/search", headers=asked)
        assert (before.status_code, before.headers["access-control-allow-origin"]) == (204, origin)
        found = made.post("/v1/search", {"query": {"text": "a"}}, headers={"Origin": origin})
        assert found.status_code == 200 and found.headers["access-control-allow-origin"] == origin
        other = made.post("/v1/search", {"query": {"text": "a"}}, headers={"Origin": "https://evil.example"})
        assert other.status_code == 403


def test_odd_methods_and_addresses_have_the_same_shape(server: Running) -> None:
    refused(server.client.get("/v1/search"), 405, "method_not_allowed")
    refused(server.client.get("/v1/nothing"), 404, "not_found")
    refused(server.client.request("TRACE", "/v1/tables"), 405, "method_not_allowed")
    answer = server.client.get("/<script>alert(1)</script>")
    assert answer.status_code == 404 and "<script>" not in answer.text


def test_request_ids_come_back_unless_they_are_odd(server: Running) -> None:
    assert server.client.get("/healthz", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    odd = server.client.get("/healthz", headers={"X-Request-Id": "a b<script>"}).headers["x-request-id"]
    assert len(odd) == 32 and odd.isalnum()
