"""Items come, change and go by HTTP; what was acknowledged is on the disk; a full disk says so."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fakes import INSTALLED
from serving import GALLERY, Running, running

from looktwice import Client, Retriever
from looktwice.errors import StoreError
from looktwice.serve import Settings
from looktwice.store import Table
from looktwice.testing import BrightnessScorer

Named = Callable[[str], str]


@pytest.fixture(scope="module")
def server(drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    path = tmp_path_factory.mktemp("items") / "shop.lt"
    shutil.copytree(drawings, path)
    with running(Settings(tables=(path,), mllm=None, allow_write=True)) as made:
        yield made


def at(id_: str) -> str:
    return f"/v1/tables/shop/items/{quote(id_, safe='')}"


ODD = [
    "a/b.jpg",
    "a%2Fb",
    "ü 漢 🐎",
    "x?y#z",
    "<img src=x onerror=alert(1)>",
    "x/preview",
    "a&b=c;d",
    "'; DROP TABLE items; --",
]


@pytest.mark.parametrize("id_", ODD)
def test_an_item_comes_changes_and_goes(server: Running, image_of: Named, id_: str) -> None:
    body = {
        "image": image_of("scene-050.jpg"),
        "text": "<script>alert(1)</script>",
        "metadata": {"price": 20, "<b>": "</b>"},
    }
    made = server.client.put(at(id_), json=body)
    assert (made.status_code, made.json()) == (201, {"id": id_, "status": "inserted"}), made.text
    found = server.client.get(at(id_))
    assert found.headers["content-type"] == "application/json" and found.headers["x-content-type-options"] == "nosniff"
    item = found.json()
    assert (item["id"], item["text"], item["metadata"]) == (id_, body["text"], body["metadata"])
    assert item["width"] > 0 and item["uri_kind"] == "memory"
    hits = server.post("/v1/search", {"query": {k: body[k] for k in ("image", "text")}, "k": 1}).json()["hits"]
    assert hits[0]["id"] == id_ and hits[0]["metadata"] == body["metadata"]
    again = server.client.put(at(id_), json={"metadata": {"price": 30}})
    assert (again.status_code, again.json()["status"]) == (200, "updated")
    assert server.client.get(at(id_)).json()["metadata"] == {"price": 30}
    assert server.client.delete(at(id_)).json()["status"] == "deleted"
    assert server.client.get(at(id_)).status_code == server.client.delete(at(id_)).status_code == 404


def test_what_came_by_http_has_a_preview_and_gets_a_second_look(server: Running, image_of: Named) -> None:
    body = {"image": image_of("scene-060.jpg")}
    assert server.client.put(at("seen"), json=body).status_code == 201
    shown = server.client.get(f"{at('seen')}/preview?w=160")
    assert shown.status_code == 200 and shown.headers["content-type"] == "image/webp"
    table = server.service.tables.get("shop")
    found = Retriever(table.path, table.encoder, BrightnessScorer()).search(
        {"image": GALLERY / "images" / "scene-060.jpg"}, k=1
    )
    assert (found.hits[0].id, found.hits[0].status) == ("seen", "ok")
    assert server.client.delete(at("seen")).status_code == 200


def test_a_batch_writes_good_lines_and_names_bad_ones(server: Running, image_of: Named) -> None:
    lines: list[Any] = [
        {"id": "b-1", "text": "one", "metadata": {"shop": "a"}},
        {"id": "b-2", "image": image_of("scene-051.jpg")},
        {"id": "b-3", "image": "AAAA"},
        {"id": "b-1", "text": "again"},
        {"id": "b-4", "image": "/etc/passwd"},
        {"text": "no id"},
    ]
    data = "\n".join([*map(json.dumps, lines), "{", '{"id": "b-5", "text": NaN}']).encode()
    answer = server.client.post("/v1/tables/shop/items:batch", content=data).json()
    assert (answer["inserted"], answer["failed"]) == (2, 6), answer
    assert [one["line"] for one in answer["failures"]] == [3, 4, 5, 6, 7, 8]
    assert [one["reason"] for one in answer["failures"]][:3] == ["image_not_an_image", "duplicate_id", "bad_image"]
    assert server.client.get(at("b-2")).status_code == 200
    found = server.post("/v1/search", {"query": {"text": "one"}, "where": {"shop": "a"}, "k": 5}).json()["hits"]
    assert [hit["id"] for hit in found] == ["b-1"]


@pytest.mark.parametrize(
    ("id_", "body", "status", "code"),
    [
        ("a", {}, 422, "empty"),
        ("a", {"image": "/etc/passwd"}, 422, "bad_image"),
        ("a", {"image": "scene-001.jpg"}, 422, "bad_image"),
        ("a", {"text": "x", "path": "/etc/passwd"}, 422, "extra_forbidden"),
        ("a", {"text": "a\0b"}, 422, "text_not_utf8"),
        ("x" * 1001, {"text": "a"}, 422, "bad_id"),
        ("new", {"metadata": {"a": 1}}, 422, None),
    ],
)
def test_items_that_are_refused(server: Running, id_: str, body: Any, status: int, code: str | None) -> None:
    answer = server.client.put(at(id_), json=body)
    assert answer.status_code == status, answer.text
    assert code is None or answer.json()["error"]["code"] == code
    assert "/tmp" not in answer.text and server.client.get(at(id_)).status_code == 404


def test_a_server_that_only_reads_takes_no_changes(drawings: Path) -> None:
    with running(Settings(tables=(drawings,), mllm=None)) as made:
        base = "/v1/tables/photos"
        answers = [
            made.client.put(f"{base}/items/a", json={"text": "a"}),
            made.client.delete(f"{base}/items/scene-001.jpg"),
            made.client.post(f"{base}/items:batch", content=b"{}"),
        ]
        assert [answer.status_code for answer in answers] == [403] * 3
        assert made.client.get(f"{base}/items/scene-001.jpg").status_code == 200


def test_the_client_writes_too(server: Running) -> None:
    with Client(server.url) as client:
        assert (
            client.put("c-1", GALLERY / "images" / "scene-052.jpg", {"year": 2020}, table="shop")["status"]
            == "inserted"
        )
        assert client.get("c-1", "shop")["metadata"] == {"year": 2020}
        assert client.delete("c-1", "shop")["status"] == "deleted"


def test_a_full_disk_is_said_and_reading_goes_on(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StoreError("The disk is full, so adding items failed and left /x/shop.lt unchanged; free some space.")

    monkeypatch.setattr(Table, "upsert", full)
    answer = server.client.put(at("full"), json={"text": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "disk_full")
    assert "/x/" not in answer.text
    assert server.post("/v1/search", {"query": {"text": "a"}}).status_code == 200


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="a small disk needs the right to mount")
def test_a_disk_that_really_fills_up(drawings: Path, tmp_path: Path, image_of: Named) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting is not permitted")
    try:
        shutil.copytree(drawings, disk / "small.lt")
        with running(Settings(tables=(disk / "small.lt",), mllm=None, allow_write=True)) as made:
            codes = []
            for number in range(40):
                text = base64.b64encode(os.urandom(90_000)).decode()
                answer = made.client.put(
                    f"/v1/tables/small/items/i-{number}", json={"metadata": {"x": text}, "text": "a"}
                )
                codes.append(answer.status_code)
                if answer.status_code != 201:
                    break
            assert codes[-1] == 507, (codes, answer.text)
            assert answer.json()["error"]["code"] == "disk_full" and str(disk) not in answer.text
            found = made.post("/v1/search", {"query": {"text": "a"}, "k": 100, "rerank": False})
            assert found.status_code == 200 and len(found.json()["hits"]) == 40 + codes.count(201)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def start(path: Path) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "looktwice", "serve", str(path), "--no-rerank", "--allow-write", "--port", "0"]
    env = {**os.environ, "PYTHONPATH": str(INSTALLED)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("Serving at http://"), line
    return process, line.split()[-1]


def test_what_was_acknowledged_survives_kill_9(drawings: Path, tmp_path: Path) -> None:
    path = tmp_path / "killed.lt"
    shutil.copytree(drawings, path)
    process, url = start(path)
    acknowledged: list[str] = []

    def write(worker: int) -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            for number in range(10_000):
                name = f"w{worker}-{number}"
                try:
                    answer = client.put(f"{url}/v1/tables/killed/items/{name}", json={"text": f"item {name}"})
                except httpx.HTTPError:
                    return
                assert answer.status_code == 201, answer.text
                acknowledged.append(name)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 20
    while len(acknowledged) < 12 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    for thread in threads:
        thread.join(30)
    assert len(acknowledged) >= 12
    table = Table.open(path)
    assert {row["id"] for row in table.lookup(acknowledged, ["id"])} == set(acknowledged)
    assert 40 + len(acknowledged) <= len(table) <= 40 + len(acknowledged) + 3


def test_sigterm_ends_the_process_with_code_0(drawings: Path) -> None:
    process, url = start(drawings)
    assert httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    process.terminate()
    assert process.wait(20) in (0, -signal.SIGTERM)
