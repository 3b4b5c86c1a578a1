"""Rerank clients of other projects, as docs/guides/clients.md uses them, get the library's own scores."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from looktwice import Client, Reranker

sys.path.insert(0, str(Path(__file__).parents[1] / "serve"))
from serving import Running, running

from looktwice.serve import Settings

pytestmark = pytest.mark.clients
PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "clients.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)
TEXTS = ["a horse in a field", "a red kettle", "two boats"]


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of the environment that `make test-clients` builds."""
    found = Path(os.environ.get("LOOKTWICE_CLIENTS", ".venv-clients")) / "bin" / "python"
    if not found.exists():
        pytest.fail(f"{found} does not exist; run make test-clients")
    return found.absolute()


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(Settings()) as made:
        yield made


def name(block: str) -> str:
    first = re.search(r"^(?:from|import) ([\w.]+)", block, re.MULTILINE)
    assert first is not None
    return first[1]


@pytest.mark.parametrize("block", BLOCKS, ids=name)
def test_a_block_prints_the_librarys_scores(server: Running, python: Path, tmp_path: Path, block: str) -> None:
    done = subprocess.run(
        [python, "-W", "ignore", "-c", block.replace("http://127.0.0.1:8765", server.url)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LITELLM_LOCAL_MODEL_COST_MAP": "True", "no_proxy": "*"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = [(text, float(score)) for score, text in (line.split(" ", 1) for line in done.stdout.splitlines())]
    if "/decisions" in block:
        with Client(server.url) as client:
            expected = list(client.decide("a horse in a field", {"horse": "Is there a horse?"}).items())
    else:
        rows = Reranker("tiny-vl").rank("a horse", TEXTS, top_k=2)
        expected = [(TEXTS[row["corpus_id"]], row["score"]) for row in rows]
    rounds = len(found) // len(expected)
    assert [text for text, _ in found] == [text for text, _ in expected] * rounds and rounds >= 1
    assert [score for _, score in found] == pytest.approx([score for _, score in expected] * rounds, abs=1e-4)
