"""A real vLLM that serves the bundled tiny-vl on the CPU."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from fakes import INSTALLED

MODEL = INSTALLED / "looktwice" / "assets" / "tiny" / "tiny-vl"
READY_SECONDS = 300


def environment() -> Path | None:
    """The environment that `make test-vllm` builds, if it is there."""
    folder = Path(os.environ.get("LOOKTWICE_VLLM", ".venv-vllm"))
    return folder if (folder / "bin" / "vllm").exists() else None


class VllmServer:
    """One process on a port of its own, or on `port`.

    `more_options` are further options of `vllm serve`; `torchvision`: with it, as the models of some families need it.
    """

    def __init__(
        self,
        folder: Path,
        log: Path,
        model: Path = MODEL,
        name: str = "tiny-vl",
        port: int = 0,
        more_options: Sequence[str] = (),
        torchvision: bool = False,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        command = [
            str((folder / "bin" / "vllm").absolute()), "serve", str(model), "--served-model-name", name,
            "--host", "127.0.0.1", "--port", str(self.port), "--enforce-eager", "--dtype", "float32",
            "--block-size", "32", "--max-model-len", "1024", "--limit-mm-per-prompt", '{"image":2}', *more_options,
        ]  # fmt: skip
        own = {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
        if torchvision:
            own["PYTHONPATH"] = str((folder / "torchvision").absolute())
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **own},
                cwd=log.parent,  # vLLM asks for a folder below the working directory before it looks at the path
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.log = log

    def wait(self) -> None:
        """Wait until it answers."""
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/models", timeout=5):
                    return
            except OSError:
                time.sleep(0.5)
        raise AssertionError(f"vLLM did not start: {self.log.read_text(errors='replace')[-3000:]}")

    def metric(self, name: str) -> float:
        """One of its counters."""
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))

    def post(self, path: str, body: object) -> dict[str, object]:
        """The answer to one request."""
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, object] = json.load(answer)
            return found

    def kill(self) -> None:
        """Kill it and its children at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
