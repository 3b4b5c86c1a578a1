"""What a newcomer meets: Ctrl-C at once, another encoder, a broken table, wide tables, the last line of the ledger."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Looktwice
from fakes import INSTALLED

from looktwice.testing import ColorEncoder

INTERRUPT = """
import os, signal
os.kill(os.getpid(), signal.SIGINT)
import time
time.sleep(5)
"""


@pytest.mark.parametrize("module", ["typer", "looktwice_is_late"])
def test_ctrl_c_while_modules_load_is_one_word(tmp_path: Path, module: str) -> None:
    (tmp_path / f"{module}.py").write_text(INTERRUPT)
    code = "import looktwice.__main__ as m; m.main()" if module == "typer" else "import looktwice_is_late"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(INSTALLED)])},
        check=False,
    )
    if module == "typer":
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")
    else:  # what the test would see without the handler
        assert "Traceback" in done.stderr


def test_ctrl_c_that_others_have_taken_stays_theirs() -> None:
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from looktwice.cli import interrupt\n"
        "interrupt.until_a_verb_begins(); assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler); interrupt.until_a_verb_begins()\n"
        "assert signal.getsignal(signal.SIGINT) is interrupt.stop\n"
        "interrupt.as_usual(); assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
    )
    env = {**os.environ, "PYTHONPATH": str(INSTALLED)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)


def test_another_encoder_is_refused_before_it_is_loaded(
    looktwice: Looktwice, indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(indexed / "t.lt", tmp_path / "t.lt")
    loaded: list[str] = []
    monkeypatch.setattr(
        "looktwice.encode.load_encoder", lambda name, **options: (loaded.append(name), ColorEncoder())[1]
    )
    pictures = indexed / "pictures"
    for name in ("siglip2-b", "tower:tiny-vl", "org/any", "tiny-clip"):
        done = looktwice("index", "t.lt", pictures, "--encoder", name)
        assert done.code == 2 and f"was made with encoder colors, not with {name}; leave out" in done.err
    assert loaded == []
    assert looktwice("index", "t.lt", pictures, "--encoder", "colors").code == 0 and loaded == ["colors"]
    (tmp_path / "folder").mkdir()  # a folder may hold any model, so it is loaded and compared then
    assert looktwice("index", "t.lt", pictures, "--encoder", "./folder").code == 0


@pytest.mark.parametrize("part", ["items.lance", "tokens.lance", "ledger.lance", "items.lance/_versions"])
def test_a_table_without_a_folder_says_what_to_do(
    looktwice: Looktwice, indexed: Path, tmp_path: Path, part: str
) -> None:
    shutil.copytree(indexed / "t.lt", tmp_path / "t.lt")
    shutil.rmtree(tmp_path / "t.lt" / part)
    done = looktwice("info", "t.lt")
    assert (
        done.code == 2 and "files of the table are missing; restore them from a copy, or index into a new" in done.err
    )


def test_the_ledger_counts_what_it_shows(looktwice: Looktwice, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "b.jpg").write_bytes(b"no image")
    (tmp_path / "c.jpg").write_bytes(b"no image either")
    looktwice("index", "t.lt", tmp_path)
    reasons = [record["reason"] for record in looktwice("ledger", "t.lt", "--json").records]
    assert "3 entries: " in looktwice("ledger", "t.lt").err
    rare = min(set(reasons), key=reasons.count)
    assert f"1 entry of 3: 1 {rare}." in looktwice("ledger", "t.lt", "--reason", rare).err


@pytest.mark.parametrize("verb", ["models", "doctor"])
def test_tables_of_sentences_fold_in_a_pipe(looktwice: Looktwice, verb: str) -> None:
    lines = looktwice(verb).out.splitlines()
    assert lines and max(map(len, lines)) <= 120
