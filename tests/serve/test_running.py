"""What surrounds the API: documentation, tracing, several workers, another app around it, the command's refusals."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import psutil
import pytest
from fakes import INSTALLED
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr
from serving import GALLERY, Running, running
from typer.testing import CliRunner

from looktwice.cli.main import app
from looktwice.errors import UsageError
from looktwice.serve import Settings, create_app, workers
from looktwice.serve.run import serve
from looktwice.serve.settings import read_keys
from looktwice.serve.workers import serve_many, write_settings
from looktwice.store import Table
from looktwice.testing import BrightnessScorer


def test_the_documentation_needs_nothing_from_elsewhere(server: Running) -> None:
    page = server.client.get("/docs")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert "//" not in page.text.replace("<!doctype", "")
    for name in ("docs.js", "docs.css"):
        assert server.client.get(f"/docs/{name}").status_code == 200
    assert server.client.get("/docs/app.py").status_code == server.client.get("/docs/..%2fapp.py").status_code == 404


def test_the_page_is_revalidated_not_reloaded(server: Running) -> None:
    first = server.client.get("/")
    assert first.status_code == 200 and first.headers["cache-control"] == "no-cache"
    again = server.client.get("/", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304 and "default-src 'none'" in again.headers["content-security-policy"]


def test_each_request_is_one_line_of_the_log(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "looktwice.serve.access"):
        server.client.get("/v1/tables", headers={"X-Request-Id": "log-1"})
        until, mine = time.monotonic() + 5, list[dict[str, object]]()
        while not mine and time.monotonic() < until:  # a browser of another test may still ask another server
            time.sleep(0.01)
            mine = [one for one in map(json.loads, caplog.messages) if one["request_id"] == "log-1"]
    (record,) = mine
    assert (record["path"], record["status"]) == ("/v1/tables", 200)
    assert set(record) == {"request_id", "method", "path", "status", "seconds", "bytes", "client"}


def test_tracing_makes_spans_of_requests_and_blocks(drawings: Path) -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    trace.set_tracer_provider(provider)
    with running(Settings(tables=(drawings,), mllm="stub", tracing=True), BrightnessScorer()) as made:
        assert made.post("/v1/search", {"query": {"item": "scene-001.jpg"}, "k": 2}).status_code == 200
        made.client.get("/healthz")
    spans = {span.name: span for span in kept.get_finished_spans()}
    block, request = spans["looktwice.block"], spans["POST /v1/search"]
    assert block.attributes["pairs"] >= 1 and block.context.trace_id == request.context.trace_id
    assert not any("healthz" in name for name in spans)


def test_another_app_may_hold_this_one(drawings: Path) -> None:
    outer, inner = FastAPI(), create_app(Settings(tables=(drawings,), mllm=None))
    outer.mount("/search", inner)
    with TestClient(outer, base_url="http://127.0.0.1"), TestClient(inner, base_url="http://127.0.0.1") as direct:
        until = time.monotonic() + 30
        while direct.get("/readyz").status_code != 200 and time.monotonic() < until:
            time.sleep(0.02)
        client = TestClient(outer, base_url="http://127.0.0.1")
        found = client.post("/search/v1/search", json={"query": {"text": "a"}, "k": 2})
        assert found.status_code == 200 and len(found.json()["hits"]) == 2
        assert client.get("/search/v1/tables/photos/items/scene-001.jpg/preview").status_code == 200
        assert client.get("/search/").status_code == 200


def test_several_workers_take_first_looks(drawings: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "looktwice",
        "serve",
        str(drawings),
        "--no-rerank",
        "--port",
        "0",
        "--workers",
        "2",
    ]
    env = {**os.environ, "PYTHONPATH": str(INSTALLED)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                if httpx.get(f"{url}/readyz", trust_env=False, timeout=30).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
        found = httpx.post(f"{url}/v1/search", json={"query": {"text": "a"}}, trust_env=False, timeout=30)
        assert found.status_code in (200, 503) and found.headers["x-request-id"]  # the other one may still load
        assert len(psutil.Process(process.pid).children()) >= 2
    finally:
        process.terminate()
        process.wait(30)


def test_a_taken_port_is_refused_with_the_option_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The web server would end the process with its own exit code, 3: finished with failed items."""
    monkeypatch.setattr(workers, "log_to_stderr", lambda: None)  # it would outlive this test, whose stderr is closed
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = Settings(mllm=None, port=taken.getsockname()[1])
        with pytest.raises(UsageError, match=f"127.0.0.1:{settings.port}; choose another --port"):
            serve(settings)
        with pytest.raises(UsageError, match="--port"):
            serve_many(settings, 2, print)


