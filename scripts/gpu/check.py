"""Check looktwice on one GPU in under eight minutes: parity, the GPU tests, pairs per second, attention kernels.

    scripts/gpu-check.sh                                # on a machine with a CUDA build of torch
    scripts/gpu-check.sh --only parity attention
    scripts/gpu-check.sh --device cpu --smoke           # the same code with toy shapes, without a GPU

Writes one JSON file, named after the device, after every single figure: a run that is cut short still has the rest.
Every part is a process of its own with a time limit; one that fails is recorded and the others go on. The last line of
stdout is the same JSON. docs/explanation/performance.md says how to read it. Exit code 3: a part failed, or a figure
is off.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from scripts.gpu.record import Options, Record

ROOT = Path(__file__).resolve().parents[2]
PARTS = {"parity": 120, "pairs": 160, "attention": 100, "tests": 80}
"""Parts in order, with the most seconds that each may take; 460 in all."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts, or one of them in this process."""
    asked = arguments(argv)
    if asked.part:
        options = Options(asked.device, asked.smoke, asked.until)
        return perform(asked.part, options, Record(asked.out))
    out = (asked.out or Path(f"gpu-check-{slug(device_name(asked.device))}.json")).resolve()
    out.unlink(missing_ok=True)
    record = Record(out)
    record.set(check="gpu", smoke=asked.smoke, **about(asked.device), finished=False)
    until = time.time() + asked.seconds
    for name in asked.only:
        supervise(name, asked, record.path, until)
    record = Record(out)
    ok = all(fine(record.data["parts"][name]) for name in asked.only)
    record.set(finished=True, ok=ok)
    print(f"{out}: {'all is well' if ok else 'something failed or is off; see status, error and ok'}", file=sys.stderr)
    print(json.dumps(record.data, ensure_ascii=False))
    return 0 if ok else 3


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu to try the script")
    parser.add_argument("--smoke", action="store_true", help="toy shapes: every path in seconds")
    parser.add_argument("--out", type=Path, help="the JSON file [default: gpu-check-DEVICE.json]")
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=list(PARTS), help="some of the parts")
    parser.add_argument("--seconds", type=float, default=460, help="for everything together")
    parser.add_argument("--here", action="store_true", help="run the parts in this process, without limits")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, default=float("inf"), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def supervise(name: str, asked: argparse.Namespace, out: Path, until: float) -> None:
    """Run a part in a process of its own; what ends that process ends nothing else."""
    left = min(PARTS[name], until - time.time())
    if left < 5:
        Record(out).part(name, status="skipped", error="no time was left; give more --seconds")
        return
    print(f"{name}: at most {left:.0f} s", file=sys.stderr, flush=True)
    begun = time.time()
    if asked.here:
        perform(name, Options(asked.device, asked.smoke, begun + left), Record(out))
        return
    command = [sys.executable, "-m", "scripts.gpu.check", "--part", name, "--device", asked.device, "--out", str(out)]
    command += ["--until", str(begun + 0.9 * left), *(["--smoke"] if asked.smoke else [])]
    try:
        code = subprocess.run(command, cwd=ROOT, stdout=sys.stderr, timeout=left).returncode
        problem = f"its process ended with {code}"
    except subprocess.TimeoutExpired:
        problem = f"it was stopped after {left:.0f} s"
    record = Record(out)  # as the part left it
    if record.data["parts"].get(name, {}).get("status", "running") == "running":
        record.part(name, status="failed", error=problem, seconds=round(time.time() - begun, 1))


def perform(name: str, options: Options, record: Record) -> int:
    """Run a part here; what it raises is recorded."""
    begun = time.time()
    record.part(name, status="running")
    try:
        run = tests if name == "tests" else importlib.import_module(f"scripts.gpu.{name}").run
        run(options, partial(record.row, name))
        outcome: dict[str, Any] = {"status": "done"}
    except Exception as error:
        traceback.print_exc()
        outcome = {"status": "failed", "error": f"{type(error).__name__}: {error}"[:2000]}
    record.part(name, **outcome, seconds=round(time.time() - begun, 1))
    return 0 if outcome["status"] == "done" else 3


def tests(options: Options, tell: Callable[[Mapping[str, Any]], None]) -> None:
    """Run what `make test-gpu` runs, on this device."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/gpu"]
    command += ["-k", "qwen3_vl or stored"] if options.smoke else []
    variables = {**os.environ, "LOOKTWICE_GPU": options.device}
    left = max(5.0, options.until - time.time())
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=left)
    lines = done.stdout.strip().splitlines()
    summary = lines[-1] if lines else ""
    tell({"command": "make test-gpu", "code": done.returncode, "summary": summary, "ok": not done.returncode})
    if done.returncode:
        raise RuntimeError("\n".join([*lines[-30:], done.stderr[-500:]]))


def fine(part: Mapping[str, Any]) -> bool:
    """Whether a part is done and none of its rows is off or failed."""
    rows = part["rows"]
    whole = all(row.get("ok", True) and not row.keys() & {"error", "skipped"} for row in rows)
    return part["status"] == "done" and whole


def about(device: str) -> dict[str, Any]:
    """The device and what runs on it."""
    import torch
    import transformers

    begun = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    found: dict[str, Any] = {"device": device_name(device), "started": begun}
    found |= {"torch": torch.__version__, "cuda": torch.version.cuda, "transformers": transformers.__version__}
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        found |= {"memory_gib": round(properties.total_memory / 2**30, 1)}
        found |= {"capability": f"{properties.major}.{properties.minor}"}
    return {**found, "python": platform.python_version()}


def device_name(device: str) -> str:
    """The card's name; "cpu" for a CPU. Raises UsageError for a device that torch cannot use."""
    import torch

    from looktwice.models.device import place

    placed = place(device).device
    return torch.cuda.get_device_name(placed) if placed.startswith("cuda") else placed


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    from looktwice.errors import LooktwiceError

    try:
        sys.exit(main())
    except LooktwiceError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
