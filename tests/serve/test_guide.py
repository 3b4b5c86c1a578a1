"""Every command of docs/guides/serve.md runs, and answers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from fakes import INSTALLED
from serving import GALLERY, Running, running

from looktwice.cli.main import app
from looktwice.serve import Settings
from looktwice.serve.settings import read_keys

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "serve.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8765"


@pytest.fixture(scope="module")
def place(drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the table and the query that the page names."""
    folder = tmp_path_factory.mktemp("guide")
    shutil.copytree(drawings, folder / "photos.lt")
    shutil.copy(GALLERY / "images" / "scene-003.jpg", folder / "query.jpg")
    return folder


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Running]:
    with running(Settings(tables=(place / "photos.lt",), allow_write=True)) as made:
        yield made


def commands() -> list[str]:
    """The commands of the page's sh blocks, those of several lines joined; a group of a block shares its files."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    return [block for block in blocks if not block.startswith(("looktwice serve", "openssl"))]


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize("block", commands(), ids=lambda block: block.split("/v1/")[-1].split()[0])
def test_a_block_of_the_page_answers(server: Running, place: Path, block: str) -> None:
    script = (
        f'set -eo pipefail; looktwice() {{ {sys.executable} -m looktwice "$@"; }}\n{block.replace(ADDRESS, server.url)}'
    )
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=place,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(INSTALLED), "no_proxy": "*"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout and '"error": {' not in done.stdout and '"error":{' not in done.stdout, done.stdout
    if "looktwice search" in block:
        assert done.stdout.splitlines()[2].split()[0] == "1"
    elif "stream" in block:
        assert done.stdout.startswith("event: first") and "event: end" in done.stdout
    else:
        answers = done.stdout.replace("}{", "}\n{").splitlines()
        assert all(isinstance(json.loads(answer), dict) for answer in answers)
        assert len(answers) == block.count("curl ")


def test_the_python_of_the_page_runs(
    server: Running, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    blocks = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        names: dict[str, Any] = {}
        exec(compile(block.replace(ADDRESS, server.url), "serve.md", "exec"), names)
    assert "end" in capsys.readouterr().out.split()


def test_the_server_has_every_option_that_the_page_names(tmp_path: Path) -> None:
    group: Any = typer.main.get_command(app)
    known = {name for option in group.commands["serve"].params for name in option.opts}
    named = {
        word
        for line in PAGE.splitlines()
        if ("serve" in line and "benchmarks" not in line) or "| `--" in line
        for word in re.findall(r"--[a-z-]+", line)
    }
    assert {"--host", "--api-key-file", "--allow-write"} <= named
    assert named - known - {"--serve", "--data-binary"} == set()
    made = subprocess.run(["bash", "-c", "openssl rand -hex 24 > keys.txt"], cwd=tmp_path)
    if not made.returncode:
        Settings(host="0.0.0.0", api_keys=read_keys(tmp_path / "keys.txt")).check_doors()
