"""Serve first looks from several processes: each has its own encoder, and none a multimodal model."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from inspect import signature
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors.multiprocess import Multiprocess

from looktwice.errors import UsageError
from looktwice.serve.app import create_app
from looktwice.serve.run import cannot_listen, config, log_to_stderr
from looktwice.serve.settings import Settings

SETTINGS = "LOOKTWICE_SERVE_SETTINGS"
"""The variable that names the file of settings for the workers, which only this user can read."""


def serve_many(settings: Settings, workers: int, ready: Callable[[str], None]) -> None:
    """Serve from several processes until SIGINT or SIGTERM.

    `ready` is told the address when it is bound; `/readyz` of each worker tells when that one has loaded. Raises
    UsageError for a server with a model, or one that writes.
    """
    if settings.mllm is not None:
        raise UsageError("--workers serves first looks only, as each would load the model again; add --no-rerank.")
    if settings.allow_write:
        raise UsageError("--workers excludes --allow-write; let one server write, and others read the same table.")
    create_app(settings)  # refuse wrong settings here, once
    with tempfile.TemporaryDirectory() as folder:
        os.environ[SETTINGS] = str(write_settings(settings, Path(folder) / "settings.json"))
        chosen = config("looktwice.serve.workers:worker_app", settings, workers=workers)
        try:
            bound = chosen.bind_socket()
        except SystemExit as error:
            raise cannot_listen(chosen) from error
        host, port = bound.getsockname()[:2]
        ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        more = {"target": uvicorn.Server(chosen).run} if "target" in signature(Multiprocess).parameters else {}
        Multiprocess(chosen, sockets=[bound], **more).run()  # older releases want the target named


def write_settings(settings: Settings, path: Path) -> Path:
    """Write settings, with the keys, to a file that only this user can read."""
    values = settings.model_dump(mode="json")
    values["api_keys"] = [key.get_secret_value() for key in settings.api_keys]
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(values, file)
    return path


def worker_app() -> FastAPI:
    """Return the app of one worker."""
    log_to_stderr()
    return create_app(Settings.model_validate_json(Path(os.environ[SETTINGS]).read_text(encoding="utf-8")))
