"""What only a real process shows: pipes that close, ctrl-C, odd terminals; and how errors end a command."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unicodedata import category

import pytest
from conftest import Looktwice
from fakes import INSTALLED

from looktwice.cli.console import json_line, safe, say, table
from looktwice.cli.main import app
from looktwice.store import Table
from looktwice.testing import make_images

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{INSTALLED}{os.pathsep}{ROOT / 'tests'}"}
MAIN = "from looktwice.cli.main import main; main()"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "models", "--json"],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        text=True,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def deleting(indexed: Path, tmp_path: Path) -> list[str]:
    """A command that answers on stdout and ends with 3: an id that it should delete is not there."""
    shutil.copytree(indexed / "t.lt", tmp_path / "t.lt")
    return [sys.executable, "-c", MAIN, "delete", str(tmp_path / "t.lt"), "no-such-id", "--json"]


def test_a_reader_that_has_seen_enough_hides_no_failure(deleting: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    buffered = {**ENVIRONMENT, "PYTHONUNBUFFERED": ""}
    done = subprocess.run(deleting, stdout=writing, stderr=subprocess.PIPE, env=buffered, text=True)
    os.close(writing)
    assert done.returncode == 3 and "Broken" not in done.stderr and "Exception" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("fails", [True, False])
def test_a_full_disk_under_stdout_is_said_once(deleting: list[str], fails: bool) -> None:
    command = deleting if fails else [sys.executable, "-c", MAIN, "models", "--json"]
    with open("/dev/full", "wb") as full:
        buffered = {**ENVIRONMENT, "PYTHONUNBUFFERED": ""}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=buffered, text=True)
    assert done.returncode == 1 and "Exception" not in done.stderr
    assert done.stderr.count("Error: No space left on device") == 1


def test_a_closed_stdout_is_no_bug() -> None:
    """As after `>&-`: Python then has no sys.stdout at all."""
    command = f"{sys.executable} -m looktwice models >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, env=ENVIRONMENT, text=True)
    assert done.returncode == 0 and done.stderr == ""


def test_a_terminal_without_the_characters_gets_escapes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "models", "fusion"],
        capture_output=True,
        env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0 and b"\\u03bb" in done.stdout and done.stderr == b""


SLOW = """
import time, looktwice.testing, looktwice.models.device, looktwice.encode
from looktwice.cli.main import main

class Slow(looktwice.testing.ColorEncoder):
    def encode(self, items):
        print("encoding", flush=True)
        time.sleep(0.3)
        return super().encode(items)

looktwice.encode.load_encoder = lambda name, **options: Slow()
looktwice.models.device.set_threads = lambda count: 1  # it would load torch, which nothing here needs
main()
"""


def test_ctrl_c_keeps_what_was_done_and_the_same_command_goes_on(tmp_path: Path) -> None:
    make_images(tmp_path / "pictures")
    command = [sys.executable, "-c", SLOW, "index", "t.lt", "pictures", "--batch-size", "2"]
    running = subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    for _ in range(3):
        assert running.stdout.readline() == "encoding\n"
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 130, err
    assert "Interrupted. Finished work is kept; run the same command again" in err and "Traceback" not in err
    kept = len(Table.open(tmp_path / "t.lt"))
    assert 0 < kept < 12
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert f"{12 - kept} added, {kept} unchanged" in done.stdout
    assert len(Table.open(tmp_path / "t.lt")) == 12


def test_two_writers_the_second_is_told(looktwice: Looktwice, own_table: Path) -> None:
    with Table.open(own_table).writer():
        started = time.monotonic()
        done = looktwice("delete", own_table, "red-0.png")
    assert done.code == 2 and "is writing to" in done.err and time.monotonic() - started < 30


def raising(error: Exception) -> object:
    def fail(*args: object, **options: object) -> None:
        raise error

    return fail


def test_a_bug_is_one_line_and_debug_shows_more(looktwice: Looktwice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("looktwice.store.Table.open", raising(KeyError("oops\x1b[31m")))
    done = looktwice("info", "t.lt")
    assert (
        done.code == 1
        and "KeyError" in done.err
        and done.err.splitlines()[-1].startswith("This is a bug in looktwice; ")
    )
    assert "Traceback" not in done.err and "\x1b" not in done.err
    with pytest.raises(KeyError):
        looktwice("info", "t.lt", "--debug")
    with pytest.raises(KeyError):
        looktwice("--debug", "info", "t.lt")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "t.lt/x"), "No space left on device: t.lt/x."),
        (PermissionError(errno.EACCES, "Permission denied", "t.lt"), "Permission denied: t.lt."),
        (MemoryError(), "Not enough memory"),
    ],
)
def test_errors_of_the_machine_are_sentences(
    looktwice: Looktwice, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    monkeypatch.setattr("looktwice.store.Table.open", raising(error))
    done = looktwice("info", "t.lt")
    assert done.code == 1 and message in done.err and "Traceback" not in done.err


def test_a_run_to_stdout_stands_behind_the_answers(tmp_path: Path) -> None:
    """With a folder in the place of /dev: the real one is everybody's."""
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    script = """
import sys
from pathlib import Path
from unicodedata import category
from looktwice import files
from looktwice.cli.answers import Outputs
from looktwice.cli.console import emit
files.DEVICES = Path(sys.argv[1])
outputs = Outputs(True, files.DEVICES / "stdout", None, None, _run={"q": [("a", 0.5)]})
emit({"x": 1})
outputs._files({})
"""
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", script, tmp_path], stdout=out, env=ENVIRONMENT, check=True)
    assert (tmp_path / "out").read_text() == '{"x": 1}\nq Q0 a 1 0.5 looktwice\n'
    assert sorted(os.listdir(tmp_path)) == ["out", "stdout"] and (tmp_path / "stdout").is_symlink()


