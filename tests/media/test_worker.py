"""Decoders in processes of their own: a crash or a hang costs one file."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from looktwice.errors import MediaError
from looktwice.sources import images
from looktwice.sources.decoding import worker
from looktwice.sources.reading import Reading

pillow_heif.register_heif_opener()


def heic(size: tuple[int, int] = (64, 48), **options: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (200, 100, 50)).save(out, "HEIF", quality=100, **options)
    return out.getvalue()


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> worker.Pool:
    fresh = worker.Pool()
    monkeypatch.setattr(worker, "POOL", fresh)
    yield fresh
    fresh.end()


def test_a_process_is_kept_for_the_next_file(pool: worker.Pool) -> None:
    assert images.load(heic())[1] == (64, 48)
    (first,) = pool._idle
    images.load(heic())
    assert pool._idle == [first]


def test_files_of_many_threads_need_two_processes(pool: worker.Pool) -> None:
    with ThreadPoolExecutor(6) as threads:
        assert {size for _, size in threads.map(images.load, [heic()] * 12)} == {(64, 48)}
    assert 1 <= len(pool._idle) <= worker.MOST


def test_a_decoder_that_crashes_costs_one_file(pool: worker.Pool) -> None:
    images.load(heic())
    os.kill(pool._idle[0].process.pid, signal.SIGSTOP)
    threading.Timer(0.3, os.kill, (pool._idle[0].process.pid, signal.SIGSEGV)).start()
    threading.Timer(0.4, os.kill, (pool._idle[0].process.pid, signal.SIGCONT)).start()
    with pytest.raises(MediaError, match="crashed") as caught:
        images.load(heic())
    assert caught.value.reason == "corrupt"
    assert images.load(heic())[1] == (64, 48)


def test_a_decoder_that_hangs_is_ended(pool: worker.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    images.load(heic())
    hung = pool._idle[0].process
    os.kill(hung.pid, signal.SIGSTOP)
    monkeypatch.setattr(worker, "SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(MediaError) as caught:
        images.load(heic())
    assert caught.value.reason == "too-slow" and time.monotonic() - began < 20
    assert hung.poll() is not None
    monkeypatch.setattr(worker, "SECONDS", 60)
    assert images.load(heic())[1] == (64, 48)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_starts_its_own(pool: worker.Pool) -> None:
    images.load(heic())
    pid = os.fork()
    if pid == 0:
        pool.forget()
        os._exit(0 if images.load(heic())[1] == (64, 48) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert images.load(heic())[1] == (64, 48)


def test_what_leaves_the_process_is_reduced(pool: worker.Pool) -> None:
    image, size = images.load(heic((800, 600)), Reading(side=50))
    assert size == (800, 600) and image.size == (133, 100)
    assert np.abs(np.asarray(image).astype(int) - [200, 100, 50]).max() <= 4


def test_too_many_pixels_are_refused_there_too(pool: worker.Pool) -> None:
    with pytest.raises(MediaError, match="too-large"):
        images.load(heic(), max_pixels=1000)
