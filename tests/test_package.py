"""The package as a stranger gets it: built, installed far from the clone, and run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NEEDLESS = {".ci/run", ".gitignore"}  # of use in a clone only
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(*command: object, cwd: Path) -> str:
    """Run a command that knows nothing of the environment of these tests."""
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist, and a wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return folder


def test_the_wheel_runs_the_demo_in_a_clean_environment(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    run(sys.executable, "-m", "venv", "env", cwd=tmp_path)
    options = shlex.split(os.environ.get("PIP_ARGS", ""))
    run("env/bin/python", "-m", "pip", "install", *options, "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    lines = [json.loads(line) for line in run("env/bin/looktwice", "demo", "--json", cwd=tmp_path).splitlines()]
    assert lines[-1] == {"report": "demo-out/report.html"}
    assert "<html" in (tmp_path / "demo-out" / "report.html").read_text(encoding="utf-8")
    images = {row["ranking"]: row["mAP@20"] for row in lines[:-1] if row["queries"].startswith("image")}
    assert 0.3 < images["first look"] < images["second look"]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="tells tracked files by git")
def test_the_sdist_holds_what_is_tracked_and_nothing_else(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        packed = {member.name.partition("/")[2] for member in archive if member.isfile()}
    tracked = set(run("git", "ls-files", "-z", cwd=ROOT).split("\0")) - {""}
    assert tracked - packed == NEEDLESS
    written = {name for name in packed - tracked if ".egg-info/" not in name}
    assert written == {"PKG-INFO", "setup.cfg"}


def test_sizes_are_as_stated(built: Path) -> None:
    said = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for kind, sentence in (("*.whl", r"wheel has (\d+) MB"), ("*.tar.gz", r"sdist has (\d+) MB")):
        (file,) = built.glob(kind)
        (stated,) = re.findall(sentence, said)
        assert file.stat().st_size / 1e6 == pytest.approx(int(stated), abs=1)
