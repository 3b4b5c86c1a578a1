"""Run many `looktwice` commands without paying the imports each time: fork them from a process that has imported all.

Reads one JSON line a job from stdin and writes one JSON line of its outcome to stdout; see `Job`. What a job imports is
imported here too before the next one. LanceDB is not, as its threads do not survive a fork; no table is opened here.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

LOGS = Path(tempfile.mkdtemp())
HEAVY = ("torch", "transformers", "pyarrow", "faiss", "PIL.Image", "scipy.stats", "looktwice.cli.main")


@dataclass
class Job:
    """One command in one folder.

    `kill_after`: seconds after the imports at which it gets SIGKILL (None: never). `patch`: attributes to set before,
    as {"module:name": value}. `limits`: resource limits, as {"NOFILE": 64}. `call`: a function "module:name" to call
    with `argv` instead of a command; what it returns is the outcome's `value`. `seconds`: after which a command counts
    as hanging.
    """

    argv: list[str]
    folder: str
    kill_after: float | None = None
    patch: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    call: str | None = None
    seconds: float = 120


@dataclass
class Outcome:
    """How a command ended: its exit code (negative: the signal; None: it hung), what it wrote and how long it took."""

    code: int | None
    out: str
    err: str
    seconds: float
    value: Any = None


def attribute(target: str) -> tuple[Any, str]:
    module, _, name = target.partition(":")
    return importlib.import_module(module), name


def child(job: Job, ready: int) -> None:
    os.chdir(job.folder)
    os.environ.update(job.env)
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(LOGS / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    importlib.import_module("lancedb")
    for target, value in job.patch.items():
        setattr(*attribute(target), value)
    for name, most in job.limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
    os.write(ready, b"+")
    if job.call is not None:
        value = getattr(*attribute(job.call))(*job.argv)
        (LOGS / "value").write_text(json.dumps(value))
        return
    sys.argv = ["looktwice", *job.argv]
    importlib.import_module("looktwice.cli.main").main()


def run(job: Job) -> Outcome:
    for name in ("value", "modules"):
        (LOGS / name).unlink(missing_ok=True)
    reading, ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        end_with(job, ready)
    os.close(ready)
    select.select([reading], [], [], 60)
    os.close(reading)
    began = time.monotonic()
    code = wait(pid, began + (job.seconds if job.kill_after is None else job.kill_after))
    if code is None:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        code = None if job.kill_after is None else os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - began
    out, err = ((LOGS / name).read_text(errors="replace") for name in ("stdout", "stderr"))
    value = json.loads((LOGS / "value").read_text()) if (LOGS / "value").exists() else None
    learn()
    return Outcome(code, out, err, seconds, value)


def end_with(job: Job, ready: int) -> None:
    """Run a job in the child that was forked for it, note what it imported, and end the process."""
    before, code = set(sys.modules), 1
    try:
        child(job, ready)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    if not job.limits:  # few descriptors and full disks are the command's trouble
        (LOGS / "modules").write_text("\n".join(set(sys.modules) - before))
    os._exit(code)


def learn() -> None:
    """Import what the last job imported; the commands under attack then spend their time at work."""
    if not (LOGS / "modules").exists():
        return
    for name in (LOGS / "modules").read_text().split():
        if not name.startswith("lancedb"):
            with suppress(Exception):
                importlib.import_module(name)


def wait(pid: int, until: float) -> int | None:
    pause = 0.0005
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(min(pause, max(0.0, until - time.monotonic())))
        pause = min(2 * pause, 0.02)
    return None


def main() -> None:
    for name in HEAVY:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    for line in sys.stdin:
        outcome = run(Job(**json.loads(line)))
        print(json.dumps(asdict(outcome)), flush=True)


if __name__ == "__main__":
    main()