def test_what_goes_to_a_pipe_is_not_folded(capsys: pytest.CaptureFixture[str]) -> None:
    path, why = "/pictures" + "/folder" * 60 + "/a.png", "why " * 70
    table(["path", "why"], [(path, why.strip()), ("b", "x")], title=f"query {path}")
    title, head, line, first, second = capsys.readouterr().out.splitlines()
    assert title == f"query {path}" and head.split() == ["path", "why"] and set(line) <= {"─", " "}
    assert first.split(maxsplit=1) == [path, why.strip()] and second.split() == ["b", "x"]
    assert second == second.rstrip()


def test_names_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    say(":cat: [red]x[/b]")
    table(["a", ">[/b]:cat:.trec\x1b"], [[":cat:", "[red]"]], title="[/i]")
    out = capsys.readouterr().out
    assert out.splitlines()[0] == ":cat: [red]x[/b]" and "[/b]:cat:.trec\\x1b" in out and ":cat:  " in out


def test_ctrl_c_in_process_is_130(looktwice: Looktwice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("looktwice.store.Table.open", raising(KeyboardInterrupt()))  # type: ignore[arg-type]
    done = looktwice("info", "t.lt")
    assert done.code == 130 and done.err == "Interrupted.\n", "nothing was to be kept"


def test_debug_after_a_double_dash_is_a_word(looktwice: Looktwice, own_table: Path) -> None:
    done = looktwice("delete", own_table, "--json", "--", "--debug")
    assert done.code == 3 and done.records[0]["unknown"] == 1  # an id that names nothing, and no option


def test_doctor_and_models_answer(looktwice: Looktwice) -> None:
    checks = {row["name"]: row for row in looktwice("doctor", "--json").records}
    assert checks["torch"]["ok"] and {"device", "threads", "tiny-clip"} <= set(checks)
    listed = looktwice("models", "mllm", "--json").records
    assert {"tiny-vl", "qwen2.5-vl-7b"} <= {row["name"] for row in listed}
    assert looktwice("models", "mllms").code == 2


def test_estimate(looktwice: Looktwice) -> None:
    facts = looktwice("estimate", "--mllm", "qwen2.5-vl-7b", "--items", "100e6", "--codec", "pq8", "--json").records[0]
    assert facts["items"] == 100_000_000 and facts["bytes_total"] == 100_000_000 * facts["bytes_per_item"]
    shown = looktwice("estimate", "--mllm", "qwen2.5-vl-7b", "--resolution", "560")
    assert shown.code == 0 and "300 made" in shown.out
    for wrong in (["--items", "many"], ["--image-size", "big"], ["--codec", "pq0"], ["--mfu", "2"], ["--mllm", "gpt"]):
        done = looktwice("estimate", "--mllm", "qwen2.5-vl-7b", *wrong)
        assert done.code == 2 and "Traceback" not in done.err


def test_every_verb_has_a_sentence_and_an_example() -> None:
    groups = [group.typer_instance for group in app.registered_groups]
    for command in [*app.registered_commands, *(one for group in groups for one in group.registered_commands)]:
        assert command.callback is not None
        assert "\n\n    Example" in (command.callback.__doc__ or ""), command.name
        assert command.short_help and command.short_help.endswith("."), command.name


def test_every_control_and_format_character_is_escaped() -> None:
    """By Unicode's own categories; the joiners of Persian and emoji stay between characters that are not ASCII."""
    wild = {chr(code) for code in range(sys.maxunicode + 1) if category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    for one in wild:
        assert safe(f"a{one}b").isascii(), ascii(one)
        line = json_line({"id": f"a{one}b"})
        assert line.isascii() and json.loads(line) == {"id": f"a{one}b"}, ascii(one)
    unseen = {one for one in wild if safe(f"é{one}é") == f"é{one}é"}
    assert unseen == {"\u200c", "\u200d"}
    assert safe("\u200dé\u200c") == "\\u200dé\\u200c" and safe("x\U000e0041") == "x\\U000e0041"
    plain = "naïve 漢字 🙂 می\u200cخواهم 👩\u200d🚀"
    assert safe(plain) == plain and json.loads(json_line({"id": plain})) == {"id": plain}


def test_old_option_names_work_and_say_what_they_are_called_now(looktwice: Looktwice) -> None:
    asked = ("estimate", "--mllm", "qwen2.5-vl-7b", "--json")
    old, new = looktwice(*asked, "--picture=560x560"), looktwice(*asked, "--image-size", "560x560")
    assert old.code == 0 and old.out == new.out
    assert "`--picture` is now called `--image-size`" in old.err and new.err == ""
