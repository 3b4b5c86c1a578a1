"""Memory: items that only lived there are shown by their preview, and requests that wait hold little of it."""

from __future__ import annotations

import base64
import io
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest
from PIL import Image
from serving import GALLERY, Running, running

from looktwice import Table, index, scan
from looktwice.encode import load_encoder
from looktwice.serve import Settings, media
from looktwice.serve.seats import SMALL_SEATS
from looktwice.testing import BrightnessScorer
from looktwice.types import Item, PairScores


class Held(BrightnessScorer):
    """Scores nothing until `hold` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.hold = threading.Event()

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        self.hold.wait(20)
        return super().score(query, candidates)


def all_is_given_back(server: Running) -> None:
    """Wait until nothing is held: an answer may arrive just before its request ends."""
    until = time.monotonic() + 10
    while server.service.memory.held and time.monotonic() < until:
        time.sleep(0.01)
    assert server.service.memory.held == 0


def test_a_preview_of_the_table_is_served(tmp_path: Path) -> None:
    table = Table.open_or_create(tmp_path / "shop.lt", "tiny-clip", previews=64)
    drawing = Image.open(GALLERY / "images" / "scene-000.jpg")
    report = table.upsert([{"id": "sku 1", "image": drawing, "metadata": {"price": 5.0}}])
    assert report.inserted == 1
    with running(Settings(tables=(tmp_path / "shop.lt",), mllm=None)) as server:
        asked = {"query": {"text": "a drawing"}, "where": {"price": {"<": 9}}, "rerank": False}
        (hit,) = server.client.post("/v1/search", json=asked).json()["hits"]
        assert (hit["id"], hit["uri_kind"], hit["metadata"]) == ("sku 1", "memory", {"price": 5.0})
        shown = server.client.get(hit["preview"])
        assert shown.status_code == 200 and max(Image.open(io.BytesIO(shown.content)).size) == 64
        assert shown.content == table.preview("sku 1")  # it is not encoded a second time


def test_requests_that_wait_hold_no_decoded_images(drawings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    load = media.images.load
    monkeypatch.setattr(media.images, "load", lambda *one, **how: (decoded.append(1), load(*one, **how))[1])
    scorer = Held()
    image = base64.b64encode((GALLERY / "images" / "scene-001.jpg").read_bytes()).decode()
    bodies = [
        {"query": {"image": image, "text": f"{n}"}, "documents": [{"image": image, "text": f"{i}"} for i in range(9)]}
        for n in range(12)
    ]
    with running(Settings(tables=(drawings,), mllm="held"), scorer) as server:
        with ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(server.post, "/v1/rerank", body) for body in bodies]
            until = time.monotonic() + 20
            full = SMALL_SEATS * 10
            while (server.service.gate.requests < 12 or len(decoded) < full) and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(0.3)
            waiting, held = len(decoded), server.service.memory.held
            scorer.hold.set()
            assert [one.result().status_code for one in asked] == [200] * 12
        assert waiting == full < len(decoded) == 120
        assert held > 12 * 9 * len(image)
        all_is_given_back(server)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of one image whose file is larger than what a system keeps of an answer."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "images").mkdir()
    Image.new("RGB", (1800, 1800)).save(folder / "images" / "a.bmp")
    encoder = load_encoder("tiny-clip")
    index(Table.create(folder / "large.lt", encoder.info), scan([folder / "images"]), encoder)
    return folder / "large.lt"


ORIGINAL = "/v1/tables/large/items/a.bmp/original"
SIZE = 1800 * 1800 * 3


def ask(server: Running) -> socket.socket:
    """Ask for the original and read nothing."""
    host, port = server.url.removeprefix("http://").split(":")
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.settimeout(60)
    line.connect((host, int(port)))
    line.sendall(f"GET {ORIGINAL} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return line


def wait_until_held(server: Running, nbytes: int) -> None:
    until = time.monotonic() + 60
    while server.service.memory.held < nbytes and time.monotonic() < until:
        time.sleep(0.01)
    assert server.service.memory.held >= nbytes


def test_an_answer_counts_until_it_is_read(large: Path) -> None:
    with running(Settings(tables=(large,), mllm=None, max_held=SIZE * 5 // 2)) as server:
        lines = [ask(server), ask(server)]
        wait_until_held(server, 2 * SIZE)
        answer = server.client.get(ORIGINAL)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
        assert server.client.get("/healthz").status_code == 200
        for line in lines:
            line.close()
        all_is_given_back(server)
        assert server.client.get(ORIGINAL).content == (large.parent / "images" / "a.bmp").read_bytes()
        all_is_given_back(server)


def test_a_client_that_reads_nothing_is_cut_off(large: Path) -> None:
    with running(Settings(tables=(large,), mllm=None, write_seconds=2)) as server:
        line = ask(server)
        wait_until_held(server, SIZE)
        all_is_given_back(server)
        got = 0
        with closing(line), suppress(ConnectionError):
            while part := line.recv(1 << 20):
                got += len(part)
        assert 0 < got < SIZE


def test_bodies_and_queries_share_one_limit(drawings: Path) -> None:
    image = base64.b64encode((GALLERY / "images" / "scene-001.jpg").read_bytes()).decode()
    small = {"query": "a", "documents": ["b"]}
    pixels = 4 * 192 * 192
    scorer = Held()
    with running(Settings(tables=(drawings,), mllm="held", max_held=pixels + 20_000), scorer) as server:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(server.post, "/v1/search", {"query": {"image": image}, "shortlist": 4})
            while server.service.memory.held < pixels:
                time.sleep(0.01)
            answer = server.post("/v1/rerank", {**small, "user": "x" * 20_000})
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
            scorer.hold.set()
            assert first.result().status_code == 200
        assert server.post("/v1/rerank", {**small, "user": "x" * 20_000}).status_code == 200
        answer = server.post("/v1/search", {"query": {"image": image}, "like": [{"image": image}]})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
        all_is_given_back(server)
