"""`transformers serve` as a second real server: its /v1/systemone with the bundled tiny-vl."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes import INSTALLED
from PIL import Image
from vllm_server import MODEL, free_port

from looktwice import Item, load_scorer
from looktwice.score.remote.config import RemoteConfig

pytestmark = pytest.mark.vllm
GALLERY = INSTALLED / "looktwice" / "assets" / "tiny" / "gallery"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    script = Path(os.environ.get("LOOKTWICE_VLLM", ".venv-vllm") + "-transformers") / "bin" / "transformers"
    assert script.exists(), "run it by make test-vllm, which builds the environment"
    folder = tmp_path_factory.mktemp("served") / "model"
    shutil.copytree(MODEL, folder)
    decisions = {"sanitize_control_tokens": False, "labels": {"noul": ["Yes", "No"]}}
    (folder / "decision.json").write_text(json.dumps(decisions))
    port = free_port()
    command = [script.absolute(), "serve", folder, "--host", "127.0.0.1", "--port", str(port)]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(
            [*map(str, command), "--device", "cpu", "--dtype", "float32"],
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdout=log,
            stderr=log,
        )
    try:
        _wait(f"http://127.0.0.1:{port}/health", server, folder / "log")
        yield f"http://127.0.0.1:{port}/v1#{folder}"
    finally:
        server.kill()
        server.wait()


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(log.read_text(errors="replace")[-3000:])


def test_systemone_of_transformers_decides_pair_by_pair(url: str) -> None:
    scenes = [
        Item(path.name, Image.open(path).convert("RGB")) for path in sorted((GALLERY / "images").glob("*.jpg"))[:8]
    ]
    scorer = load_scorer(f"systemone+{url}", prompt="object_yesno", remote=RemoteConfig(timeout=60))
    scores = scorer.score(scenes[0], scenes)
    assert scorer.settings()["server"][0]["form"] == "assets"
    assert scores.status == ("ok",) * 8 and int(np.argmax(scores.p)) == 0 and scores.p[0] > 0.5
    assert scorer.score(scenes[0], scenes[3:4]).p == pytest.approx(scores.p[3:4], abs=1e-5)
