"""Schemathesis sends what the OpenAPI allows and what it forbids; every answer has the shape that the document says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Running, running

from looktwice.serve import Settings
from looktwice.testing import BrightnessScorer

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
EXPLAINED = "positive_data_acceptance"
"""The one check left out: JSON Schema cannot say that a text must be base64 of an image, or an id that of an item."""


@pytest.fixture(scope="module")
def fuzzed(drawings: Path) -> Iterator[Running]:
    with running(Settings(tables=(drawings,), mllm="stub"), BrightnessScorer()) as made:
        yield made


@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="schemathesis is not installed")
def test_every_answer_is_as_described(fuzzed: Running, tmp_path: Path) -> None:
    command = [SCHEMATHESIS, "run", f"{fuzzed.url}/openapi.json", "--max-examples=10", "--seed=1", "--no-color"]
    done = subprocess.run(
        [*command, f"--exclude-checks={EXPLAINED}"], capture_output=True, text=True, cwd=tmp_path, timeout=240
    )
    assert done.returncode == 0, done.stdout[-9000:]
    operations = {
        (path, method)
        for path, methods in fuzzed.client.get("/openapi.json").json()["paths"].items()
        for method in methods
    }
    assert f"Tested: {len(operations)}" in done.stdout, done.stdout[-2000:]


def test_the_document_names_every_limit_and_error(fuzzed: Running) -> None:
    document = fuzzed.client.get("/openapi.json").json()
    assert len(document["paths"]) > 10
    for path, methods in document["paths"].items():
        for method, about in methods.items():
            assert about["summary"].endswith("."), (path, method)
            assert {"4XX", "5XX"} <= set(about["responses"]), (path, method)
