"""The second look on a server, from the command line."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "score"))
from stub_server import serving
from typer.testing import CliRunner

from looktwice.cli.main import app


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_probe_prints_what_a_server_can_do() -> None:
    with serving() as stub:
        people = run("models", "--probe", f"{stub.url}#stub", "--price", "2", "--pairs", "5000")
        machine = run("models", "--probe", stub.url, "--json")
    assert people.exit_code == 0, people.output
    for line in (
        "p is read from",
        "named ids",
        "500,000 tokens, 1 of money",
    ):
        assert line in people.stdout
    assert re.search(r"the order of the items matters +yes", people.stdout)
    record = json.loads(machine.stdout)
    assert record["reading"] == "named ids" and record["largest_image"] == 1536 and record["tokens"] == 100_000


def test_what_is_no_server_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong, sentence in (
        ("localhost:8000/v1#m", "write it with http:// or https:// before it"),
        ("http://u:p@host/v1#m", "put the key into LOOKTWICE_API_KEY or --api-key-file"),
        ("http:///v1#m", "is not the address of a server"),
        ("tiny-vl", "is not the address of a server"),
    ):
        done = run("models", "--probe", wrong)
        assert done.exit_code == 2 and sentence in done.stderr and "u:p" not in done.output, done.output
