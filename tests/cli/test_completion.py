"""Completion in a real shell: installed into a home of its own, then asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import INSTALLED

ASK = """
. ~/.bashrc
COMP_WORDS=(%s)
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_looktwice_completion looktwice
echo "${COMPREPLY[@]}"
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose bin/ holds the command."""
    command = tmp_path / "bin" / "looktwice"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom looktwice.cli.main import main\nmain()\n")
    command.chmod(0o755)
    return tmp_path


def bash(home: Path, script: str) -> str:
    paths = {"HOME": str(home), "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(INSTALLED)}
    done = subprocess.run(["bash", "-c", script], env={**os.environ, **paths}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_installed_completion_knows_verbs_and_options(home: Path) -> None:
    assert "bash completion installed" in bash(home, "looktwice --install-completion; exit $?")
    assert bash(home, ASK % "looktwice sea").split() == ["search"]
    assert "--report" in bash(home, ASK % "looktwice search --re").split()
    assert bash(home, ASK % "looktwice search --nothing-like-that").split() == []


def test_completion_is_shown_without_being_installed(home: Path) -> None:
    assert "complete_bash" in bash(home, "looktwice --show-completion; exit $?")
    assert not (home / ".bashrc").exists()