def test_workers_neither_rerank_nor_write(drawings: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--no-rerank"):
        serve_many(Settings(tables=(drawings,)), 2, print)
    with pytest.raises(UsageError, match="--allow-write"):
        serve_many(Settings(tables=(drawings,), mllm=None, allow_write=True), 2, print)
    written = write_settings(Settings(api_keys=(SecretStr("k" * 20),)), tmp_path / "settings.json")
    assert written.stat().st_mode & 0o077 == 0
    assert Settings.model_validate_json(written.read_text()).api_keys[0].get_secret_value() == "k" * 20


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none.lt"], "none.lt does not exist"),
        (["--host", "0.0.0.0"], "API key is required"),
        (["--max-body", "large"], "is not a size"),
        (["--api-key-file", "none.txt"], "cannot be read"),
        (["--workers", "2"], "--no-rerank"),
    ],
)
def test_the_command_refuses_in_one_sentence(arguments: list[str], says: str, tmp_path: Path) -> None:
    before = logging.getLogger("looktwice.serve.access").handlers[:]
    done = CliRunner().invoke(app, ["serve", *arguments], env={"PWD": str(tmp_path)})
    assert done.exit_code == 2 and says in done.stderr, done.stderr
    log = logging.getLogger("looktwice.serve.access")
    assert log.handlers == before and log.propagate, "it would write to a stderr that is closed"


def test_keys_come_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text("# ours\n\n  first-key-of-ours-1  \nsecond-key-of-ours\n")
    assert [key.get_secret_value() for key in read_keys(path)] == ["first-key-of-ours-1", "second-key-of-ours"]
    path.write_text("# none\n")
    with pytest.raises(UsageError, match="has no API key"):
        read_keys(path)


def test_two_tables_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="rename one"):
        create_app(Settings(tables=(tmp_path / "a" / "x.lt", tmp_path / "b" / "x.lt")))


def test_the_demo_serves_the_scenes_of_its_words_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = SimpleNamespace(scenes=tmp_path / "scenes")
    folders = [tmp_path / "small" / "images", scenes.scenes]
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True)
        shutil.copy(GALLERY / "images" / f"scene-00{number}.jpg", folder)
    served: list[Settings] = []
    monkeypatch.setattr("looktwice.experiment.demo_words.word_queries", lambda folder: scenes)
    monkeypatch.setattr("looktwice.cli.serve.run_server", served.append)
    command = ["demo", str(tmp_path / "out"), "--serve", "--words", "--gallery", str(folders[0].parent)]
    assert CliRunner().invoke(app, [*command, "--maxsim", "0"]).exit_code == 0
    assert len(Table.open(served[0].tables[0])) == 2


def test_the_demo_serves_its_gallery(tmp_path: Path) -> None:
    images = tmp_path / "small" / "images"
    images.mkdir(parents=True)
    for path in sorted((GALLERY / "images").glob("*.jpg"))[:8]:
        shutil.copy(path, images)
    command = [sys.executable, "-m", "looktwice", "demo", str(tmp_path / "out"), "--serve", "--port", "0"]
    env = {**os.environ, "PYTHONPATH": str(INSTALLED)}
    process = subprocess.Popen(
        [*command, "--gallery", str(images.parent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=env,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        body = {"query": {"item": "scene-001.jpg"}, "k": 3}
        found = httpx.post(f"{url}/v1/search", json=body, trust_env=False, timeout=60).json()
        assert len(found["hits"]) == 3 and found["hits"][0]["maxsim"] is not None  # tokens were stored for it
        assert httpx.get(url, trust_env=False).headers["content-type"].startswith("text/html")
    finally:
        process.terminate()
        process.wait(30)
