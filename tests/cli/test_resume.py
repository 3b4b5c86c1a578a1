"""A run of many queries that is killed goes on where it stopped, bundled models and command line included."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from looktwice.cli.main import app
from looktwice.cli.resume import kept_scores
from looktwice.testing import make_images

SLOW = """
import sys, time
from looktwice.cli.main import main
from looktwice.score.local.engine import Engine

scored = Engine.score

def score(self, query, candidates):
    time.sleep(0.2)
    result = scored(self, query, candidates)
    with open(LOG, "a") as log:
        log.writelines(f"{query.id} {c.id}\\n" for c in candidates)
    return result

LOG = sys.argv.pop()
Engine.score = score
main()
"""
QUERIES = 12


def run(*arguments: object) -> None:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "pictures")
    lines = []
    for i in range(QUERIES):
        Image.new("RGB", (24, 16), (20 * i, 255 - 20 * i, 7 * i)).save(f"q{i}.png")
        lines.append(json.dumps({"id": f"q{i}", "image": f"q{i}.png"}) + "\n")
    Path("queries.jsonl").write_text("".join(lines))
    run("index", "t.lt", "pictures", "--device", "cpu")
    run("add-tokens", "t.lt", "--codec", "int8", "--device", "cpu")
    return Path("t.lt")


def test_killed_in_the_middle_it_ends_with_the_same_run_file_and_scores_nothing_twice(table: Path) -> None:
    asked = ["search", table, "--queries", "queries.jsonl", "--device", "cpu", "--threads", "1", "--shortlist", "8"]
    run(*asked, "--run", "whole.trec")
    command = [sys.executable, "-c", SLOW, *map(str, asked), "--run", "out.trec", "scored.log"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    log = Path("scored.log")
    killed = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while killed.poll() is None and time.monotonic() < deadline:
        if log.exists() and len(log.read_text().splitlines()) >= 3 * 8:
            break
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    _, told = killed.communicate()
    assert log.exists(), told.decode()
    before = log.read_text().splitlines()
    assert 3 * 8 <= len(before) < QUERIES * 8 and not Path("out.trec").exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Continuing an interrupted run" in done.stderr
    assert Path("out.trec").read_bytes() == Path("whole.trec").read_bytes()
    twice = [pair for pair, n in Counter(log.read_text().splitlines()).items() if n > 1]
    assert {pair.split()[0] for pair in twice} <= {before[-1].split()[0]}, "at most the call in flight is repeated"
    assert not list(Path().glob("out.trec.scores*")), "nothing is left behind"
    manifest = json.loads(Path("out.trec.json").read_text())
    assert manifest["candidates"]["remembered"] >= len(before) - 8


def test_own_scores_stay_where_the_work_ended_early(tmp_path: Path) -> None:
    out = tmp_path / "out.trec"
    with pytest.raises(KeyboardInterrupt), kept_scores(None, out) as path:
        assert path is not None
        path.write_text("scores")
        raise KeyboardInterrupt
    with kept_scores(None, out) as again:
        assert again == path and path.read_text() == "scores"
    assert not path.exists()
    with kept_scores(tmp_path / "named", out) as named:
        assert named == tmp_path / "named"
        named.write_text("scores")
    assert named.exists(), "a file that the user named is the user's"
    (tmp_path / "pipe.link").symlink_to("pipe")
    os.mkfifo(tmp_path / "pipe")
    with kept_scores(None, tmp_path / "pipe.link") as none:
        assert none is None, "nobody looks for a file beside a pipe"
    with kept_scores(None, None) as none:
        assert none is None
