"""What every test may rely on: one thread per library, no network, and a small collection with known answers."""

from __future__ import annotations

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that would download must fail, not wait
os.environ["TERM"] = "dumb"
os.environ.pop("COLUMNS", None)

from pathlib import Path

import numpy as np
import pytest
from bucket_server import (  # noqa: F401
    azure_fixture,
    cloud_fixture,
    google_fixture,
    proxy_fixture,
    s3_fixture,
    server_fixture,
)
from hypothesis import settings

from looktwice.testing import ColorEncoder, make_images

settings.register_profile("few", max_examples=25, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "few"))


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell's background job ignores Ctrl-C, and so would the processes that tests begin and interrupt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Threads make tiny models slower, and beside other work far slower."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(params=["float32", "bfloat16"])
def cpu_dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test as on a CPU without and as on one with native bfloat16; returns the dtype that "auto" means there."""
    import torch

    monkeypatch.delenv("LOOKTWICE_DTYPE", raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": request.param == "bfloat16"})
    return str(request.param)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of 12 flat pictures, three shades each of red, green, blue and grey, named red-0.png … grey-2.png."""
    return make_images(tmp_path / "pictures")


@pytest.fixture
def colours() -> ColorEncoder:
    """An encoder whose vectors are mean colours."""
    return ColorEncoder()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
